//! Who cannot read what: removed members, thieves of old and of new state, revoked devices.

use crate::world::*;
use zixt_messaging::{
    CommitError, CommitOutcome, DecryptError, DraftError, EncryptError, IdentityError, JoinError,
    KeyPackageUse, MlsFault, RotationReason,
};
use zixt_types::{Epoch, RotationPolicy, SuiteId};

#[test]
fn a_removed_member_reads_nothing_after_the_removal() {
    let mut world = World::talking(SuiteId::Standard, 3);
    let hello = world.say(1, "hello");
    let stolen = world.peer(3).stored.clone();
    let draft = world.draft(1, &[], &[3]);
    let entry = world.deliver(1, &draft);
    assert!(!world.peer(3).stored.contains_key(&thread(1)), "its state is gone");
    let after = world.say(1, "without 3");
    world.all_read(&after);

    // It kept its old state and goes on with it.
    world.peer(3).stored = stolen;
    assert_eq!(world.peer(3).read(&hello.envelope, &hello.entry).unwrap().content.text, "hello");
    let read = world.peer(3).read(&after.envelope, &after.entry);
    assert!(matches!(read, Err(DecryptError::FutureEpoch { .. })), "{read:?}");
    let mut conversation = world.peer(3).open(thread(1));
    let outcome = conversation.process_commit(&draft.envelope, &entry).unwrap();
    assert!(matches!(outcome, CommitOutcome::Removed { epoch: Epoch(2) }), "{outcome:?}");
    assert_eq!((conversation.epoch(), conversation.members()), (None, vec![]));
    let read = conversation.decrypt(&after.envelope, &after.entry);
    assert!(matches!(read, Err(DecryptError::State(zixt_messaging::StateFault::NotAMember))), "{read:?}");
    assert!(conversation.update(NOW).is_err());
    assert!(conversation.authenticator().is_err());

    // What it sends into the old epoch is not taken: nobody is called like that any more.
    let late = world.say(3, "I am still here");
    let read = world.peer(2).read(&late.envelope, &late.entry);
    assert!(matches!(read, Err(DecryptError::AuthorGone)), "{read:?}");
}

#[test]
fn a_newcomer_reads_nothing_from_before() {
    let mut world = World::talking(SuiteId::Standard, 2);
    world.peers.insert(member(3), Peer::new(SuiteId::Standard, 3, &world.directory.clone()));
    let before = world.say(1, "before");
    let _ = world.change(1, &[3], &[]);
    let read = world.peer(3).read(&before.envelope, &before.entry);
    assert!(matches!(read, Err(DecryptError::EpochGone { .. })), "{read:?}");
    let sent = world.say(3, "after");
    world.all_read(&sent);
}

#[test]
fn old_state_is_worthless_after_an_update_of_its_device() {
    let mut world = World::talking(SuiteId::Standard, 3);
    let stolen = world.peer(2).stored.clone();
    // The thief follows the others' commits …
    let (draft, entry) = world.change(1, &[], &[]);
    let healed = std::mem::replace(&mut world.peer(2).stored, stolen);
    let _ = world.peer(2).process(&draft.envelope, &entry).unwrap();
    let stolen = std::mem::replace(&mut world.peer(2).stored, healed);
    // … until the device itself commits.
    let (draft, entry) = world.change(2, &[], &[]);
    let sent = world.say(1, "healed");
    let healed = std::mem::replace(&mut world.peer(2).stored, stolen);
    let follow = world.peer(2).process(&draft.envelope, &entry);
    assert!(matches!(follow, Err(CommitError::Own)), "{follow:?}");
    let confirm = world.peer(2).confirm(&entry);
    assert!(matches!(confirm, Err(CommitError::NotPending)), "{confirm:?}");
    let read = world.peer(2).read(&sent.envelope, &sent.entry);
    assert!(matches!(read, Err(DecryptError::FutureEpoch { .. })), "{read:?}");
    world.peer(2).stored = healed;
    world.all_read(&sent);
}

