//! Sign-ins of any order against a second, simpler telling of the policy.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use std::collections::BTreeSet;

/// What may happen, in any order: numbers that [`drive`] reads.
type Event = (u8, u8, u8);

/// A second, simpler telling of the policy: some way to give each requirement a factor of its own.
fn satisfies(then: &[FactorSet], given: &BTreeSet<Factor>) -> bool {
    let Some((first, rest)) = then.split_first() else { return true };
    given.iter().any(|factor| {
        let mut others = given.clone();
        others.remove(factor);
        first.has(*factor) && satisfies(rest, &others)
    })
}

/// One sign-in with what the test itself knows to be good.
struct Tracked {
    login: Login,
    good: Vec<Factor>,
    /// What was asked for last.
    asked: FactorSet,
    begun: u64,
}

fn drive(document: PolicyDocument, events: &[Event], done: &[Cell<u32>; 3]) -> Result<(), TestCaseError> {
    let mut world = World::new(document);
    let admin = Someone::new(1, &[Role::Administrator]);
    let by = admin.by();
    let mut logins: Vec<Tracked> = Vec::new();
    let (mut codes_used, mut steps_used) = (BTreeSet::new(), BTreeSet::new());
    for (what, which, number) in events {
        if what % 16 == 0 || logins.is_empty() {
            let login = world.begin(*number > 20, origin(*which > 128));
            logins.push(Tracked { login, good: vec![], asked: Factor::FIRST, begun: world.now.wall.0 });
            continue;
        }
        match what % 16 {
            1 => world.now = at(world.now.wall.0 + u64::from(*number) * 1_000),
            2 if *number < 60 => world.now = at(world.now.wall.0 - u64::from(*number) * 1_000),
            3 => {
                let change = match world.record.is_active() {
                    true => world.record.suspend(&by, MANY, world.now.wall),
                    false => world.record.resume(&by),
                };
                world.record = change.unwrap().record;
            }
            4 if *number < 60 => world.devices.clear(),
            4 => world.devices = vec![person().device],
            5 if *number < 100 => {
                let to: &[Role] = if number % 2 == 0 { &[Role::User] } else { &[Role::User, Role::Operator] };
                world.record = world.record.change_roles(&by, roles(to), MANY).unwrap().record;
            }
            6 => world.attempts = Attempts::load(&[1; 32], []),
            _ => {
                let index = logins.len()
                    - 1
                    - if *which < 64 { usize::from(*which) % logins.len().min(3) } else { 0 };
                let tracked = &mut logins[index];
                // Mostly what was asked for, or nothing would ever be completed.
                let asked: Vec<_> = tracked.asked.iter().collect();
                let factor = match what % 16 {
                    10.. if !asked.is_empty() => asked[usize::from(*number) % asked.len()],
                    _ => Factor::ALL[usize::from(*number) % 8],
                };
                let is_good = *number < 232;
                let proof = if is_good {
                    world.good(&tracked.login, factor, number / 8)
                } else {
                    bad(&tracked.login, factor)
                };
                let code = number / 8 % 5;
                let step_now = world.now.wall.0;
                let used_before = world.credentials.clone();
                let step = world.step(&mut tracked.login, proof);
                let accepted = matches!(step, Step::Need(_) | Step::Done(_));
                if !accepted {
                    continue;
                }
                prop_assert!(is_good, "{factor} was bad and was taken");
                prop_assert!(tracked.login.account().is_some() && world.record.is_active());
                prop_assert!(!tracked.good.contains(&factor), "{factor} counted twice");
                prop_assert!(step_now >= tracked.begun && step_now <= tracked.begun + 300_000);
                match factor {
                    Factor::BackupCode => prop_assert!(codes_used.insert(code), "a code was good twice"),
                    Factor::Totp => {
                        let shown = format!("{:?}", world.credentials.totp());
                        prop_assert!(steps_used.insert(shown), "a step was good twice");
                        prop_assert!(used_before.totp() != world.credentials.totp());
                    }
                    Factor::DeviceKey => prop_assert!(!world.devices.is_empty()),
                    _ => {}
                }
                tracked.good.push(factor);
                if let Step::Need(asked) = &step {
                    tracked.asked = *asked;
                }
                if let Step::Done(grant) = step {
                    let count = &done[tracked.good.len().min(3) - 1];
                    count.set(count.get() + 1);
                    let first = tracked.good[0];
                    let rest: BTreeSet<_> = tracked.good[1..].iter().copied().collect();
                    for role in world.record.roles().iter() {
                        let rules = &world.policy.roles[role as usize];
                        let path = rules.paths.iter().find(|path| path.first == first);
                        let path = path.expect("a way in that the policy has");
                        prop_assert!(satisfies(&path.then, &rest), "{role}: {first}, {rest:?}");
                    }
                    prop_assert_eq!(grant.roles(), world.record.roles());
                    prop_assert!(tracked.login.is_over(world.now.wall));
                }
            }
        }
    }
    Ok(())
}

fn any_policy() -> impl Strategy<Value = PolicyDocument> {
    let then = prop::collection::vec(0u8..=255, 0..3);
    prop::collection::vec((0usize..4, then), 1..4).prop_filter_map("no policy", |paths| {
        let firsts = [Factor::Password, Factor::Sso, Factor::DeviceKey, Factor::Password];
        let path = |(first, then): (usize, Vec<u8>)| {
            let first = firsts[first];
            let members = |bits: u8| {
                Factor::FURTHER.iter().filter(move |f| bits >> (*f as u8) & 1 == 1 && *f != first).collect()
            };
            Path { first, then: then.into_iter().map(members).collect() }
        };
        let document = user_paths(paths.into_iter().map(path).collect());
        Policy::cheap(document.clone()).is_ok().then_some(document)
    })
}

/// No way to a grant without all factors that the policy demands, whatever is tried in whatever order; and nothing
/// that is good once is good twice.
#[test]
fn no_path_to_done_without_every_factor() {
    let done: [Cell<u32>; 3] = Default::default();
    let mut runner = TestRunner::new(Config { cases: 192, failure_persistence: None, ..Config::default() });
    let events = prop::collection::vec(any::<Event>(), 10..60);
    runner
        .run(&(any_policy(), events), |(document, events)| drive(document, &events, &done))
        .unwrap_or_else(|failure| panic!("{failure}"));
    // Otherwise the test would be about nothing.
    let enough = done.iter().all(|count| count.get() > 10);
    assert!(enough, "too few sign-ins were completed, by their factors: {done:?}");
}
