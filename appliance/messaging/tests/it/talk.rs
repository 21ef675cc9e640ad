//! People talk: one to one and in groups, in both suites, out of order, over many epochs.

use crate::world::*;
use zixt_messaging::{
    Change, CommitError, CommitOutcome, DecryptError, DraftError, EncryptError, RotationReason,
};
use zixt_types::{Epoch, MessageId, Payload, RotationPolicy, SuiteId, Timestamp, limits};

#[test]
fn two_members_talk_in_both_suites() {
    for suite in SuiteId::ALL {
        let mut world = World::talking(suite, 2);
        for round in 0..3 {
            for author in [1, 2] {
                let sent = world.say(author, &format!("message {round} of {author}"));
                world.all_read(&sent);
            }
        }
        world.agree();
    }
}

#[test]
fn sixteen_members_join_by_one_commit() {
    let mut world = World::new(SuiteId::Standard, 16);
    let others: Vec<u8> = (2..=16).collect();
    let (draft, entry) = world.change(1, &others, &[]);
    assert_eq!(entry.epoch, Epoch(0));
    assert_eq!(entry.added, others.iter().map(|n| member(*n)).collect::<Vec<_>>());
    assert!(entry.removed.is_empty() && entry.welcome.is_some() && entry.tree.is_some());
    assert!(draft.envelope.len() < limits::COMMIT_BYTES_MAX);
    world.agree();
    for author in [1, 9, 16] {
        let sent = world.say(author, "to all");
        world.all_read(&sent);
    }
    // Keys of everybody rotate, one after the other.
    for author in 1..=16 {
        let (_, entry) = world.change(author, &[], &[]);
        assert_eq!((entry.welcome, entry.tree), (None, None));
    }
    world.agree();
    let sent = world.say(16, "still here");
    world.all_read(&sent);
}

#[test]
fn members_come_and_go() {
    let mut world = World::talking(SuiteId::Standard, 5);
    for (by, add, remove) in
        [(1, &[][..], &[3][..]), (2, &[3], &[]), (3, &[], &[1, 5]), (4, &[1], &[2]), (1, &[5], &[4])]
    {
        let _ = world.change(by, add, remove);
        world.agree();
        let author = *world.roster.last().unwrap();
        let sent = world.say(author.account.0[0], "hello");
        world.all_read(&sent);
    }
    assert_eq!(world.peer(1).open(thread(1)).epoch(), Some(Epoch(6)));
}

#[test]
fn the_payload_is_what_the_ledger_takes() {
    use zixt_types::{Author, Body, Canonical, Hash};
    let mut world = World::talking(SuiteId::Standard, 3);
    let commit = world.draft(1, &[], &[2]).payload;
    let mut other = World::new(SuiteId::Standard, 2);
    let first = other.draft(1, &[2], &[]).payload;
    let message = world.peer(2).say(thread(1), MessageId([1; 16]), "x").unwrap().payload;
    for payload in [commit, first, message] {
        let body = Body {
            version: 1,
            suite: SuiteId::Standard,
            genesis: Hash([1; 48]),
            thread: thread(1),
            author: Author::Device(member(1)),
            counter: 0,
            message_id: MessageId([1; 16]),
            sent_at: NOW,
            last_seen: None,
            payload,
        };
        assert_eq!(Body::parse(&body.to_bytes()), Ok(body));
    }
}

#[test]
fn messages_come_out_of_order_and_get_lost() {
    let mut world = World::talking(SuiteId::Standard, 2);
    let mut sent: Vec<_> = (0..20).map(|n| world.say(1, &format!("{n}"))).collect();
    // The fourth is lost; the others come backwards.
    sent.remove(3);
    for message in sent.iter().rev() {
        world.all_read(message);
    }
    for message in &sent {
        let again = world.peer(2).read(&message.envelope, &message.entry);
        assert!(matches!(again, Err(DecryptError::AlreadyDecrypted)), "{again:?}");
    }
}