#[test]
fn state_after_reading_does_not_read_again() {
    let mut world = World::talking(SuiteId::Standard, 2);
    let sent = world.say(1, "once");
    let before = world.peer(2).stored[&thread(1)].clone();
    world.all_read(&sent);
    let after = world.peer(2).stored[&thread(1)].clone();
    // The same object and one that was opened again: the key is gone from both.
    let mut conversation = world.peer(2).open(thread(1));
    for _ in 0..2 {
        let read = conversation.decrypt(&sent.envelope, &sent.entry);
        assert!(matches!(read, Err(DecryptError::AlreadyDecrypted)), "{read:?}");
    }
    // Parts of two moments do not make a state.
    let mut mixed = after;
    mixed.core = before.core;
    assert!(world.peer(2).device.open(thread(1), &mixed).is_ok(), "only the core changed by reading");
    let old = mixed.clone();
    let _ = world.change(1, &[], &[]);
    let now = world.peer(2).stored[&thread(1)].clone();
    for mixed in [
        zixt_messaging::StoredState { core: now.core.clone(), ..old.clone() },
        zixt_messaging::StoredState { tree: now.tree.clone(), ..old.clone() },
        zixt_messaging::StoredState { past: now.past.clone(), ..old.clone() },
        zixt_messaging::StoredState { pending: now.pending.clone(), ..old },
    ] {
        let opened = world.peer(2).device.open(thread(1), &mixed);
        assert!(
            matches!(opened, Err(zixt_messaging::OpenError::Unseal(zixt_messaging::UnsealError::Mixed(_)))),
            "{opened:?}"
        );
    }
}

#[test]
fn saved_state_is_bound_to_conversation_device_key_and_bytes() {
    let mut world = World::talking(SuiteId::Standard, 2);
    let stored = world.peer(1).stored[&thread(1)].clone();
    let device = world.peer(1).device.clone();
    assert!(device.open(thread(2), &stored).is_err());
    assert!(world.peer(2).device.open(thread(1), &stored).is_err(), "another key");
    assert!(device.open(thread(1), &Default::default()).is_err());
    for part in 0..4 {
        let mut altered = stored.clone();
        let bytes = [&mut altered.core, &mut altered.tree, &mut altered.past, &mut altered.pending];
        let bytes = bytes.into_iter().nth(part).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert!(device.open(thread(1), &altered).is_err());
    }
    let mut swapped = stored.clone();
    std::mem::swap(&mut swapped.core, &mut swapped.tree);
    assert!(device.open(thread(1), &swapped).is_err());
    let text = format!("{stored:?} {device:?} {:?}", device.open(thread(1), &stored).unwrap());
    assert!(text.len() < 400 && !text.contains('['), "{text}");
}

#[test]
fn nothing_is_sent_to_a_revoked_device() {
    let mut world = World::talking(SuiteId::Standard, 3);
    world.directory.revoke(&member(3));
    assert_eq!(world.peer(1).open(thread(1)).stale_members(), [member(3)]);
    let unknown = IdentityError::Unknown(member(3));
    let said = world.peer(1).say(thread(1), zixt_types::MessageId([1; 16]), "x");
    assert!(matches!(said, Err(EncryptError::Stale(error)) if error == unknown), "{said:?}");
    let update = world.peer(1).commit(thread(1), &Default::default());
    assert!(matches!(update, Err(DraftError::Stale(error)) if error == unknown), "{update:?}");
    // A commit of the revoked device is not taken, even if the ledger had it.
    let own = world.peer(3).commit(thread(1), &Default::default());
    assert!(matches!(own, Err(DraftError::Stale(_))), "{own:?}");

    let _ = world.change(1, &[], &[3]);
    assert!(world.peer(1).open(thread(1)).stale_members().is_empty());
    let sent = world.say(1, "without 3");
    world.all_read(&sent);
}

#[test]
fn a_commit_of_a_device_that_was_revoked_since_is_refused() {
    let mut world = World::talking(SuiteId::Standard, 3);
    let draft = world.draft(3, &[], &[]);
    world.directory.revoke(&member(3));
    let entry = zixt_messaging::CommitEntry::of(thread(1), member(3), NOW, &draft.payload).unwrap();
    let taken = world.peer(1).process(&draft.envelope, &entry);
    assert!(
        matches!(taken, Err(CommitError::Mls(MlsFault::Identity(IdentityError::Unknown(m)))) if m == member(3)),
        "{taken:?}"
    );
    world.peer(1).open(thread(1)).remove(vec![member(3)], NOW).map(|_| ()).unwrap();
}

