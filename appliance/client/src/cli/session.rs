//! What the commands share: the open account, waiting for the appliance, finding a conversation by what a person typed.

use super::args::Global;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::secret;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use zixt_client::{Client, ClientError, SyncReport, ThreadSummary};
use zixt_types::ThreadId;

/// How long the appliance may take to say whether a title is also a person's name.
const ASK: Duration = Duration::from_secs(3);
/// Digits of a thread's id that are enough to name it.
const ID_DIGITS_MIN: usize = 6;

/// The open account and how to answer.
pub struct Session {
    /// The account.
    pub client: Client,
    /// Where results go.
    pub output: Output,
    timeout: Duration,
}

/// The folder of the local store.
pub fn folder(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(folder) = &global.store {
        return Ok(folder.clone());
    }
    match std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".zixt")),
        None => Err(Failure::usage("there is no home folder", "Name the store's folder with --store DIR.")),
    }
}

/// Whether the folder has an account. Says so before a passphrase is asked for.
pub fn require_store(global: &Global) -> Result<PathBuf, Failure> {
    let folder = folder(global)?;
    if folder.join("store.sqlite").exists() {
        return Ok(folder);
    }
    Err(ClientError::from(zixt_client::store::StoreError::Absent(folder)).into())
}

impl Session {
    /// Opens the account. Works without the appliance. Alarms are said at once.
    pub async fn open(global: &Global) -> Result<Self, Failure> {
        let folder = require_store(global)?;
        let passphrase = secret::passphrase(global.passphrase_file.as_deref())?;
        let client = Client::open(&folder, &passphrase).await?;
        let output = Output { json: global.json };
        let session = Self { client, output, timeout: Duration::from_secs(u64::from(global.timeout)) };
        session.say_alarms().await?;
        Ok(session)
    }

    /// Says that there are alarms, if so.
    pub async fn say_alarms(&self) -> Result<(), Failure> {
        let count = self.client.alarms().await?.len();
        if count > 0 {
            self.output.remark(&format!(
                "!!! {count} alarm(s): something is wrong with keys, proofs or the ledger."
            ));
            self.output.remark("!!! Read them before you go on: zixt alarms");
        }
        Ok(())
    }

    /// The time that a command may wait for the appliance.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Waits for the appliance, but not for ever.
    pub async fn wait<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, Failure> {
        wait(self.timeout, work).await
    }

    /// Sends what is queued and fetches what is new.
    pub async fn sync(&self) -> Result<SyncReport, Failure> {
        self.wait(self.client.sync_once()).await
    }

    /// A conversation that this device knows.
    pub async fn find(&self, to: &str) -> Result<ThreadSummary, Failure> {
        match self.known(to).await? {
            Some(thread) => Ok(thread),
            None => Err(Failure::usage(
                format!("this device knows no conversation with or called '{to}'"),
                "`zixt threads` lists them; `zixt sync` fetches new ones; `zixt chat NAME` starts one.",
            )),
        }
    }

    async fn known(&self, to: &str) -> Result<Option<ThreadSummary>, Failure> {
        let threads = self.client.threads().await?;
        let people: Vec<String> =
            self.client.contacts().await?.into_iter().map(|contact| contact.name.to_lowercase()).collect();
        Ok(find(&threads, to, &self.client.profile().name, &people)?.cloned())
    }

    /// [`Session::known`], for what is about to be written. Any member may have called a conversation like a person:
    /// who it is for must not depend on whether this device happens to know that person.
    async fn addressed(&self, to: &str) -> Result<Option<ThreadSummary>, Failure> {
        let found = self.known(to).await?;
        if found.as_ref().is_some_and(|thread| thread.title_is_shared && thread.title == to) {
            let asked = tokio::time::timeout(self.timeout.min(ASK), self.client.contact(to)).await;
            if matches!(asked, Ok(Ok(_))) {
                return self.known(to).await;
            }
        }
        Ok(found)
    }

    /// A conversation that this device knows, or knows after asking the appliance.
    pub async fn find_or_sync(&self, to: &str) -> Result<ThreadSummary, Failure> {
        if let Ok(found) = self.find(to).await {
            return Ok(found);
        }
        self.sync().await?;
        self.find(to).await
    }

    /// The conversation with a person, a title or an id. Starts the one with a person if there is none.
    pub async fn find_or_start(&self, to: &str) -> Result<ThreadId, Failure> {
        if let Some(thread) = self.addressed(to).await? {
            return Ok(thread.thread);
        }
        // The other person may have started one that this device has not seen yet.
        self.sync().await?;
        if let Some(thread) = self.addressed(to).await? {
            return Ok(thread.thread);
        }
        self.wait(self.client.start_conversation(&[to], None)).await
    }

    /// A conversation as it is now.
    pub async fn summary(&self, id: ThreadId) -> Result<ThreadSummary, Failure> {
        let threads = self.client.threads().await?;
        threads
            .into_iter()
            .find(|thread| thread.thread == id)
            .ok_or_else(|| ClientError::UnknownThread(id).into())
    }
}

/// Waits for the appliance, but not for ever.
pub async fn wait<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(timeout, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::new(
            Exit::Away,
            format!("the appliance did not answer within {} s", timeout.as_secs()),
            "Try again, or wait longer with --timeout SECONDS. What was queued stays queued.",
        )),
    }
}

