//! A watch over OpenLDAP: plans are applied before they count as done, and held back where they take too much.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a failure is a failed test")]

mod common;
mod peers;

use async_trait::async_trait;
use common::{directory, now, settings, told};
use peers::certificates::Authority;
use peers::slapd::{SUFFIX, Slapd, person};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use zixt_directory::{
    Accounts, ApplyError, Clock, HeldPlan, Linked, Mode, Plan, ReleaseError, Snapshot, Watch,
};
use zixt_identity::Link;
use zixt_types::{Canonical as _, Hash, Timestamp};

struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        now()
    }
}

/// Accounts as a server would keep them: who is active, and what was stored last.
#[derive(Default)]
struct Kept {
    broken: AtomicBool,
    active: Mutex<BTreeSet<Link>>,
    suspended: Mutex<BTreeSet<Link>>,
    plans: Mutex<Vec<Vec<String>>>,
    stored: Mutex<Option<Vec<u8>>>,
    told: Mutex<Vec<Hash>>,
}

#[async_trait]
impl Accounts for Kept {
    async fn linked(&self) -> Result<Linked, ApplyError> {
        let links = |of: &Mutex<BTreeSet<Link>>| of.lock().unwrap().iter().copied().collect();
        Ok(Linked { active: links(&self.active), suspended: links(&self.suspended) })
    }

    async fn apply(&self, plan: &Plan, snapshot: &Snapshot) -> Result<(), ApplyError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(ApplyError("the disk is full".into()));
        }
        for change in plan.changes() {
            if change.what.suspends() {
                self.active.lock().unwrap().remove(&change.link);
                self.suspended.lock().unwrap().insert(change.link);
            } else if change.what.resumes() {
                self.suspended.lock().unwrap().remove(&change.link);
                self.active.lock().unwrap().insert(change.link);
            }
        }
        self.plans.lock().unwrap().push(told(plan));
        *self.stored.lock().unwrap() = Some(snapshot.to_bytes());
        Ok(())
    }

    async fn held(&self, held: &HeldPlan) -> Result<(), ApplyError> {
        self.told.lock().unwrap().push(held.digest());
        Ok(())
    }
}

impl Kept {
    fn last(&self) -> Vec<String> {
        self.plans.lock().unwrap().last().cloned().unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.plans.lock().unwrap().len()
    }
}