#[test]
fn a_newcomer_who_does_not_know_somebody_stays_outside() {
    let mut world = World::new(SuiteId::Standard, 3);
    let draft = world.draft(1, &[2, 3], &[]);
    let entry = zixt_messaging::CommitEntry::of(thread(1), member(1), NOW, &draft.payload).unwrap();
    let roster = [1, 2, 3].map(member).into();
    world.directory.revoke(&member(2));
    let joined = world.peer(3).join(&draft, &entry, &roster);
    assert!(
        matches!(joined, Err(JoinError::Mls(MlsFault::Identity(IdentityError::Unknown(m)))) if m == member(2)),
        "{joined:?}"
    );
}

#[test]
fn who_joins_by_a_last_resort_package_rotates_at_once() {
    let policy = RotationPolicy { messages_max: 1000, age_ms_max: DAY_MS };
    let mut world = World::new(SuiteId::Standard, 2);
    let package = world.peer(2).package(KeyPackageUse::LastResort);
    for n in [1, 2] {
        // The same package twice, for two conversations.
        let thread = thread(n);
        let change = zixt_messaging::Change { add: vec![package.public.clone()], remove: vec![] };
        let draft = world.peer(1).commit(thread, &change).unwrap();
        let entry = zixt_messaging::CommitEntry::of(thread, member(1), NOW, &draft.payload).unwrap();
        let _ = world.peer(1).confirm(&entry).unwrap();
        let conversation = world.peer(2).join(&draft, &entry, &[1, 2].map(member).into()).unwrap();
        assert_eq!(conversation.rotation_due(&policy, NOW), Some(RotationReason::LastResort));
        assert!(world.peer(2).packages.contains_key(&package.info.id), "it is kept");
    }
    world.thread = thread(2);
    world.roster = [1, 2].map(member).into();
    let _ = world.change(1, &[], &[]);
    let due = |world: &mut World| world.peer(2).open(thread(2)).rotation_due(&policy, NOW);
    assert_eq!(due(&mut world), Some(RotationReason::LastResort), "others' commits do not replace its keys");
    let _ = world.change(2, &[], &[]);
    assert_eq!(due(&mut world), None);
}

#[test]
fn one_time_packages_work_once() {
    let mut world = World::new(SuiteId::Standard, 2);
    let package = world.peer(2).package(KeyPackageUse::OneTime);
    let mut joined = Vec::new();
    for n in [1, 2] {
        let change = zixt_messaging::Change { add: vec![package.public.clone()], remove: vec![] };
        let draft = world.peer(1).commit(thread(n), &change).unwrap();
        let entry = zixt_messaging::CommitEntry::of(thread(n), member(1), NOW, &draft.payload).unwrap();
        joined.push(world.peer(2).join(&draft, &entry, &[1, 2].map(member).into()).is_ok());
    }
    assert_eq!(joined, [true, false]);
}

#[test]
fn debug_output_has_no_content() {
    let mut world = World::talking(SuiteId::Standard, 2);
    let sent = world.peer(1).say(thread(1), zixt_types::MessageId([1; 16]), "top secret").unwrap();
    let entry =
        zixt_messaging::MessageEntry::of(thread(1), member(1), zixt_types::MessageId([1; 16]), &sent.payload)
            .unwrap();
    let received = world.peer(2).read(&sent.envelope, &entry).unwrap();
    let draft = world.draft(1, &[], &[]);
    let package = world.peer(1).package(KeyPackageUse::OneTime);
    for text in
        [format!("{sent:?}"), format!("{received:?}"), format!("{draft:?}"), format!("{:?}", package.private)]
    {
        assert!(!text.contains("secret") && !text.contains("116, 111, 112") && text.len() < 600, "{text}");
    }
}