/// Finds what a person means: a title, exactly, or the other person's name of a one-to-one, in upper or lower case (as
/// the appliance knows names); else the beginning of an id. Never guesses between two. A title that members share
/// never stands for a person (`people`: names in lower case) or an id: a member could draw messages to itself.
fn find<'a>(
    threads: &'a [ThreadSummary],
    to: &str,
    me: &str,
    people: &[String],
) -> Result<Option<&'a ThreadSummary>, Failure> {
    let wanted = to.to_lowercase();
    let digits = to.to_ascii_lowercase();
    let is_digits = digits.len() >= ID_DIGITS_MIN && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let begun: Vec<_> =
        threads.iter().filter(|thread| is_digits && thread.thread.to_hex().starts_with(&digits)).collect();
    let is_taken = people.contains(&wanted) || !begun.is_empty();
    let is_pair = |thread: &ThreadSummary| {
        let other = thread.people.iter().find(|name| *name != me);
        thread.people.len() == 2
            && other.is_some_and(|name| name.to_lowercase() == wanted && *name == thread.title)
    };
    let is_titled = |thread: &ThreadSummary| thread.title == to && !(thread.title_is_shared && is_taken);
    let named: Vec<_> = threads.iter().filter(|thread| is_titled(thread) || is_pair(thread)).collect();
    let usable: Vec<_> = named.iter().filter(|thread| !thread.removed).copied().collect();
    let named = if usable.is_empty() { named } else { usable };
    match named.as_slice() {
        [] => {}
        [one] => return Ok(Some(one)),
        // Both people may have started one at the same time: the latest is as good as the other.
        [latest, ..] if named.iter().all(|thread| is_pair(thread)) => return Ok(Some(latest)),
        several => return Err(ambiguous(to, several)),
    }
    match begun.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => Err(ambiguous(to, several)),
    }
}

fn ambiguous(to: &str, threads: &[&ThreadSummary]) -> Failure {
    let ids: Vec<String> = threads.iter().map(|thread| thread.thread.to_hex()).collect();
    Failure::usage(
        format!("'{to}' is the name of {} conversations", ids.len()),
        format!("Use the id of the one that you mean: {}", ids.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_types::{Epoch, ThreadKind};

    fn thread(id: u8, title: &str, people: &[&str]) -> ThreadSummary {
        ThreadSummary {
            thread: ThreadId::new(ThreadKind::Conversation, &[id; 31]),
            title: title.into(),
            title_is_shared: false,
            people: people.iter().map(|name| (*name).to_owned()).collect(),
            members: Vec::new(),
            epoch: Epoch(1),
            last_seq: None,
            last_time: None,
            last_text: None,
            unread: 0,
            queued: 0,
            removed: false,
            blocked: None,
        }
    }

    fn found(threads: &[ThreadSummary], to: &str) -> Result<Option<u8>, Exit> {
        find(threads, to, "ada", &["ada", "bob", "carol"].map(str::to_owned))
            .map(|found| found.map(|thread| thread.thread.0[1]))
            .map_err(|failure| failure.exit)
    }

    #[test]
    fn names_titles_and_ids_are_found_and_never_guessed() {
        let mut threads = vec![
            thread(0x11, "bob", &["ada", "bob"]),
            thread(0x22, "team", &["ada", "bob", "carol"]),
            thread(0x33, "carol", &["ada", "carol"]),
            thread(0x44, "carol", &["ada", "carol", "dave"]),
        ];
        assert_eq!(found(&threads, "bob"), Ok(Some(0x11)));
        assert_eq!(found(&threads, "team"), Ok(Some(0x22)));
        assert_eq!(found(&threads, "carol"), Err(Exit::Usage));
        assert_eq!(found(&threads, "Bob"), Ok(Some(0x11)));
        assert_eq!(found(&threads, "Team"), Ok(None));
        assert_eq!(found(&threads, "023333"), Ok(Some(0x33)));
        assert_eq!(found(&threads, "02333"), Ok(None));
        assert_eq!(found(&threads, &threads[1].thread.to_hex()), Ok(Some(0x22)));
        threads[3].removed = true;
        assert_eq!(found(&threads, "carol"), Ok(Some(0x33)));
        threads.push(thread(0x55, "bob", &["bob", "ada"]));
        assert_eq!(found(&threads, "bob"), Ok(Some(0x11)));
    }

    #[test]
    fn a_shared_title_never_stands_for_a_person_or_an_id() {
        let shared = |id, title: &str| ThreadSummary {
            title_is_shared: true,
            ..thread(id, title, &["ada", "bob", "mallory"])
        };
        let mut threads = vec![shared(0x11, "carol"), shared(0x22, "crew"), shared(0x33, "023434")];
        assert_eq!(found(&threads, "crew"), Ok(Some(0x22)));
        assert_eq!(found(&threads, "carol"), Ok(None));
        assert_eq!(found(&threads, "023434"), Ok(Some(0x33)));
        threads.push(thread(0x34, "carol", &["ada", "carol"]));
        assert_eq!(found(&threads, "carol"), Ok(Some(0x34)));
        assert_eq!(found(&threads, "023434"), Ok(Some(0x34)));
    }
}