#[tokio::test]
async fn accounts_follow_the_directory() {
    let authority = Authority::new();
    let mut slapd = Slapd::new(&authority, ("", ""));
    slapd.load(&(0..40).map(|at| person(&format!("p{at:03}"))).collect::<String>());
    slapd.go();
    // An interval that is longer than the test: rounds are asked for.
    let settings = settings(&[slapd.ldaps_url()], "interval_s = 3600");
    let watched = Arc::new(directory(&settings, authority.pem()));
    let kept = Arc::new(Kept::default());
    let watch = Watch::new(watched.clone(), kept.clone(), Arc::new(WallClock), None);
    let handle = watch.handle();
    let running = tokio::spawn(watch.run());

    handle.settled().await;
    let health = handle.health();
    assert_eq!(
        (health.people, health.failures, kept.count()),
        (40, 0, 1),
        "a directory that stays says nothing more"
    );
    assert_eq!(health.mode, Some(Mode::Incremental { entries: 0 }));
    assert_eq!(kept.active.lock().unwrap().len(), 40);

    // What is not stored is not done: the same plan comes again.
    let delete = |uid: &str| format!("dn: uid={uid},ou=people,{SUFFIX}\nchangetype: delete\n\n");
    slapd.change(&delete("p000"));
    kept.broken.store(true, Ordering::SeqCst);
    handle.settled().await;
    let health = handle.health();
    assert!(health.failures >= 1 && health.last_error.as_deref() == Some("the disk is full"), "{health:?}");
    assert_eq!((kept.count(), kept.active.lock().unwrap().len()), (1, 40));
    kept.broken.store(false, Ordering::SeqCst);
    handle.settled().await;
    assert_eq!(kept.last(), ["p000 Vanished"]);
    assert_eq!((handle.health().failures, handle.health().last_error), (0, None));

    // Somebody lets an account in again that the directory does not: not for long.
    let before = kept.count();
    let stray = watched.issuer().link(&[9; 16]);
    kept.active.lock().unwrap().insert(stray);
    handle.settled().await;
    assert_eq!((kept.last(), kept.count()), (vec!["? Vanished".to_owned()], before + 1));

    // Somebody whom a plan that was done in part has left suspended.
    let one = *kept.active.lock().unwrap().first().unwrap();
    kept.active.lock().unwrap().remove(&one);
    kept.suspended.lock().unwrap().insert(one);
    handle.settled().await;
    assert!(kept.last().len() == 1 && kept.last()[0].ends_with(" Enabled"), "{:?}", kept.last());
    assert!(!handle.health().is_stale(now()));

    // A server that is gone takes nothing from anybody.
    slapd.kill();
    handle.settled().await;
    let health = handle.health();
    assert!(health.failures >= 1 && health.last_error.is_some());
    assert_eq!(kept.active.lock().unwrap().len(), 39);
    slapd.go();

    // Too much at once waits for an officer, and everything else waits with it.
    slapd.change(&(1..=15).map(|at| delete(&format!("p{at:03}"))).collect::<String>());
    slapd.change(&person("new"));
    let before = kept.count();
    handle.settled().await;
    let held = handle.health().held.unwrap();
    // Two were lost today already.
    assert!(held.to_string().contains("15 of 39 would lose their access; 8 may"), "{held}");
    assert!(held.to_string().contains("15 of 39 accounts here would be suspended; 8 may"), "{held}");
    assert_eq!((kept.count(), kept.active.lock().unwrap().len()), (before, 39));
    assert_eq!(handle.release(Hash([7; 48])), Err(ReleaseError::Other(held.digest())));

    // Many more by the time that the officer's word is there: held back again.
    slapd.change(&(16..=30).map(|at| delete(&format!("p{at:03}"))).collect::<String>());
    let digest = held.digest();
    handle.release(digest).unwrap();
    handle.settled().await;
    let held = handle.health().held.unwrap();
    assert_ne!(held.digest(), digest);
    assert_eq!(kept.count(), before);
    // Each was told once, however many rounds it was held back for.
    assert_eq!(*kept.told.lock().unwrap(), [digest, held.digest()]);

    // A word that cannot be carried out is not used up; one more who left meanwhile is no other plan.
    slapd.change(&delete("p031"));
    kept.broken.store(true, Ordering::SeqCst);
    handle.release(held.digest()).unwrap();
    handle.settled().await;
    assert!(handle.health().last_error.is_some());
    kept.broken.store(false, Ordering::SeqCst);
    handle.settled().await;
    assert!(handle.health().held.is_none());
    assert_eq!(kept.last().len(), 32);
    assert_eq!(kept.active.lock().unwrap().len(), 9);
    assert_eq!(handle.release(digest), Err(ReleaseError::Nothing));

    // Another start goes on from what was stored; and one that lost it, from the accounts.
    running.abort();
    slapd.change(&delete("p035"));
    let stored = Snapshot::parse(kept.stored.lock().unwrap().as_deref().unwrap()).unwrap();
    for (snapshot, told) in [(Some(stored), "p035 Vanished"), (None, "? Vanished")] {
        let kept_before = kept.active.lock().unwrap().clone();
        let watch = Watch::new(watched.clone(), kept.clone(), Arc::new(WallClock), snapshot);
        let handle = watch.handle();
        let running = tokio::spawn(watch.run());
        handle.settled().await;
        running.abort();
        assert!(kept.last().contains(&told.to_owned()), "{:?}", kept.last());
        assert_eq!(kept.active.lock().unwrap().len(), 8);
        *kept.active.lock().unwrap() = kept_before;
    }
}
