use super::*;
use crate::snapshot::tests::{person, snapshot};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use zixt_identity::Role;
use zixt_types::Timestamp;

fn issuer() -> Issuer {
    Issuer::directory(IssuerId([9; 16]))
}

fn plan(old: &Snapshot, new: &Snapshot, safety: Safety) -> Result<Plan, Box<HeldPlan>> {
    compare(&issuer(), basis(Some(old), &Linked::default()), new, Faults::default(), safety)
}

fn basis<'a>(before: Option<&'a Snapshot>, linked: &'a Linked) -> Basis<'a> {
    Basis { before, linked, recent: Taken::default() }
}

fn active(ids: impl IntoIterator<Item = u8>) -> Linked {
    let links = ids.into_iter().map(|id| issuer().link(&[id; 16]));
    Linked { active: links.collect(), suspended: Vec::new() }
}

fn people(count: u8) -> Vec<Person> {
    (1..=count).map(person).collect()
}

const ANYTHING: Safety = Safety { people: u32::MAX, percent: 100 };

#[test]
fn each_thing_that_can_happen() {
    let mut then = people(6);
    then[3].disabled = true;
    let mut now = people(7);
    now.remove(4); // 5 is gone, 7 appeared
    now[0].dn = "uid=p1,ou=elsewhere,dc=example".into();
    now[0].login = "married".into();
    now[1].disabled = true;
    now[2].wanted.add(Role::User);
    let plan = plan(&snapshot(then), &snapshot(now), Safety::default()).unwrap();
    let what: Vec<_> = plan
        .changes()
        .iter()
        .map(|change| (change.person.as_ref().unwrap().id().as_bytes()[0], change.what))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    assert_eq!(
        what,
        [
            (1, What::Renamed),
            (2, What::Disabled),
            (3, What::Regrouped),
            (4, What::Enabled),
            (5, What::Vanished),
            (7, What::Appeared { enabled: true }),
        ]
    );
    assert!(plan.changes()[0].what.suspends() && plan.changes()[1].what.suspends(), "what takes comes first");
    assert_eq!((plan.people(), plan.count(What::suspends), plan.released()), (6, 2, None));
}

#[test]
fn an_empty_answer_is_held_back_however_few_there_were() {
    for count in [1, 5, 200] {
        let held = plan(&snapshot(people(count)), &snapshot(vec![]), Safety::default()).unwrap_err();
        assert_eq!(held.reasons()[0], Reason::Empty { before: count.into() });
        assert_eq!(held.suspends().count(), usize::from(count));
    }
    assert!(plan(&snapshot(vec![]), &snapshot(vec![]), Safety::default()).is_ok());
    let mut nobody_in = people(3);
    nobody_in.iter_mut().for_each(|person| person.disabled = true);
    assert!(plan(&snapshot(nobody_in), &snapshot(vec![]), Safety::default()).is_ok(), "nothing to lose");
}

#[test]
fn what_takes_too_much_waits_for_an_officer() {
    let old = snapshot(people(100));
    let disabled = |count: usize| {
        let mut now = people(100);
        now.iter_mut().take(count).for_each(|person| person.disabled = true);
        // And somebody came, which a held plan does not do either.
        now.push(person(200));
        snapshot(now)
    };
    assert!(plan(&old, &disabled(20), Safety::default()).is_ok());
    let held = plan(&old, &disabled(21), Safety::default()).unwrap_err();
    assert_eq!(held.reasons(), [Reason::Access { taken: 21, before: 100, allowed: 20 }]);
    let text = held.to_string();
    assert!(text.contains("21 of 100") && text.contains(&held.digest().to_string()), "{text}");

    let digest = held.digest();
    let other = plan(&old, &disabled(22), Safety::default()).unwrap_err();
    assert_ne!(other.digest(), digest);
    assert!(other.release(digest).is_err(), "an officer's word is for one plan");
    let released = held.release(digest).unwrap();
    assert_eq!(released.released(), Some(digest));
    assert_eq!(released.changes().len(), 22);
}

