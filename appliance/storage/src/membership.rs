//! Who is told of which entries, as intervals: a device is told of a thread's entries from the one that adds it to the
//! one that removes it. A message to five hundred members then writes no row for any of them.

use zixt_types::{AccountId, Author, Body, Epoch, Member, Payload};

/// What an entry changes about who is told of its thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// From this entry on.
    Begin(Member),
    /// This entry is the last one.
    EndAfter(Member),
    /// The entry before this one was the last.
    EndBefore(Member),
}

/// The changes, for an entry that the ledger took. `account` is the account whose thread it extends, if it is one's.
/// `fsck` and the tests compare them with the ledger's own [`zixt_ledger::RecordedEntry::recipients`].
pub(crate) fn changes(body: &Body, account: Option<AccountId>) -> Vec<Change> {
    match (&body.payload, account) {
        (Payload::Commit { epoch, added, removed, .. }, _) => {
            let creator = match body.author {
                Author::Device(member) if *epoch == Epoch(0) => Some(Change::Begin(member)),
                _ => None,
            };
            let added = added.iter().copied().map(Change::Begin);
            let removed = removed.iter().copied().map(Change::EndAfter);
            creator.into_iter().chain(added).chain(removed).collect()
        }
        (Payload::DeviceAdd { device, .. }, Some(account)) => {
            vec![Change::Begin(Member { account, device: *device })]
        }
        (Payload::DeviceRevoke { device, .. }, Some(account)) => {
            vec![Change::EndBefore(Member { account, device: *device })]
        }
        _ => Vec::new(),
    }
}