#[test]
fn late_messages_of_three_past_epochs_are_read_and_older_ones_not() {
    let mut world = World::talking(SuiteId::Standard, 2);
    let late: Vec<_> = (0..5)
        .map(|n| {
            let sent = world.say(1, &format!("epoch {n}"));
            let _ = world.change(1, &[], &[]);
            sent
        })
        .collect();
    // Epochs 1 to 5 have messages, the current one is 6.
    for (n, sent) in late.iter().enumerate() {
        let read = world.peer(2).read(&sent.envelope, &sent.entry);
        if n < 2 {
            assert!(
                matches!(read, Err(DecryptError::EpochGone { got, .. }) if got == sent.entry.epoch),
                "{read:?}"
            );
        } else {
            assert_eq!(read.unwrap().content.text, sent.text);
            let again = world.peer(2).read(&sent.envelope, &sent.entry);
            assert!(matches!(again, Err(DecryptError::AlreadyDecrypted)), "{again:?}");
        }
    }
}

#[test]
fn a_message_of_an_epoch_to_come_waits() {
    let mut world = World::talking(SuiteId::Standard, 2);
    let draft = world.draft(1, &[], &[]);
    let entry = zixt_messaging::CommitEntry::of(thread(1), member(1), NOW, &draft.payload).unwrap();
    let _ = world.peer(1).confirm(&entry).unwrap();
    let sent = world.say(1, "early");
    let read = world.peer(2).read(&sent.envelope, &sent.entry);
    assert!(matches!(read, Err(DecryptError::FutureEpoch { current: Epoch(1), got: Epoch(2) })), "{read:?}");
    let _ = world.peer(2).process(&draft.envelope, &entry).unwrap();
    world.all_read(&sent);
}

#[test]
fn of_two_commits_the_ledger_takes_one_and_the_loser_follows() {
    let mut world = World::talking(SuiteId::Standard, 4);
    let (a, b) = (world.draft(1, &[], &[4]), world.draft(2, &[], &[]));
    assert_eq!(world.peer(2).open(thread(1)).pending_commit(), Some(&b.payload));
    let before = world.say(2, "while both wait");
    let entry = world.deliver(1, &a);
    world.agree();
    assert_eq!(world.peer(2).open(thread(1)).pending_commit(), None);
    // The late message of the old epoch is read by those who stayed.
    world.all_read(&before);

    // The loser's commit is worth nothing any more: not to its author, not to others.
    let late = zixt_messaging::CommitEntry::of(thread(1), member(2), NOW, &b.payload).unwrap();
    assert!(matches!(world.peer(2).confirm(&late), Err(CommitError::NotPending)));
    let refused = world.peer(3).process(&b.envelope, &late);
    assert!(matches!(refused, Err(CommitError::Epoch { current: Epoch(2), got: Epoch(1) })), "{refused:?}");
    // And the winner's does not work twice.
    assert!(matches!(world.peer(3).process(&a.envelope, &entry), Err(CommitError::Epoch { .. })));

    let (_, entry) = world.change(2, &[], &[]);
    assert_eq!(entry.epoch, Epoch(2));
    world.agree();
}