#[test]
fn a_digest_is_of_what_is_taken_and_nothing_else() {
    let old = snapshot(people(50));
    let gone = |more: Vec<Person>| {
        let mut now = people(10);
        now.extend(more);
        plan(&old, &snapshot(now), Safety::default()).unwrap_err().digest()
    };
    assert_eq!(gone(vec![]), gone(vec![person(200), person(201)]), "others come meanwhile");
    assert_ne!(gone(vec![]), gone(vec![person(50)]), "one came back meanwhile");
    let other_issuer = Issuer::directory(IssuerId([8; 16]));
    let nobody = Linked::default();
    let elsewhere = compare(
        &other_issuer,
        basis(Some(&old), &nobody),
        &snapshot(people(10)),
        Faults::default(),
        Safety::default(),
    )
    .unwrap_err();
    assert_ne!(gone(vec![]), elsewhere.digest());
}

#[test]
fn roles_of_too_many_are_not_taken_at_once() {
    let grouped = |count: usize| {
        let mut people = people(100);
        people.iter_mut().take(count).for_each(|person| person.wanted.add(Role::User));
        snapshot(people)
    };
    let held = plan(&grouped(80), &grouped(0), Safety::default()).unwrap_err();
    assert_eq!(held.reasons(), [Reason::Roles { taken: 80, before: 80, allowed: 16 }]);
    assert!(plan(&grouped(80), &grouped(70), Safety::default()).is_ok());
    assert!(plan(&grouped(0), &grouped(80), Safety::default()).is_ok(), "what gives is not held back");
}

#[test]
fn access_that_expires_is_taken_without_a_change_in_the_directory() {
    let mut then = people(2);
    then[1].expires = Timestamp(1_500);
    let at = |ms| Snapshot::new(Timestamp(ms), Hash([1; 48]), (Snapshot::NO_SOURCE, 0), then.clone());
    assert!(plan(&at(1_000), &at(1_499), Safety::default()).unwrap().changes().is_empty());
    let plan = plan(&at(1_000), &at(1_500), Safety::default()).unwrap();
    assert_eq!((plan.changes().len(), plan.changes()[0].what), (1, What::Disabled));
}

#[test]
fn without_an_earlier_snapshot_the_linked_accounts_count() {
    let issuer = issuer();
    let link = |id: u8| issuer.link(&[id; 16]);
    let mut now = people(4);
    now[1].disabled = true;
    let linked = [link(1), link(2), link(77), Issuer::directory(IssuerId([1; 16])).link(&[3; 16])];
    let compare = |links: &[Link], new: &Snapshot, safety| {
        let linked = Linked { active: links.to_vec(), suspended: Vec::new() };
        compare(&issuer, basis(None, &linked), new, Faults::default(), safety)
    };
    let plan = compare(&linked, &snapshot(now), Safety::default()).unwrap();
    let of = |id: u8| plan.changes().iter().find(|change| change.link == link(id)).map(|change| change.what);
    assert_eq!(of(1), Some(What::Appeared { enabled: true }));
    assert_eq!(of(2), Some(What::Disabled));
    assert_eq!(of(77), Some(What::Vanished));
    assert_eq!(plan.changes().len(), 5, "another directory's account is not this one's to end");
    assert!(compare(&linked, &snapshot(vec![]), Safety::default()).is_err(), "an empty first answer");
    assert!(compare(&[], &snapshot(vec![]), Safety::default()).is_ok());
}

#[test]
fn an_account_that_was_linked_to_somebody_disabled_is_suspended() {
    let issuer = issuer();
    let link = |id: u8| issuer.link(&[id; 16]);
    let mut same = people(4);
    same[1].disabled = true;
    let same = snapshot(same);
    // 1 is fine, 2 is disabled, 9 was never there: nothing changed in the directory, and two accounts are wrong.
    let linked = active([1, 2, 9]);
    let basis = basis(Some(&same), &linked);
    let plan = compare(&issuer, basis, &same, Faults::default(), Safety::default()).unwrap();
    let mut told: Vec<_> = plan.changes().iter().map(|change| (change.link, change.what)).collect();
    told.sort_unstable();
    let mut expected = vec![(link(2), What::Disabled), (link(9), What::Vanished)];
    expected.sort_unstable();
    assert_eq!(told, expected);
    // They count like all others.
    let strict = Safety { people: 1, percent: 0 };
    let held = compare(&issuer, basis, &same, Faults::default(), strict).unwrap_err();
    assert_eq!(
        held.reasons(),
        [
            Reason::Access { taken: 2, before: 5, allowed: 1 },
            Reason::Accounts { taken: 2, before: 3, allowed: 1 }
        ]
    );
}

