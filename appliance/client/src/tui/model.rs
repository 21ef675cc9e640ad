//! What the terminal chat knows: plain values, already safe to show. It needs neither a terminal nor a client.

use super::input::Input;
use zixt_types::{MessageId, ThreadId};

/// Messages asked for at a time when scrolling back.
pub const PAGE: usize = 50;

/// How far a message of ours has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mark {
    /// Somebody else's: nothing to say.
    None,
    /// It waits here.
    Queued,
    /// It was handed to the appliance, which has not answered.
    Sent,
    /// It is in the ledger, and the proof was checked.
    Recorded,
    /// A client of everybody else has seen it; known when they write.
    Read,
    /// It was refused and will not be sent.
    Refused,
}

/// What a line of a conversation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Somebody said it.
    Said,
    /// It happened: somebody joined, left, changed keys.
    Event,
    /// It happened and asks for attention: a key change, a message that cannot be trusted.
    Warning,
}

/// One message, as shown. All texts are escaped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its id; events have one made of their place.
    pub id: MessageId,
    /// Its place in the ledger's thread; absent as long as it is not recorded.
    pub seq: Option<u64>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who.
    pub from: String,
    /// How far it has come.
    pub mark: Mark,
    /// What it is.
    pub kind: Kind,
    /// The text.
    pub text: String,
}

/// What the list of conversations shows of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its id.
    pub id: ThreadId,
    /// The group's title or the other person's name.
    pub title: String,
    /// Its MLS epoch.
    pub epoch: u64,
    /// Who is in it.
    pub members: Vec<String>,
    /// Why nothing can be sent, if so.
    pub closed: Option<String>,
    /// Messages that were not shown yet.
    pub unread: u64,
    /// Messages that wait here.
    pub queued: u64,
    /// Who in it has fingerprints that nobody compared yet, or changed ones.
    pub unverified: Vec<String>,
    /// When something last happened.
    pub last_ms: u64,
}

/// A conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thread {
    /// What the list shows.
    pub head: Head,
    /// The messages that are loaded, in order.
    pub messages: Vec<Message>,
    /// Whether nothing older is in the store.
    pub complete: bool,
    /// Whether older ones were asked for.
    pub loading: bool,
    /// Lines between the last one and the bottom of the pane.
    pub scroll: usize,
    /// Messages that came below what is shown.
    pub below: usize,
    /// What is being written.
    pub input: Input,
}

impl Thread {
    /// A conversation of which nothing is loaded.
    pub fn new(head: Head) -> Self {
        Self {
            head,
            messages: Vec::new(),
            complete: false,
            loading: false,
            scroll: 0,
            below: 0,
            input: Input::default(),
        }
    }

    /// Adds a message, or replaces the one with its id. True if it is new.
    pub fn put(&mut self, message: Message) -> bool {
        if let Some(known) = self.messages.iter_mut().find(|known| known.id == message.id) {
            // Reports can overtake each other: a mark never goes back.
            let mark =
                if message.mark == Mark::Refused { message.mark } else { known.mark.max(message.mark) };
            *known = Message { mark, seq: message.seq.or(known.seq), ..message };
            self.sort();
            return false;
        }
        self.messages.push(message);
        self.sort();
        true
    }

    /// The ledger's order; what has no place in it yet stays last, in the order in which it was written.
    fn sort(&mut self) {
        self.messages.sort_by_key(|message| message.seq.unwrap_or(u64::MAX));
    }
}

/// Whether the appliance can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Link {
    /// The first connection is being made.
    Connecting,
    /// It is there.
    Connected,
    /// It is not; the reason.
    Away(String),
}

/// Something is wrong with keys, proofs or the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// What was found.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// What lies over the conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overlay {
    /// The keyboard help.
    Help,
    /// The alarms in full.
    Alarms,
}

/// How the terminal can draw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Looks {
    /// Whether colours are welcome. Nothing is said by colour alone.
    pub colour: bool,
    /// Whether the terminal shows UTF-8; if not, marks and frames are ASCII.
    pub unicode: bool,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Model {
    /// Our name.
    pub me: String,
    /// The network's name.
    pub network: String,
    /// Whether the network is a lab.
    pub lab: bool,
    /// How to draw.
    pub looks: Looks,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// The conversations, the latest first.
    pub threads: Vec<Thread>,
    /// The open one.
    pub open: Option<ThreadId>,
    /// On a narrow terminal: whether the list is shown in place of the messages.
    pub list: bool,
    /// Whether the appliance can be reached.
    pub link: Link,
    /// What is wrong.
    pub alarms: Vec<Alarm>,
    /// What lies over the conversation.
    pub overlay: Option<Overlay>,
    /// First line that the overlay shows.
    pub overlay_scroll: usize,
    /// What the status line says about the last thing that was done.
    pub notice: Option<String>,
}

impl Model {
    /// The open conversation.
    pub fn current(&self) -> Option<&Thread> {
        self.open.and_then(|open| self.threads.iter().find(|thread| thread.head.id == open))
    }

    /// The open conversation.
    pub fn current_mut(&mut self) -> Option<&mut Thread> {
        self.open.and_then(|open| self.thread_mut(open))
    }

    /// A conversation.
    pub fn thread_mut(&mut self, id: ThreadId) -> Option<&mut Thread> {
        self.threads.iter_mut().find(|thread| thread.head.id == id)
    }
}
