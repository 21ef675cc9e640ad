//! What the tests share: a disk that can be killed, filled and broken, a clock that is moved by hand, and events.

use crate::folder::{Folder, Handle};
use crate::{
    Action, Actor, Clock, Code, Details, Event, LedgerTime, Officers, Origin, Outcome, Settings, Target,
    Text, Value, When,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use zixt_types::{AccountId, ApplianceId, DeviceId, Hash, Height, ThreadId, Timestamp};

/// Longer than any test takes: a wait of this length is one that must not be needed.
pub(crate) const LONG: Duration = Duration::from_secs(600);

pub(crate) fn when(wall: u64) -> When {
    When { wall: Timestamp(wall), ledger: None }
}

/// A small event that tells its number.
pub(crate) fn event(number: u64) -> Event {
    let details = Details::none().with("number", Value::Number(number)).unwrap();
    Event { details, ..Event::new(Action::SignIn, Actor::Nobody, Origin::Console, when(1_795_389_745_123)) }
}

/// As [`event`], of a kind that has to wait while the disk is full.
pub(crate) fn routine(number: u64) -> Event {
    Event { action: Action::DataRead, ..event(number) }
}

/// Clocks that stand still until they are moved.
#[derive(Default)]
pub(crate) struct ManualClock(Mutex<Duration>);

impl ManualClock {
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> When {
        when(1_795_389_745_123 + u64::try_from(self.0.lock().unwrap().as_millis()).unwrap())
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

pub(crate) fn settings(clock: &Arc<ManualClock>) -> Settings {
    Settings { segment_bytes: 64 * 1024, random: [7; 32], clock: Arc::clone(clock) as _ }
}

#[derive(Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Writes that are not durable yet.
    pending: Vec<(usize, Vec<u8>)>,
}

fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() < at + part.len() {
        bytes.resize(at + part.len(), 0);
    }
    bytes[at..at + part.len()].copy_from_slice(part);
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    operations: u64,
    kill_at: Option<u64>,
    room: Option<usize>,
    write_bytes_max: Option<usize>,
    syncs_fail: bool,
    writes_fail: Option<io::ErrorKind>,
    syncs_wait: bool,
    syncs_held: usize,
}

/// A folder in memory. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<(Mutex<State>, Condvar)>);

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

impl Disk {
    pub fn with(files: &Files) -> Self {
        let disk = Self::default();
        let content =
            |bytes: &Vec<u8>| Content { seen: bytes.clone(), durable: bytes.clone(), pending: Vec::new() };
        disk.state().files =
            files.iter().map(|(name, bytes)| (name.clone(), Arc::new(Mutex::new(content(bytes))))).collect();
        disk
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// The operation of this number, from now, and all later ones do not happen.
    pub fn kill_at(&self, operation: u64) {
        let mut state = self.state();
        state.kill_at = Some(state.operations + operation);
    }

    pub fn killed(&self) -> bool {
        let state = self.state();
        state.kill_at.is_some_and(|at| state.operations > at)
    }

    /// Bytes that all files together may have.
    pub fn set_room(&self, room: Option<usize>) {
        self.state().room = room;
    }

    pub fn used(&self) -> usize {
        self.state().files.values().map(|content| content.lock().unwrap().seen.len()).sum()
    }

    pub fn shorten_writes(&self, bytes_max: usize) {
        self.state().write_bytes_max = Some(bytes_max);
    }

    pub fn fail_syncs(&self, fail: bool) {
        self.state().syncs_fail = fail;
    }

    pub fn fail_writes(&self, kind: Option<io::ErrorKind>) {
        self.state().writes_fail = kind;
    }

    /// Syncs wait until they are let through again.
    pub fn hold_syncs(&self, hold: bool) {
        self.state().syncs_wait = hold;
        self.0.1.notify_all();
    }

    /// A sync waits to be let through.
    pub fn holds_a_sync(&self) -> bool {
        let state = self.state();
        state.syncs_wait && state.syncs_held > 0
    }

    /// What a new process finds after a kill.
    pub fn files(&self) -> Files {
        let seen = |content: &Arc<Mutex<Content>>| content.lock().unwrap().seen.clone();
        self.state().files.iter().map(|(name, content)| (name.clone(), seen(content))).collect()
    }

    /// What a new process finds after a power cut: of what was not durable, the sectors that `stays` keeps.
    pub fn after_power_cut(&self, mut stays: impl FnMut() -> bool) -> Files {
        let mut files = Files::new();
        for (name, content) in &self.state().files {
            let content = content.lock().unwrap();
            let mut bytes = content.durable.clone();
            for (at, part) in &content.pending {
                let mut from = 0;
                while from < part.len() {
                    let to = ((at + from) / 512 * 512 + 512 - at).min(part.len());
                    if stays() {
                        put(&mut bytes, at + from, &part[from..to]);
                    }
                    from = to;
                }
            }
            files.insert(name.clone(), bytes);
        }
        files
    }

    /// Counts a change. `Err` if the process is dead; `Ok(true)` if it dies in this one.
    fn change(&self) -> io::Result<bool> {
        let mut state = self.state();
        state.operations += 1;
        match state.kill_at {
            Some(at) if state.operations > at + 1 => Err(io::Error::other("the process is dead")),
            Some(at) => Ok(state.operations == at + 1),
            None => Ok(false),
        }
    }

    fn whole_change(&self) -> io::Result<()> {
        if self.change()? { Err(io::Error::other("the process is dead")) } else { Ok(()) }
    }

    fn make(&self, name: &str, bytes: Vec<u8>) -> io::Result<Arc<Mutex<Content>>> {
        self.whole_change()?;
        let used = self.used();
        let mut state = self.state();
        let replaced = state.files.get(name).map_or(0, |content| content.lock().unwrap().seen.len());
        // The old file is there until the new one is whole.
        if state.room.is_some_and(|room| used + bytes.len() > room) && bytes.len() > replaced {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = Content { seen: bytes.clone(), durable: bytes, pending: Vec::new() };
        let content = Arc::new(Mutex::new(content));
        state.files.insert(name.to_owned(), Arc::clone(&content));
        Ok(content)
    }
}

impl Folder for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Handle>> {
        let content = self.state().files.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(File { disk: self.clone(), content }))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn Handle>> {
        let content = self.make(name, vec![0; usize::try_from(bytes).unwrap()])?;
        Ok(Arc::new(File { disk: self.clone(), content }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.whole_change()?;
        let mut state = self.state();
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.whole_change()?;
        self.state().files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.make(name, content.to_vec()).map(drop)
    }
}

struct File {
    disk: Disk,
    content: Arc<Mutex<Content>>,
}

impl Handle for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().seen.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let content = self.content.lock().unwrap();
        let from = usize::try_from(offset).unwrap().min(content.seen.len());
        let count = bytes.len().min(content.seen.len() - from);
        bytes[..count].copy_from_slice(&content.seen[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let dies = self.disk.change()?;
        let (fail, max) = {
            let state = self.disk.state();
            (state.writes_fail, state.write_bytes_max)
        };
        let at = usize::try_from(offset).unwrap();
        let count = if dies || fail.is_some() {
            // It may have got half-way, in whole sectors: a disk does not tear one.
            ((at + bytes.len() / 2) / 512 * 512).saturating_sub(at)
        } else {
            bytes.len().min(max.unwrap_or(usize::MAX))
        };
        let mut content = self.content.lock().unwrap();
        put(&mut content.seen, at, &bytes[..count]);
        content.pending.push((at, bytes[..count].to_vec()));
        match (dies, fail) {
            (true, _) => Err(io::Error::other("the process is dead")),
            (false, Some(kind)) => Err(kind.into()),
            (false, None) => Ok(count),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let (state, opened) = &*self.disk.0;
        let mut state = state.lock().unwrap();
        state.syncs_held += 1;
        let mut state = opened.wait_while(state, |state| state.syncs_wait).unwrap();
        state.syncs_held -= 1;
        let fails = state.syncs_fail;
        drop(state);
        self.disk.whole_change()?;
        if fails {
            return Err(io::Error::other("input/output error"));
        }
        let mut content = self.content.lock().unwrap();
        content.pending.clear();
        content.durable = content.seen.clone();
        Ok(())
    }
}

pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let account = any::<[u8; 16]>().prop_map(AccountId);
    let device = any::<[u8; 16]>().prop_map(DeviceId);
    let hash = any::<u8>().prop_map(|byte| Hash([byte; 48]));
    let appliance = any::<u8>().prop_map(|byte| ApplianceId([byte; 48]));
    let text = any::<String>().prop_map(|text| Text::escaped(&text));
    let both = (account.clone(), device);
    let actor = prop_oneof![
        Just(Actor::Nobody),
        Just(Actor::Appliance),
        account.clone().prop_map(Actor::Account),
        both.clone().prop_map(|(account, device)| Actor::Device(account, device)),
        prop::collection::btree_set(any::<u8>(), 1..5).prop_map(|keys| {
            Actor::Officers(Officers::new(keys.into_iter().map(|key| Hash([key; 48])).collect()).unwrap())
        }),
        any::<u32>().prop_map(Actor::LocalUser),
        appliance.clone().prop_map(Actor::Peer),
    ];
    let origin = prop_oneof![
        Just(Origin::Inside),
        any::<SocketAddr>().prop_map(|address| Origin::Network(address.into())),
        Just(Origin::Console),
        any::<u32>().prop_map(Origin::Socket),
        Just(Origin::Media),
    ];
    let target = prop_oneof![
        account.prop_map(Target::Account),
        both.prop_map(|(account, device)| Target::Device(account, device)),
        hash.clone().prop_map(Target::Officer),
        any::<u8>().prop_map(|byte| Target::Thread(ThreadId([byte; 32]))),
        appliance.prop_map(Target::Appliance),
        text.clone().prop_map(|text| Target::Named(crate::Key::new("directory").unwrap(), text)),
    ];
    let code = "[a-z][a-z0-9-]{0,20}".prop_map(|code| Code::new(&code).unwrap());
    let outcome = prop_oneof![
        Just(Outcome::Ok),
        code.clone().prop_map(Outcome::Refused),
        code.prop_map(Outcome::Failed),
    ];
    let ledger = prop::option::of(
        any::<(u64, u64)>()
            .prop_map(|(height, time)| LedgerTime { height: Height(height), time: Timestamp(time) }),
    );
    let value = prop_oneof![
        any::<u64>().prop_map(Value::Number),
        any::<bool>().prop_map(Value::Flag),
        text.prop_map(Value::Text),
        hash.clone().prop_map(Value::Digest),
        any::<u64>().prop_map(|ms| Value::Time(Timestamp(ms))),
    ];
    let details = prop::collection::btree_map("k[a-z0-9_]{0,20}", value, 0..6).prop_map(|map| {
        let mut details = Details::none();
        for (key, value) in map {
            // A drawn key may name a secret.
            if let Ok(key) = crate::Key::new(&key) {
                details.insert(key, value).unwrap();
            }
        }
        details
    });
    let digests = (prop::option::of(hash.clone()), prop::option::of(hash));
    let action = prop::sample::select(Action::ALL);
    (action, actor, origin, prop::option::of(target), outcome, any::<u64>(), ledger, digests, details)
        .prop_map(|(action, actor, origin, target, outcome, wall, ledger, (before, after), details)| Event {
            version: 1,
            action,
            actor,
            origin,
            target,
            outcome,
            when: When { wall: Timestamp(wall), ledger },
            before,
            after,
            details,
        })
}
