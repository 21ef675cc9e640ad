//! Envelopes and entries that do not fit together, altered bytes, wrong claims: each has its error, and the
//! conversation is as before.

use crate::world::*;
use zixt_crypto::digest::{attachment_digest, envelope_digest};
use zixt_messaging::{CommitEntry, CommitError, DecryptError, JoinError, MessageEntry};
use zixt_types::{Epoch, Hash, MessageId, SuiteId, limits};

#[test]
fn a_message_that_is_not_what_its_entry_says() {
    let mut world = World::talking(SuiteId::Standard, 3);
    let sent = world.say(1, "the truth");
    let good = sent.entry;
    let mut read = |envelope: &[u8], entry: &MessageEntry| world.peer(2).read(envelope, entry).unwrap_err();

    let claim = |change: &dyn Fn(&mut MessageEntry)| {
        let mut entry = good;
        change(&mut entry);
        entry
    };
    let envelope = &sent.envelope;
    let error = read(envelope, &claim(&|entry| entry.author = member(3)));
    assert!(matches!(error, DecryptError::Author { got } if got == member(1)), "{error:?}");
    let error = read(envelope, &claim(&|entry| entry.author = member(2)));
    assert!(matches!(error, DecryptError::Own), "{error:?}");
    let error = read(envelope, &claim(&|entry| entry.message_id = MessageId([9; 16])));
    assert!(matches!(error, DecryptError::MessageId), "{error:?}");
    let error = read(envelope, &claim(&|entry| entry.content = Hash([9; 48])));
    assert!(matches!(error, DecryptError::Commitment), "{error:?}");
    let error = read(envelope, &claim(&|entry| entry.envelope = Hash([9; 48])));
    assert!(matches!(error, DecryptError::Digest), "{error:?}");
    let error = read(envelope, &claim(&|entry| entry.epoch = Epoch(0)));
    assert!(matches!(error, DecryptError::Malformed), "{error:?}");
    let long = vec![0; limits::ENVELOPE_BYTES_MAX + 1];
    assert!(matches!(read(&long, &good), DecryptError::TooLong { .. }));
    for bytes in [&b""[..], b"\x00\x01\x00\x02", &envelope[..envelope.len() - 1]] {
        let entry = claim(&|entry| entry.envelope = envelope_digest(bytes));
        let error = read(bytes, &entry);
        assert!(matches!(error, DecryptError::Malformed), "{error:?}");
    }

    // After all that, the message is still read.
    world.all_read(&sent);
}

#[test]
fn every_altered_byte_of_a_message_is_noticed() {
    let mut world = World::talking(SuiteId::Standard, 2);
    let sent = world.say(1, "untouched");
    let mut conversation = world.peer(2).open(thread(1));
    let step = 37;
    for at in (0..sent.envelope.len()).step_by(step).chain(sent.envelope.len() - 20..sent.envelope.len()) {
        let mut envelope = sent.envelope.clone();
        envelope[at] ^= 0x40;
        let entry = MessageEntry { envelope: envelope_digest(&envelope), ..sent.entry };
        assert!(conversation.decrypt(&envelope, &entry).is_err(), "byte {at}");
    }
    assert_eq!(conversation.decrypt(&sent.envelope, &sent.entry).unwrap().content.text, "untouched");
}

#[test]
fn a_message_of_another_conversation() {
    let mut world = World::talking(SuiteId::Standard, 2);
    let mut other = World::talking(SuiteId::Standard, 2);
    let sent = other.say(1, "elsewhere");
    let error = world.peer(2).read(&sent.envelope, &sent.entry).unwrap_err();
    assert!(matches!(error, DecryptError::Mls(_)), "same ids, other keys: {error:?}");
    let mut conversation = world.peer(2).open(thread(1));
    let entry = MessageEntry { thread: thread(2), ..sent.entry };
    let error = conversation.decrypt(&sent.envelope, &entry).unwrap_err();
    assert!(matches!(error, DecryptError::OtherThread), "{error:?}");
}

