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
    compare(&issuer(), Basis { before: Some(old), linked: &[] }, new, Faults::default(), safety)
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
    let basis = Basis { before: Some(&old), linked: &[] };
    let elsewhere =
        compare(&other_issuer, basis, &snapshot(people(10)), Faults::default(), Safety::default())
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
        compare(&issuer, Basis { before: None, linked: links }, new, Faults::default(), safety)
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
    let linked = [link(1), link(2), link(9)];
    let basis = Basis { before: Some(&same), linked: &linked };
    let plan = compare(&issuer, basis, &same, Faults::default(), Safety::default()).unwrap();
    let mut told: Vec<_> = plan.changes().iter().map(|change| (change.link, change.what)).collect();
    told.sort_unstable();
    let mut expected = vec![(link(2), What::Disabled), (link(9), What::Vanished)];
    expected.sort_unstable();
    assert_eq!(told, expected);
    // They count like all others.
    let strict = Safety { people: 1, percent: 0 };
    let held = compare(&issuer, basis, &same, Faults::default(), strict).unwrap_err();
    assert_eq!(held.reasons(), [Reason::Access { taken: 2, before: 5, allowed: 1 }]);
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
        let links: Vec<Link> = linked.iter().map(|id| issuer.link(&[*id; 16])).collect();
        let (old, snapshot) = (old.as_ref().map(of), of(&new));
        let basis = Basis { before: old.as_ref(), linked: &links };
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

    /// Whatever happens, more than is allowed lose their access only by an officer's word.
    #[test]
    fn no_more_than_is_allowed_lose_their_access(old in model(), new in model(), people in 0u32..8, percent in 0u32..50) {
        let safety = Safety { people, percent };
        let had: BTreeSet<u8> = old.iter().filter(|(_, value)| value.0).map(|(id, _)| *id).collect();
        let lost = had.iter().filter(|id| !new.get(id).is_some_and(|value| value.0)).count();
        match plan(&of(&old), &of(&new), safety) {
            Ok(plan) => {
                prop_assert!(lost <= safety.allowed(had.len()));
                prop_assert!(!(new.is_empty() && lost > 0));
                let takes = plan.count(|what| matches!(what, What::Disabled | What::Vanished));
                prop_assert_eq!(takes, lost);
            }
            Err(held) => prop_assert!(!held.reasons().is_empty()),
        }
    }
}