#[test]
fn the_loser_is_told_what_it_lost() {
    let mut world = World::talking(SuiteId::Standard, 3);
    let (a, b) = (world.draft(1, &[], &[]), world.draft(2, &[], &[3]));
    let entry = zixt_messaging::CommitEntry::of(thread(1), member(1), NOW, &a.payload).unwrap();
    let outcome = world.peer(2).process(&a.envelope, &entry).unwrap();
    let CommitOutcome::NewEpoch { epoch, lost: Some(lost), .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((epoch, *lost), (Epoch(2), b.payload));
}

#[test]
fn a_commit_can_be_abandoned_and_made_again() {
    let mut world = World::talking(SuiteId::Standard, 2);
    let first = world.draft(1, &[], &[]);
    let again = world.peer(1).commit(thread(1), &Change::default());
    assert!(matches!(again, Err(DraftError::Pending)), "{again:?}");
    let mut conversation = world.peer(1).open(thread(1));
    let state = conversation.abandon_commit().unwrap();
    assert!(matches!(conversation.abandon_commit(), Err(CommitError::NotPending)));
    world.peer(1).stored.get_mut(&thread(1)).unwrap().update(state);
    let (second, _) = world.change(1, &[], &[]);
    assert_ne!(first.payload, second.payload);
    world.agree();
}

#[test]
fn rotation_follows_the_policy() {
    let policy = RotationPolicy { messages_max: 3, age_ms_max: 1000 };
    let mut world = World::talking(SuiteId::Standard, 2);
    let due = |world: &mut World, n: u8, now: u64| {
        world.peer(n).open(thread(1)).rotation_due(&policy, Timestamp(NOW.0 + now))
    };
    assert_eq!(due(&mut world, 1, 999), None);
    assert_eq!(due(&mut world, 1, 1000), Some(RotationReason::Age));
    for n in 0..3 {
        assert_eq!(due(&mut world, 2, 0), None, "after {n} messages");
        let sent = world.say(1 + n % 2, "x");
        world.all_read(&sent);
    }
    // Sent and received ones count alike.
    assert_eq!(due(&mut world, 1, 0), Some(RotationReason::Messages));
    assert_eq!(due(&mut world, 2, 0), Some(RotationReason::Messages));
    let draft = world.draft(1, &[], &[]);
    assert_eq!(due(&mut world, 1, 0), None, "one is on its way");
    let _ = world.deliver(1, &draft);
    assert_eq!(due(&mut world, 1, 0), None);
    assert_eq!(due(&mut world, 2, 0), None);
}

#[test]
fn a_conversation_of_one_says_nothing() {
    let mut world = World::new(SuiteId::Standard, 1);
    let mut conversation = world.peer(1).device.create(thread(1), NOW).unwrap();
    let content = zixt_messaging::Content::text(MessageId([1; 16]), "x", None).unwrap();
    assert!(matches!(conversation.encrypt(&content), Err(EncryptError::Alone)));
    assert!(matches!(conversation.update(NOW), Err(DraftError::Alone)));
    let account = zixt_types::ThreadId::new(zixt_types::ThreadKind::Account, &[1; 31]);
    assert!(world.peer(1).device.create(account, NOW).is_err());
}

#[test]
fn the_longest_text_fits_into_an_envelope_and_short_ones_look_alike() {
    let mut world = World::talking(SuiteId::Cnsa, 2);
    let sent = world.say(1, &"x".repeat(limits::TEXT_BYTES_MAX));
    world.all_read(&sent);
    assert!(sent.envelope.len() <= limits::ENVELOPE_BYTES_MAX);
    let mut world = World::talking(SuiteId::Standard, 2);
    let lengths: Vec<_> = [0, 5, 80].map(|n| world.say(1, &"x".repeat(n)).envelope.len()).into();
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
}

#[test]
fn a_change_has_to_make_sense() {
    let mut world = World::talking(SuiteId::Standard, 3);
    let thread = thread(1);
    let [two, three] = [2, 3].map(|n| world.peer(n).package(zixt_messaging::KeyPackageUse::OneTime).public);
    let mut refused = |add: Vec<Vec<u8>>, remove: Vec<zixt_types::Member>| {
        world.peer(1).commit(thread, &Change { add, remove }).unwrap_err()
    };
    assert!(matches!(refused(vec![two.clone()], vec![]), DraftError::AlreadyMember(m) if m == member(2)));
    assert!(matches!(refused(vec![two, three], vec![member(2)]), DraftError::AlreadyMember(_)));
    assert!(matches!(refused(vec![], vec![member(1)]), DraftError::OwnRemoval));
    assert!(matches!(refused(vec![], vec![member(9)]), DraftError::NoMember(m) if m == member(9)));
    assert!(matches!(refused(vec![], vec![member(2); 2]), DraftError::NoMember(m) if m == member(2)));
    let many = (0..=limits::ROSTER_CHANGE_MAX).map(|_| Vec::new()).collect();
    assert!(matches!(refused(many, vec![]), DraftError::ChangeTooLarge { .. }));
    assert!(matches!(refused(vec![vec![0; 100]], vec![]), DraftError::KeyPackage(_)));
    assert_eq!(world.peer(1).open(thread).pending_commit(), None);
    let Payload::Commit { removed, .. } = world.draft(1, &[], &[3, 2]).payload else { panic!("a commit") };
    assert_eq!(removed, [member(2), member(3)], "sorted");
}
