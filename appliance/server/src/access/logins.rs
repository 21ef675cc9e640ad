//! Sign-ins under way: few of each network and of each device, and not many of all.
//!
//! Anybody can begin as many as they like, so whoever begins too many loses their own oldest, and strangers never push out
//! those of devices.

use super::directories::DirectoryName;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;
use zixt_identity::{Login, Network};
use zixt_types::{Hash, LoginId, Timestamp};

/// Sign-ins of one network, or of one device.
const EACH_MAX: usize = 32;
/// Sign-ins of all networks, and as many of all devices.
const ALL_MAX: usize = 4096;

/// Who began it, for the bounds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Beginner {
    /// An active device, by its TLS key.
    Device(Hash),
    /// Whoever else, by the network; `None` for the local machine.
    Stranger(Option<Network>),
}

#[derive(Debug)]
struct Under {
    number: u64,
    by: Beginner,
    login: Arc<Mutex<Login>>,
    what: Named,
}

/// What was named when a sign-in began.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// The spelling by which accounts are looked up.
    pub(crate) spelling: Arc<str>,
    /// Where it names somebody at a directory.
    pub(crate) at: Option<Arc<DirectoryName>>,
}

/// A sign-in under way.
pub(crate) struct UnderWay {
    /// The sign-in.
    pub(crate) login: Arc<Mutex<Login>>,
    /// What was named when it began.
    pub(crate) named: Named,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    under_way: BTreeMap<LoginId, Under>,
    next: u64,
}

impl Logins {
    /// Takes a new one, and drops another if there are too many.
    pub(crate) fn begin(&mut self, by: Beginner, login: Login, what: Named) {
        let alike = |under: &Under| {
            matches!(
                (under.by, by),
                (Beginner::Device(_), Beginner::Device(_)) | (Beginner::Stranger(_), Beginner::Stranger(_))
            )
        };
        self.make_room(|under| under.by == by, EACH_MAX);
        self.make_room(alike, ALL_MAX);
        let number = self.next;
        self.next += 1;
        let id = login.id();
        self.under_way.insert(id, Under { number, by, login: Arc::new(Mutex::new(login)), what });
    }

    fn make_room(&mut self, of: impl Fn(&Under) -> bool, max: usize) {
        let mut oldest = None;
        let mut count = 0;
        for (id, under) in self.under_way.iter().filter(|(_, under)| of(under)) {
            count += 1;
            if oldest.is_none_or(|(number, _)| under.number < number) {
                oldest = Some((under.number, *id));
            }
        }
        if count >= max
            && let Some((_, id)) = oldest
        {
            self.under_way.remove(&id);
        }
    }

    /// One that is under way.
    pub(crate) fn get(&self, id: &LoginId) -> Option<UnderWay> {
        let under = self.under_way.get(id)?;
        Some(UnderWay { login: Arc::clone(&under.login), named: under.what.clone() })
    }

    /// It is over.
    pub(crate) fn end(&mut self, id: &LoginId) {
        self.under_way.remove(id);
    }

    /// Drops those whose time is over. One that is being looked at is dropped the next time.
    pub(crate) fn sweep(&mut self, wall: Timestamp) {
        self.under_way.retain(|_, under| under.login.try_lock().map_or(true, |login| !login.is_over(wall)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::fill_random;
    use zixt_identity::{Attempts, Channel, Now, Origin, Policy, PolicyDocument, Start};
    use zixt_types::ApplianceId;

    fn login(wall: u64) -> Login {
        let policy = Policy::new(PolicyDocument::default()).unwrap();
        let attempts = Attempts::load(&[0; 32], []);
        let start = Start {
            genesis: Hash([1; 48]),
            appliance: ApplianceId([2; 48]),
            who: zixt_identity::Named::Nobody("x"),
            origin: Origin { network: None, held: None },
            channel: Channel::ClientKey(Hash([3; 48])),
        };
        let now = Now { wall: Timestamp(wall), ledger: Timestamp(0) };
        Login::begin(&policy, &attempts, &start, now, &mut fill_random).unwrap()
    }

    #[test]
    fn whoever_begins_too_many_loses_their_own() {
        let mut logins = Logins::default();
        let stranger = |n: u8| Beginner::Stranger(Some(Network::of([192, 0, 2, n].into())));
        let ids = |count: usize, by: Beginner, logins: &mut Logins| -> Vec<LoginId> {
            let begun = (0..count).map(|_| login(1));
            begun
                .map(|login| {
                    let id = login.id();
                    logins.begin(by, login, Named { spelling: "x".into(), at: None });
                    id
                })
                .collect()
        };
        let device = ids(2, Beginner::Device(Hash([9; 48])), &mut logins);
        let quiet = ids(1, stranger(1), &mut logins);
        let loud = ids(EACH_MAX + 5, stranger(2), &mut logins);
        assert!(loud[..5].iter().all(|id| logins.get(id).is_none()));
        assert!(loud[5..].iter().chain(&quiet).chain(&device).all(|id| logins.get(id).is_some()));
        // However many networks a crowd has, devices keep theirs.
        for n in 0..=u8::MAX {
            ids(EACH_MAX, stranger(n), &mut logins);
        }
        assert_eq!(logins.under_way.len(), ALL_MAX + device.len());
        assert!(device.iter().all(|id| logins.get(id).is_some()));
        logins.end(&device[0]);
        assert!(logins.get(&device[0]).is_none());
        let held = logins.get(&device[1]).unwrap().login;
        let _looked_at = held.try_lock().unwrap();
        logins.sweep(Timestamp(u64::MAX));
        assert_eq!(logins.under_way.len(), 1, "what is looked at stays");
    }
}
