//! Making a commit.

use std::sync::Arc;

use mls_rs::error::MlsError;
use zeroize::Zeroizing;
use zixt_crypto::{AeadKey, aead, digest};
use zixt_types::{Epoch, Member, Payload, ThreadId, Timestamp, limits};

use crate::conversation::{Change, Live, Pending};
use crate::device::{Device, mls_time, tree_aad, tree_key_extension};
use crate::key_package::message;
use crate::refusal::DraftError;

/// What a commit sends and says.
pub(crate) struct Draft {
    pub(crate) envelope: Vec<u8>,
    pub(crate) welcome: Option<Vec<u8>>,
    pub(crate) tree: Option<Vec<u8>>,
    pub(crate) payload: Payload,
}

/// Makes a commit and leaves it pending.
pub(crate) fn draft(
    live: &mut Live,
    device: &Device,
    thread: ThreadId,
    change: &Change,
    now: Timestamp,
) -> Result<Draft, DraftError> {
    let epoch = live.epoch();
    if live.pending.is_some() {
        return Err(DraftError::Pending);
    }
    if epoch == Epoch(0) && change.add.is_empty() {
        return Err(DraftError::Alone);
    }
    let (added, removed) = check_change(live, device, change, now)?;

    let tree_key = AeadKey::generate()?;
    let leaves: Vec<u32> = removed.iter().filter_map(|member| live.leaf(member)).collect();
    let mut builder = live.group.commit_builder().commit_time(mls_time(now));
    for package in &change.add {
        builder = builder.add_member(message(package)?)?;
    }
    for leaf in leaves {
        builder = builder.remove_member(leaf)?;
    }
    if !added.is_empty() {
        builder = builder.set_group_info_ext(tree_key_extension(&tree_key));
    }
    let (output, secrets) = builder.build_detached()?;
    let secret_bytes = Zeroizing::new(secrets.to_bytes()?);

    // The entry names the authenticator of the epoch that is not there yet: look ahead on a copy.
    let mut ahead = live.clone();
    ahead.group.apply_detached_commit(secrets)?;
    let authenticator = ahead.authenticator()?;

    let envelope = bounded("commit", limits::COMMIT_BYTES_MAX, output.commit_message().to_bytes()?)?;
    let (mut welcome, mut tree) = (None, None);
    if !added.is_empty() {
        let [message] = output.welcome_messages() else {
            return Err(MlsError::InvalidWelcomeMessage.into());
        };
        let exported = output.ratchet_tree().ok_or(MlsError::RatchetTreeNotFound)?;
        let sealed = aead::seal(&tree_key, &tree_aad(thread), &exported.to_bytes()?)?;
        welcome = Some(bounded("Welcome", limits::WELCOME_BYTES_MAX, message.to_bytes()?)?);
        tree = Some(bounded("ratchet tree", limits::TREE_BYTES_MAX, sealed)?);
    }
    let payload = Payload::Commit {
        epoch,
        envelope: digest::envelope_digest(&envelope),
        welcome: welcome.as_deref().map(digest::attachment_digest),
        tree: tree.as_deref().map(digest::attachment_digest),
        authenticator,
        added,
        removed,
    };
    live.pending = Some(Arc::new(Pending { payload: payload.clone(), secrets: secret_bytes }));
    live.stored.pending = None;
    Ok(Draft { envelope, welcome, tree, payload })
}

/// Whom a change adds and removes, ascending.
fn check_change(
    live: &Live,
    device: &Device,
    change: &Change,
    now: Timestamp,
) -> Result<(Vec<Member>, Vec<Member>), DraftError> {
    let got = change.add.len().max(change.remove.len());
    if got > limits::ROSTER_CHANGE_MAX {
        return Err(DraftError::ChangeTooLarge { got });
    }
    let mut removed = change.remove.clone();
    removed.sort_unstable();
    if removed.contains(&device.member()) {
        return Err(DraftError::OwnRemoval);
    }
    let repeated = removed.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
    if let Some(member) = repeated.or_else(|| removed.iter().find(|member| live.leaf(member).is_none())) {
        return Err(DraftError::NoMember(*member));
    }
    let mut added = Vec::with_capacity(change.add.len());
    for package in &change.add {
        added.push(device.check_any_key_package(package, now)?.member);
    }
    added.sort_unstable();
    let repeated = added.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
    if let Some(member) = repeated.or_else(|| added.iter().find(|member| live.leaf(member).is_some())) {
        return Err(DraftError::AlreadyMember(*member));
    }
    let got = live.roster.len() + added.len() - removed.len();
    if got > limits::MEMBERS_MAX {
        return Err(DraftError::TooManyMembers { got });
    }
    live.check_members(device, &removed).map_err(DraftError::Stale)?;
    Ok((added, removed))
}

fn bounded(what: &'static str, max: usize, bytes: Vec<u8>) -> Result<Vec<u8>, DraftError> {
    if bytes.len() > max { Err(DraftError::TooLong { what, got: bytes.len(), max }) } else { Ok(bytes) }
}