#[test]
fn a_commit_that_is_not_what_its_entry_says() {
    let mut world = World::talking(SuiteId::Standard, 4);
    let draft = world.draft(1, &[], &[4]);
    let good = CommitEntry::of(thread(1), member(1), NOW, &draft.payload).unwrap();
    let claim = |change: &dyn Fn(&mut CommitEntry)| {
        let mut entry = good.clone();
        change(&mut entry);
        entry
    };
    // A member who stays and the one who leaves see through all of them; only the authenticator is hidden from the
    // one who leaves.
    for peer in [2, 4] {
        let before = world.peer(peer).stored.clone();
        let mut process = |envelope: &[u8], entry: &CommitEntry| {
            world.peer(peer).open(thread(1)).process_commit(envelope, entry).unwrap_err()
        };
        let envelope = &draft.envelope;
        let error = process(envelope, &claim(&|entry| entry.author = member(3)));
        assert!(matches!(error, CommitError::Author { got } if got == member(1)), "{error:?}");
        let error = process(envelope, &claim(&|entry| entry.author = member(peer)));
        assert!(matches!(error, CommitError::Own), "{error:?}");
        for lie in [
            claim(&|entry| entry.removed.clear()),
            claim(&|entry| entry.removed = vec![member(3)]),
            claim(&|entry| entry.removed.push(member(5))),
            claim(&|entry| entry.added = vec![member(5)]),
        ] {
            let error = process(envelope, &lie);
            assert!(
                matches!(&error, CommitError::Roster { added, removed } if added.is_empty() && removed == &[member(4)]),
                "{error:?}"
            );
        }
        let error = process(envelope, &claim(&|entry| entry.epoch = Epoch(2)));
        assert!(matches!(error, CommitError::Epoch { current: Epoch(1), got: Epoch(2) }), "{error:?}");
        let error = process(envelope, &claim(&|entry| entry.envelope = Hash([9; 48])));
        assert!(matches!(error, CommitError::Digest), "{error:?}");
        let error = process(envelope, &claim(&|entry| entry.thread = thread(2)));
        assert!(matches!(error, CommitError::OtherThread), "{error:?}");
        if peer == 2 {
            let error = process(envelope, &claim(&|entry| entry.authenticator = Hash([9; 48])));
            assert!(matches!(error, CommitError::Authenticator), "{error:?}");
        }
        let long = vec![0; limits::COMMIT_BYTES_MAX + 1];
        assert!(matches!(process(&long, &good), CommitError::TooLong { .. }));
        for at in (0..envelope.len()).step_by(997) {
            let mut altered = envelope.clone();
            altered[at] ^= 1;
            let entry = claim(&|entry| entry.envelope = envelope_digest(&altered));
            let error = process(&altered, &entry);
            assert!(matches!(error, CommitError::Mls(_) | CommitError::Malformed), "byte {at}: {error:?}");
        }
        assert!(world.peer(peer).stored == before);
    }
    // The author's own confirmation is as strict.
    for lie in [
        claim(&|entry| entry.author = member(2)),
        claim(&|entry| entry.authenticator = Hash([9; 48])),
        claim(&|entry| entry.removed.clear()),
    ] {
        assert!(matches!(world.peer(1).confirm(&lie), Err(CommitError::NotPending)));
    }
    let elsewhere = world.peer(1).open(thread(1)).confirm_commit(&claim(&|entry| entry.thread = thread(2)));
    assert!(matches!(elsewhere, Err(CommitError::OtherThread)), "{elsewhere:?}");
    let _ = world.deliver(1, &draft);
    world.agree();
}

#[test]
fn messages_and_commits_do_not_pass_for_each_other() {
    let mut world = World::talking(SuiteId::Standard, 2);
    let sent = world.say(1, "x");
    let draft = world.draft(1, &[], &[]);
    let mut entry = CommitEntry::of(thread(1), member(1), NOW, &draft.payload).unwrap();
    entry.envelope = sent.entry.envelope;
    let error = world.peer(2).process(&sent.envelope, &entry).unwrap_err();
    assert!(matches!(error, CommitError::Malformed), "{error:?}");
    let entry = MessageEntry { envelope: envelope_digest(&draft.envelope), ..sent.entry };
    let error = world.peer(2).read(&draft.envelope, &entry).unwrap_err();
    assert!(matches!(error, DecryptError::Malformed), "{error:?}");
}