/// A directory as a model: id to (enabled, name, wanted).
type Model = BTreeMap<u8, (bool, u8, bool)>;

fn model() -> impl Strategy<Value = Model> {
    proptest::collection::btree_map(1u8..60, (any::<bool>(), 0u8..3, any::<bool>()), 0..40)
}

fn of(model: &Model) -> Snapshot {
    let people = model.iter().map(|(id, (enabled, name, wanted))| {
        let mut person = person(*id);
        person.disabled = !enabled;
        person.name = name.to_string().into();
        if *wanted {
            person.wanted.add(Role::User);
        }
        person
    });
    snapshot(people.collect())
}

proptest! {
    /// Doing what the plan says to the old state gives the new one.
    #[test]
    fn a_plan_leads_from_the_old_to_the_new(old in model(), new in model()) {
        let issuer = issuer();
        let plan = match plan(&of(&old), &of(&new), ANYTHING) {
            Ok(plan) => plan,
            Err(held) => {
                prop_assert!(new.is_empty() && old.values().any(|(enabled, ..)| *enabled));
                let digest = held.digest();
                held.release(digest).unwrap()
            }
        };
        let access = |model: &Model| -> BTreeSet<Link> {
            model.iter().filter(|(_, value)| value.0).map(|(id, _)| issuer.link(&[*id; 16])).collect()
        };
        let mut state = access(&old);
        for change in plan.changes() {
            if change.what.suspends() {
                state.remove(&change.link);
            } else if change.what.resumes() {
                state.insert(change.link);
            }
        }
        prop_assert_eq!(state, access(&new));
    }

    /// Whatever was linked, and whatever was known before: who is not enabled has no active account afterwards, and
    /// nobody is told twice that they lose it.
    #[test]
    fn no_active_account_is_of_somebody_who_is_not_let_in(
        old in proptest::option::of(model()),
        new in model(),
        linked in proptest::collection::btree_set(1u8..70, 0..30),
    ) {
        let issuer = issuer();
        let links = active(linked.iter().copied());
        let (old, snapshot) = (old.as_ref().map(of), of(&new));
        let basis = basis(old.as_ref(), &links);
        let plan = compare(&issuer, basis, &snapshot, Faults::default(), ANYTHING)
            .or_else(|held| {
                let digest = held.digest();
                held.release(digest)
            })
            .unwrap();
        let taken: Vec<Link> = plan
            .changes()
            .iter()
            .filter(|change| change.what.suspends())
            .map(|change| change.link)
            .collect();
        let once: BTreeSet<Link> = taken.iter().copied().collect();
        prop_assert_eq!(once.len(), taken.len());
        for id in linked {
            let enabled = new.get(&id).is_some_and(|value| value.0);
            prop_assert_eq!(!enabled, once.contains(&issuer.link(&[id; 16])), "{}", id);
        }
    }

    /// Nothing comes of nothing.
    #[test]
    fn a_directory_that_stays_as_it_is_changes_nothing(model in model()) {
        let nothing = Safety { people: 0, percent: 0 };
        let plan = plan(&of(&model), &of(&model), nothing).unwrap();
        prop_assert!(plan.changes().is_empty());
    }

    /// Whatever happens, no more people of the directory and no more accounts here than are allowed lose their access
    /// without an officer's word, and never all accounts.
    #[test]
    fn no_more_than_is_allowed_lose_their_access(
        old in model(),
        new in model(),
        linked in proptest::collection::btree_set(1u8..70, 0..30),
        people in 0u32..8,
        percent in 0u32..50,
        recent in 0usize..6,
    ) {
        let safety = Safety { people, percent };
        let had: BTreeSet<u8> = old.iter().filter(|(_, value)| value.0).map(|(id, _)| *id).collect();
        let gone = |id: &&u8| !new.get(id).is_some_and(|value| value.0);
        let (lost, suspended) = (had.iter().filter(gone).count(), linked.iter().filter(gone).count());
        let links = active(linked.iter().copied());
        let (old, now) = (of(&old), of(&new));
        let recent = Taken { people: recent, accounts: recent, roles: recent };
        let basis = Basis { before: Some(&old), linked: &links, recent };
        match compare(&issuer(), basis, &now, Faults::default(), safety) {
            Ok(plan) => {
                let may = |of: usize| safety.allowed(of + recent.people).saturating_sub(recent.people);
                prop_assert!(lost <= may(had.union(&linked).count()));
                prop_assert!(suspended <= may(linked.len()));
                prop_assert!(linked.len() < 2 || suspended < linked.len());
                prop_assert!(!(new.is_empty() && lost + suspended > 0));
                prop_assert_eq!(plan.taken().accounts, suspended);
                prop_assert!(plan.taken().people >= lost);
            }
            Err(held) => prop_assert!(!held.reasons().is_empty()),
        }
    }
}

