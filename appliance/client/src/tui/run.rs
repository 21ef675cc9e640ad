//! The loop between terminal, model and client, and the care for the terminal's state.

use super::model::{Kind, Link, Looks, Mark, Message, Model, PAGE};
use super::update::{Effect, Event, open, update};
use super::{translate, view};
use crate::cli::escape::escape_line;
use crate::cli::exit::{Exit, Failure};
use futures_util::StreamExt as _;
use ratatui::crossterm::event::{DisableBracketedPaste, EnableBracketedPaste, Event as Input, EventStream};
use ratatui::crossterm::execute;
use std::collections::BTreeSet;
use std::io::{IsTerminal as _, stdin, stdout};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use zixt_client::{Client, ClientError, ClientEvent};
use zixt_types::{MessageId, Seq, ThreadId};

/// Events that wait for the screen; the client waits when it is full.
const EVENTS_WAITING_MAX: usize = 256;

/// Opens the terminal chat and stays until the person ends it.
///
/// # Errors
/// If there is no terminal, the store fails, or the client stops for a reason that no retry cures.
pub async fn run(client: &Client, first: Option<ThreadId>) -> Result<(), Failure> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(Failure::usage(
            "the terminal chat needs a terminal",
            "Use `zixt send`, `zixt read --follow` or `zixt watch` in scripts.",
        ));
    }
    let mut signals = Signals::new().map_err(|error| terminal_failure(&error))?;
    let mut screen = Screen::open().map_err(|error| terminal_failure(&error))?;
    let mut chat = Chat { client, model: start(client, &screen), notes: AtomicU64::new(0) };
    chat.refresh().await?;
    if let Some(first) = first {
        let effects = open(&mut chat.model, first);
        chat.perform(effects).await?;
    }

    let (sender, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
    let core = client.clone();
    let mut running = tokio::spawn(async move { core.run(sender).await });
    let mut keys = EventStream::new();
    let outcome = loop {
        if let Err(error) = screen.terminal.draw(|frame| view::draw(frame, &chat.model)) {
            break Err(terminal_failure(&error));
        }
        let more = tokio::select! {
            biased;
            () = signals.recv() => Ok(false),
            key = keys.next() => match key {
                Some(Ok(input)) => chat.on_input(input).await,
                Some(Err(error)) => Err(terminal_failure(&error)),
                None => Ok(false),
            },
            Some(event) = events.recv() => chat.on_events(event, &mut events).await,
            ended = &mut running => Err(match ended {
                Ok(Err(error)) => error.into(),
                Ok(Ok(())) => Failure::new(Exit::Internal, "the client stopped by itself", "Start it again."),
                Err(error) => Failure::new(Exit::Internal, error.to_string(), "Start it again."),
            }),
        };
        match more {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    running.abort();
    drop(screen);
    outcome
}

fn start(client: &Client, screen: &Screen) -> Model {
    let profile = client.profile();
    let size = screen.terminal.size().map_or((80, 24), |size| (size.width, size.height));
    Model {
        me: escape_line(&profile.name),
        network: escape_line(profile.network()),
        lab: profile.lab(),
        looks: looks(|name| std::env::var(name).ok()),
        size,
        threads: Vec::new(),
        open: None,
        list: false,
        link: Link::Connecting,
        alarms: Vec::new(),
        overlay: None,
        overlay_scroll: 0,
        notice: None,
    }
}

/// What the environment says about the terminal (<https://no-color.org>; POSIX order of locale variables).
fn looks(variable: impl Fn(&str) -> Option<String>) -> Looks {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    Looks {
        colour: set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb"),
        unicode: locale.contains("utf-8") || locale.contains("utf8"),
    }
}

/// The model and what its effects need.
struct Chat<'a> {
    client: &'a Client,
    model: Model,
    /// Numbers the lines that only this screen knows.
    notes: AtomicU64,
}

impl Chat<'_> {
    async fn on_input(&mut self, input: Input) -> Result<bool, Failure> {
        let event = match input {
            Input::Key(key) => Event::Key(key),
            Input::Paste(text) => Event::Paste(text),
            Input::Resize(columns, rows) => Event::Resize(columns, rows),
            Input::FocusGained | Input::FocusLost | Input::Mouse(_) => return Ok(true),
        };
        self.apply(event).await
    }

    /// Handles an event and whatever waits behind it, so that a burst is drawn once.
    async fn on_events(
        &mut self,
        first: ClientEvent,
        events: &mut mpsc::Receiver<ClientEvent>,
    ) -> Result<bool, Failure> {
        let mut next = Some(first);
        let mut count = 0;
        while let Some(event) = next {
            self.on_event(event).await?;
            count += 1;
            next = if count < EVENTS_WAITING_MAX { events.try_recv().ok() } else { None };
        }
        self.refresh().await?;
        Ok(true)
    }

    async fn on_event(&mut self, event: ClientEvent) -> Result<(), Failure> {
        let event = match event {
            ClientEvent::Message(view) => {
                if self.model.thread_mut(view.thread).is_none() {
                    self.refresh().await?;
                }
                Event::Message { thread: view.thread, message: translate::message(&view) }
            }
            ClientEvent::Mark { thread, message, seq, mark } => {
                Event::Marked { thread, id: message, mark: translate::mark(mark), seq: seq.map(|seq| seq.0) }
            }
            ClientEvent::SendFailed { thread, message, reason } => {
                let refused = Event::Marked { thread, id: message, mark: Mark::Refused, seq: None };
                self.apply(refused).await?;
                let text = format!("not sent: {reason}");
                Event::Message { thread, message: translate::remark(message, now_ms(), &text) }
            }
            ClientEvent::KeyChange { name, was_verified, .. } => {
                return self.key_change(&name, was_verified).await;
            }
            ClientEvent::ConnectionUp => Event::Link(Link::Connected),
            ClientEvent::ConnectionDown { reason } => Event::Link(Link::Away(escape_line(&reason))),
            // The refresh after every burst shows these.
            ClientEvent::MembersChanged { .. } | ClientEvent::Removed { .. } | ClientEvent::Alarm(_) => {
                return Ok(());
            }
        };
        self.apply(event).await.map(|_| ())
    }

    /// Says in every conversation with the person that their devices changed.
    async fn key_change(&mut self, name: &str, was_verified: bool) -> Result<(), Failure> {
        let shown = escape_line(name);
        let text = if was_verified {
            format!(
                "the devices of {shown} changed AFTER you verified them. Compare again: zixt verify {shown}"
            )
        } else {
            format!("the devices of {shown} changed. Compare fingerprints: zixt verify {shown}")
        };
        let concerned = self.model.threads.iter().filter(|thread| thread.head.members.contains(&shown));
        let concerned: Vec<ThreadId> = concerned.map(|thread| thread.head.id).collect();
        for thread in concerned {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&self.notes.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            let mut message = translate::remark(MessageId(id), now_ms(), &text);
            // It stays where it was said: after what is there now, before what comes.
            let messages = self.model.thread_mut(thread).map(|thread| &thread.messages);
            message.seq = messages.and_then(|messages| messages.iter().rev().find_map(|message| message.seq));
            self.apply(Event::Message { thread, message }).await?;
        }
        Ok(())
    }

    /// Reads the list of conversations and the alarms anew.
    async fn refresh(&mut self) -> Result<(), Failure> {
        let contacts = self.client.contacts().await?;
        let verified: BTreeSet<String> =
            contacts.into_iter().filter(|contact| contact.verified).map(|contact| contact.name).collect();
        let me = &self.client.profile().name;
        let threads = self.client.threads().await?;
        let heads: Vec<_> = threads.iter().map(|thread| translate::head(thread, me, &verified)).collect();
        let alarms = self.client.alarms().await?;
        let alarms = alarms.iter().map(|alarm| translate::alarm(alarm, &heads)).collect();
        self.apply(Event::Threads(heads)).await?;
        self.apply(Event::Alarms(alarms)).await?;
        Ok(())
    }

    /// Applies an event and performs what follows. False when the person ended it.
    async fn apply(&mut self, event: Event) -> Result<bool, Failure> {
        let effects = update(&mut self.model, event);
        self.perform(effects).await
    }

    async fn perform(&mut self, effects: Vec<Effect>) -> Result<bool, Failure> {
        for effect in effects {
            match effect {
                Effect::Quit => return Ok(false),
                Effect::Seen(thread) => self.client.mark_shown(thread).await?,
                Effect::Load(thread, before) => self.load(thread, before).await?,
                Effect::Send(thread, text) => self.send(thread, text).await?,
            }
        }
        Ok(true)
    }

    async fn load(&mut self, thread: ThreadId, before: Option<u64>) -> Result<(), Failure> {
        let views = self.client.history(thread, before.map(Seq), PAGE).await?;
        let complete = views.len() < PAGE;
        let messages = views.iter().map(translate::message).collect();
        // Older messages have no effects of their own.
        let _none = update(&mut self.model, Event::Older { thread, messages, complete });
        Ok(())
    }

    async fn send(&mut self, thread: ThreadId, text: String) -> Result<(), Failure> {
        let event = match self.client.send(thread, &text).await {
            Ok(id) => {
                let from = self.model.me.clone();
                if let Some(thread) = self.model.thread_mut(thread) {
                    thread.head.queued += 1;
                }
                let message = Message {
                    id,
                    seq: None,
                    at_ms: now_ms(),
                    from,
                    mark: Mark::Queued,
                    kind: Kind::Said,
                    text,
                };
                Event::Message { thread, message }
            }
            // A store that fails ends the program; anything else concerns this text, which is given back.
            Err(error @ ClientError::Store(_)) => {
                let mut failure = Failure::from(error);
                failure.advice.push_str("\n  The text that was not stored:\n");
                failure.advice.push_str(&text);
                return Err(failure);
            }
            Err(error) => {
                let _none = update(&mut self.model, Event::Paste(text));
                Event::Notice(escape_line(&format!("not sent: {error}")))
            }
        };
        let _none = update(&mut self.model, event);
        Ok(())
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn terminal_failure(error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Internal,
        format!("the terminal: {error}"),
        "Try another terminal, or `zixt read` and `zixt send`.",
    )
}

/// The terminal in raw mode on its other screen. It is given back when this is dropped and when the program panics.
struct Screen {
    terminal: ratatui::DefaultTerminal,
}

impl Screen {
    fn open() -> std::io::Result<Self> {
        // Installs a panic hook that restores raw mode and screen.
        let terminal = ratatui::try_init()?;
        let screen = Self { terminal };
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _best_effort = execute!(stdout(), DisableBracketedPaste);
            before(panic);
        }));
        execute!(stdout(), EnableBracketedPaste)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _best_effort = execute!(stdout(), DisableBracketedPaste);
        let _best_effort = ratatui::try_restore();
    }
}

/// The signals that ask the program to end: it ends as if the person had, so that the terminal is given back.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_the_looks() {
        let of = |pairs: &[(&str, &str)]| {
            looks(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[]), Looks { colour: true, unicode: false });
        assert_eq!(of(&[("LANG", "de_DE.UTF-8"), ("NO_COLOR", "")]), Looks { colour: true, unicode: true });
        assert_eq!(
            of(&[("LC_ALL", "C"), ("LANG", "de_DE.utf8"), ("NO_COLOR", "1")]),
            Looks { colour: false, unicode: false }
        );
        assert!(!of(&[("TERM", "dumb")]).colour);
    }
}