#[test]
fn a_welcome_that_is_not_what_its_entry_says() {
    let mut world = World::new(SuiteId::Standard, 3);
    let draft = world.draft(1, &[2, 3], &[]);
    let good = CommitEntry::of(thread(1), member(1), NOW, &draft.payload).unwrap();
    let roster = [1, 2, 3].map(member);
    let (welcome, tree) = (draft.welcome.clone().unwrap(), draft.tree.clone().unwrap());
    let packages: Vec<_> = world.peer(2).packages.values().cloned().collect();
    let device = world.peer(2).device.clone();
    let join = |welcome: &[u8], tree: &[u8], entry: &CommitEntry, roster: &[zixt_types::Member]| {
        device.join(welcome, tree, &packages, entry, roster).map(|_| ()).unwrap_err()
    };
    let claim = |change: &dyn Fn(&mut CommitEntry)| {
        let mut entry = good.clone();
        change(&mut entry);
        entry
    };
    let error = join(&welcome, &tree, &claim(&|entry| entry.author = member(3)), &roster);
    assert!(matches!(error, JoinError::Author { got } if got == member(1)), "{error:?}");
    let error = join(&welcome, &tree, &claim(&|entry| entry.added = vec![member(3)]), &roster);
    assert!(matches!(error, JoinError::NotAdded), "{error:?}");
    let error = join(&welcome, &tree, &claim(&|entry| entry.authenticator = Hash([9; 48])), &roster);
    assert!(matches!(error, JoinError::Authenticator), "{error:?}");
    let error = join(&welcome, &tree, &claim(&|entry| entry.epoch = Epoch(1)), &roster);
    assert!(matches!(error, JoinError::Epoch { expected: Epoch(2), got: Epoch(1) }), "{error:?}");
    let error = join(&welcome, &tree, &claim(&|entry| entry.thread = thread(2)), &roster);
    assert!(matches!(error, JoinError::OtherGroup), "{error:?}");
    for lie in
        [&roster[..2], &[roster[0], roster[1], roster[2], member(4)], &[roster[0], roster[1], member(4)]]
    {
        let error = join(&welcome, &tree, &good, lie);
        assert!(matches!(error, JoinError::Roster), "{error:?}");
    }
    let error = join(&welcome, &tree, &claim(&|entry| entry.welcome = None), &roster);
    assert!(matches!(error, JoinError::Digest { what: "Welcome" }), "{error:?}");
    let error = join(&welcome, &tree, &claim(&|entry| entry.tree = Some(Hash([9; 48]))), &roster);
    assert!(matches!(error, JoinError::Digest { what: "ratchet tree" }), "{error:?}");
    let error = join(&vec![0; limits::WELCOME_BYTES_MAX + 1], &tree, &good, &roster);
    assert!(matches!(error, JoinError::TooLong { .. }), "{error:?}");

    for at in (0..welcome.len()).step_by(211) {
        let mut altered = welcome.clone();
        altered[at] ^= 1;
        let entry = claim(&|entry| entry.welcome = Some(attachment_digest(&altered)));
        // A byte in the part for the other newcomer does not concern this one, but the group secrets are bound to
        // the group information only: the ledger's digest is what binds the rest.
        if let Ok(joined) = device.join(&altered, &tree, &packages, &entry, &roster) {
            assert_eq!(joined.conversation.authenticator().unwrap(), good.authenticator);
        }
    }
    for at in (0..tree.len()).step_by(997) {
        let mut altered = tree.clone();
        altered[at] ^= 1;
        let entry = claim(&|entry| entry.tree = Some(attachment_digest(&altered)));
        let error = join(&welcome, &altered, &entry, &roster);
        assert!(matches!(error, JoinError::Tree), "{error:?}");
    }
    // Another device has no key package in it.
    let stranger = Peer::new(SuiteId::Standard, 2, &world.directory.clone());
    let joined = stranger.device.join(&welcome, &tree, &packages, &good, &roster);
    assert!(matches!(joined, Err(JoinError::KeyPackage(_))), "the private part is sealed for the device");
    let joined = device.join(&welcome, &tree, &[], &good, &roster);
    assert!(matches!(joined, Err(JoinError::NoKeyPackage)));
}