/// What hides a thousand people of fifty thousand is 2 %, and may be everybody who has an account here.
#[test]
fn the_accounts_here_count_and_not_the_directory_alone() {
    let old = snapshot(people(200));
    let hidden = |count: usize| snapshot(people(200).split_off(count));
    let reasons = |linked: &Linked, new: &Snapshot| {
        let compared =
            compare(&issuer(), basis(Some(&old), linked), new, Faults::default(), Safety::default());
        compared.map_or_else(|held| held.reasons().to_vec(), |_| Vec::new())
    };
    // 30 of 200 people may go; but not where they are 30 of 60 accounts.
    assert_eq!(reasons(&active([]), &hidden(30)), []);
    assert_eq!(
        reasons(&active(1..=60), &hidden(30)),
        [Reason::Accounts { taken: 30, before: 60, allowed: 12 }]
    );
    assert_eq!(reasons(&active(1..=60), &hidden(12)), []);
    // However few there are, not all of them.
    assert_eq!(
        reasons(&active(1..=10), &hidden(10)),
        [Reason::Accounts { taken: 10, before: 10, allowed: 9 }]
    );
    assert_eq!(reasons(&active(1..=10), &hidden(9)), []);
    assert_eq!(reasons(&active([1]), &hidden(1)), [], "one may leave");
}

#[test]
fn what_was_taken_lately_counts() {
    let (old, new) = (snapshot(people(100)), snapshot(people(100).split_off(15)));
    let linked = active(1..=100);
    let with = |recent| {
        let basis = Basis { before: Some(&old), linked: &linked, recent };
        compare(&issuer(), basis, &new, Faults::default(), Safety::default())
    };
    assert_eq!(with(Taken::default()).unwrap().taken(), Taken { people: 15, accounts: 15, roles: 0 });
    let recent = |people, accounts| Taken { people, accounts, roles: 0 };
    // Of 106 there were, 21 may go, and 6 have gone.
    assert!(with(recent(6, 6)).is_ok());
    let held = with(recent(7, 0)).unwrap_err();
    assert_eq!(held.reasons(), [Reason::Access { taken: 15, before: 100, allowed: 14 }]);
    let held = with(recent(0, 7)).unwrap_err();
    assert_eq!(held.reasons(), [Reason::Accounts { taken: 15, before: 100, allowed: 14 }]);
}

#[test]
fn who_was_suspended_and_is_there_comes_in_again() {
    let mut now = people(4);
    now[1].disabled = true;
    let same = snapshot(now);
    let link = |id: u8| issuer().link(&[id; 16]);
    let other = Issuer::directory(IssuerId([1; 16])).link(&[3; 16]);
    // 1 is let in, 2 is disabled, 9 is not there: a plan that resumed 1 was done in part.
    let linked = Linked { active: vec![link(3)], suspended: vec![link(1), link(2), link(9), other] };
    let plan = compare(&issuer(), basis(Some(&same), &linked), &same, Faults::default(), Safety::default());
    let plan = plan.unwrap();
    let told: Vec<_> = plan.changes().iter().map(|change| (change.link, change.what)).collect();
    assert_eq!(told, [(link(1), What::Enabled)]);
    // Where the difference says so already, it is said once.
    let mut then = people(4);
    then[0].disabled = true;
    then[1].disabled = true;
    let plan = compare(
        &issuer(),
        basis(Some(&snapshot(then)), &linked),
        &same,
        Faults::default(),
        Safety::default(),
    );
    assert_eq!(plan.unwrap().count(What::resumes), 1);
}

#[test]
fn a_release_is_for_what_was_looked_at_and_little_more() {
    let old = snapshot(people(100));
    let held = |gone: std::ops::Range<u8>| {
        let mut now = people(100);
        now.retain(|person| !gone.contains(&person.id().as_bytes()[0]));
        plan(&old, &snapshot(now), Safety::default()).unwrap_err()
    };
    let released = held(1..41);
    // One of them came back; and one more left.
    let plan = held(2..41).release_within(&released).unwrap();
    assert_eq!((plan.count(What::suspends), plan.taken()), (39, Taken::default()));
    let plan = held(1..42).release_within(&released).unwrap();
    assert_eq!(
        plan.taken(),
        Taken { people: 1, accounts: 0, roles: 0 },
        "the rest is not of the officer's word"
    );
    assert!(plan.released().is_some());
    // As many as may go anyway, and one more than that.
    assert!(held(1..61).release_within(&released).is_ok());
    assert!(held(1..62).release_within(&released).is_err());
    // As many, but others.
    assert!(held(51..91).release_within(&released).is_err());
    // Nobody at all was not looked at.
    assert!(held(1..101).release_within(&held(1..91)).is_err());
}

#[test]
fn an_officer_sees_who_would_lose_which_role() {
    let grouped = |role: Option<Role>| {
        let mut people = people(30);
        if let Some(role) = role {
            people.iter_mut().for_each(|person| person.wanted.add(role));
        }
        snapshot(people)
    };
    let held = plan(&grouped(Some(Role::Operator)), &grouped(None), Safety::default()).unwrap_err();
    let mut operator = Wanted::default();
    operator.add(Role::Operator);
    assert_eq!(held.lost_roles().len(), 30);
    assert!(held.lost_roles().iter().all(|lost| lost.lost == operator && lost.person.login().is_some()));
    // A word for one role is none for another.
    let other = plan(&grouped(Some(Role::User)), &grouped(None), Safety::default()).unwrap_err();
    assert!(other.release_within(&held).is_err());
    let same = plan(&grouped(Some(Role::Operator)), &grouped(None), Safety::default()).unwrap_err();
    assert!(same.release_within(&held).is_ok());
}

#[test]
fn many_operators_at_once_wait_for_an_officer() {
    let grouped = |count: usize| {
        let mut people = people(100);
        people.iter_mut().take(count).for_each(|person| person.wanted.add(Role::Operator));
        snapshot(people)
    };
    let linked = active(1..=30);
    let with = |old: &Snapshot, new: &Snapshot, linked: &Linked| {
        compare(&issuer(), basis(Some(old), linked), new, Faults::default(), Safety::default())
    };
    assert!(with(&grouped(5), &grouped(15), &linked).is_ok());
    let held = with(&grouped(5), &grouped(16), &linked).unwrap_err();
    assert_eq!(held.reasons(), [Reason::Operators { given: 11, before: 30, allowed: 10 }]);
    assert!(with(&grouped(0), &grouped(90), &Linked::default()).is_ok(), "nobody of them has an account");
    // A word is for these, and a few more; others have another digest.
    let other = with(&grouped(4), &grouped(16), &linked).unwrap_err();
    assert_ne!(other.digest(), held.digest());
    assert!(other.release_within(&held).is_ok());
    let more = with(&grouped(5), &grouped(27), &linked).unwrap_err();
    assert!(more.release_within(&held).is_err());
}
