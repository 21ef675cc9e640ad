//! A device: the one object through which conversations are created, joined and opened again.

use std::sync::Arc;
use std::time::Duration;

use mls_rs::client_builder::{
    BaseConfig, WithCryptoProvider, WithGroupStateStorage, WithIdentityProvider, WithKeyPackageRepo,
    WithMlsRules,
};
use mls_rs::error::MlsError;
use mls_rs::external_client::ExternalClient;
use mls_rs::group::ExportedTree;
use mls_rs::mls_rs_codec::{MlsDecode, MlsEncode};
use mls_rs::time::MlsTime;
use mls_rs::{Client, ExtensionList, KeyPackageStorage, MlsMessage};
use mls_rs_core::extension::{Extension, ExtensionType};
use mls_rs_core::key_package::KeyPackageData;
use zeroize::Zeroizing;
use zixt_crypto::{AeadKey, Backend, SigningKey, aead, digest, labels};
use zixt_types::{Epoch, Hash, Member, SuiteId, ThreadId, ThreadKind, Timestamp, limits};

use crate::conversation::{Conversation, Live, Pending, Stored};
use crate::entry::CommitEntry;
use crate::fault::{MlsFault, StateFault};
use crate::identity::{IdentityError, KeyDirectory, LedgerIdentity, signing_identity};
use crate::key_package::{
    self, CLOCK_SKEW_MS, KeyPackageError, KeyPackageId, KeyPackageInfo, KeyPackageUse, LAST_RESORT,
    LIFETIME_MS_MAX, NewKeyPackage, SealedKeyPackage,
};
use crate::provider::{MlsCrypto, cipher_suite, signer_handle};
use crate::rules::Rules;
use crate::staging::{KeyPackages, Staging};
use crate::state::{
    self, STATE_VERSION, SavedCore, SavedEpoch, SavedPending, SealedState, StatePart, StoredState,
    UnsealError,
};

/// The GroupInfo extension of a Welcome that holds the key of the encrypted ratchet tree (RFC 9420 section 17.3 keeps
/// 0xF000 to 0xFFFF for private use).
const TREE_KEY: ExtensionType = ExtensionType::new(0xF0A1);

pub(crate) type Config = WithMlsRules<
    Rules,
    WithCryptoProvider<
        MlsCrypto,
        WithIdentityProvider<
            LedgerIdentity,
            WithGroupStateStorage<Staging, WithKeyPackageRepo<KeyPackages, BaseConfig>>,
        >,
    >,
>;

/// A device that can talk. Cheap to clone.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    member: Member,
    suite: SuiteId,
    signer: Arc<dyn SigningKey>,
    crypto: MlsCrypto,
    identity: LedgerIdentity,
    state_key: AeadKey,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("member", &self.0.member)
            .field("suite", &self.0.suite)
            .finish_non_exhaustive()
    }
}

/// Why no conversation was created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The thread id is not one of a conversation.
    #[error("this thread id is not one of a conversation")]
    ThreadKind,
    /// MLS refused; most likely the ledger does not know this device's MLS key.
    #[error(transparent)]
    Mls(MlsFault),
}

impl From<MlsError> for CreateError {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.into())
    }
}

/// Why a conversation was not joined. Nothing was changed; the key package is still good.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The thread id is not one of a conversation.
    #[error("this thread id is not one of a conversation")]
    ThreadKind,
    /// Welcome or tree are longer than any.
    #[error("the {what} has {got} bytes; at most {max} are allowed")]
    TooLong {
        /// Which of the two.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The longest that is allowed.
        max: usize,
    },
    /// Welcome or tree are not the ones that the commit entry names.
    #[error("the {what} is not the one that the commit entry names")]
    Digest {
        /// Which of the two.
        what: &'static str,
    },
    /// The commit entry does not add this device.
    #[error("the commit entry does not add this device")]
    NotAdded,
    /// The bytes are not a Welcome.
    #[error("these bytes are not a Welcome")]
    Malformed,
    /// It is for none of the key packages at hand.
    #[error("the Welcome is for none of the key packages at hand")]
    NoKeyPackage,
    /// The private part of the key package could not be read.
    #[error("the key package could not be opened")]
    KeyPackage(#[source] UnsealError),
    /// The Welcome leads to another conversation or suite.
    #[error("the Welcome leads to another conversation")]
    OtherGroup,
    /// The Welcome leads to another epoch than the commit entry.
    #[error("the Welcome leads to epoch {got}; the commit entry leads to epoch {expected}")]
    Epoch {
        /// The one of the entry.
        expected: Epoch,
        /// The one of the Welcome.
        got: Epoch,
    },
    /// The Welcome has extensions that it must not have or lacks the key of the tree.
    #[error("the Welcome does not have exactly the extensions that it must have")]
    Extensions,
    /// The tree does not open with the key in the Welcome, or is not a tree.
    #[error("the ratchet tree does not open")]
    Tree,
    /// Another member than the entry's author made the Welcome.
    #[error("another member than the author of the commit entry made the Welcome")]
    Author {
        /// Who made it.
        got: Member,
    },
    /// The group has other members than the ledger says.
    #[error("the group has other members than the ledger says")]
    Roster,
    /// The group's authenticator is not the one that the entry records.
    #[error("the group's epoch authenticator is not the one that the commit entry records")]
    Authenticator,
    /// MLS refused the Welcome, the tree or one of the members.
    #[error(transparent)]
    Mls(#[from] MlsFault),
    /// The new state could not be saved.
    #[error(transparent)]
    State(#[from] StateFault),
}

impl From<MlsError> for JoinError {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.into())
    }
}

/// Why a saved conversation was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A part could not be read.
    #[error(transparent)]
    Unseal(#[from] UnsealError),
    /// It was saved by another device or in another suite.
    #[error("the state was saved by another device or in another suite")]
    OtherDevice,
    /// MLS does not take its own state back.
    #[error(transparent)]
    Mls(MlsFault),
}

impl From<MlsError> for OpenError {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.into())
    }
}

/// A conversation that this device just joined.
#[derive(Debug)]
#[must_use = "the state has to be stored, and a used key package deleted with it"]
pub struct Joined {
    /// The conversation.
    pub conversation: Conversation,
    /// Its state, all parts.
    pub state: SealedState,
    /// The key package that was used.
    pub key_package: KeyPackageId,
    /// Whether its private part has to be deleted (in the transaction that stores the state).
    pub delete_key_package: bool,
}

impl Device {
    /// A device. `signer` is its MLS key, whose hash the ledger has on record; `state_key` seals everything that this
    /// crate gives out for storage. `directory` is asked at every operation: it may grow with the ledger.
    #[must_use]
    pub fn new(
        backend: Arc<dyn Backend>,
        member: Member,
        signer: Arc<dyn SigningKey>,
        directory: Arc<dyn KeyDirectory>,
        state_key: AeadKey,
    ) -> Self {
        let suite = signer.suite();
        let crypto = MlsCrypto::new(backend, Arc::clone(&signer));
        let identity = LedgerIdentity::new(suite, directory);
        Self(Arc::new(Inner { member, suite, signer, crypto, identity, state_key }))
    }

    /// Who it is.
    #[must_use]
    pub fn member(&self) -> Member {
        self.0.member
    }

    /// The suite of its MLS key, and so of its conversations.
    #[must_use]
    pub fn suite(&self) -> SuiteId {
        self.0.suite
    }

    /// Makes a key package that is valid for `lifetime_ms` from `now` on.
    ///
    /// # Errors
    /// [`KeyPackageError`] if it would live too long, or nothing could be signed or sealed.
    pub fn generate_key_package(
        &self,
        usage: KeyPackageUse,
        now: Timestamp,
        lifetime_ms: u64,
    ) -> Result<NewKeyPackage, KeyPackageError> {
        if lifetime_ms > LIFETIME_MS_MAX {
            let expires_at = Timestamp(now.0.saturating_add(lifetime_ms));
            return Err(KeyPackageError::TooLongLived { expires_at });
        }
        let packages = KeyPackages::default();
        let client = self.client(Staging::default(), packages.clone(), lifetime_ms + CLOCK_SKEW_MS);
        let mut extensions = ExtensionList::new();
        if usage == KeyPackageUse::LastResort {
            extensions.set(Extension::new(LAST_RESORT, Vec::new()));
        }
        let starts_at = mls_time(Timestamp(now.0.saturating_sub(CLOCK_SKEW_MS)));
        let package =
            client.generate_key_package_message(extensions, ExtensionList::new(), Some(starts_at))?;
        let public = package.to_bytes()?;
        let info = KeyPackageInfo::parse(&public)?;
        let private = packages.take().remove(info.id.0.as_ref()).ok_or(KeyPackageError::Malformed)?;
        let private = Zeroizing::new(private.mls_encode_to_vec().map_err(MlsError::from)?);
        let sealed = state::seal(&self.0.state_key, StatePart::KeyPackage, &info.id.0, &private)?;
        Ok(NewKeyPackage { private: SealedKeyPackage { id: info.id, sealed }, info, public })
    }

    /// Checks a package that the server handed out for `member`: suite, signature, keys, validity at `now` with
    /// [`CLOCK_SKEW_MS`] to spare, and that the ledger has this MLS key for this device.
    ///
    /// # Errors
    /// [`KeyPackageError`] says which of these does not hold.
    pub fn check_key_package(
        &self,
        bytes: &[u8],
        member: &Member,
        now: Timestamp,
    ) -> Result<KeyPackageInfo, KeyPackageError> {
        let info = self.check_any_key_package(bytes, now)?;
        if info.member == *member { Ok(info) } else { Err(KeyPackageError::OtherMember { got: info.member }) }
    }

    pub(crate) fn check_any_key_package(
        &self,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<KeyPackageInfo, KeyPackageError> {
        let info = KeyPackageInfo::parse(bytes)?;
        if info.suite != self.0.suite {
            return Err(KeyPackageError::OtherSuite { got: cipher_suite(info.suite).raw_value() });
        }
        let expires_at = info.expires_at;
        if expires_at.0 < now.0.saturating_add(CLOCK_SKEW_MS) {
            return Err(KeyPackageError::Expired { expires_at });
        }
        if expires_at.0 > now.0.saturating_add(LIFETIME_MS_MAX + CLOCK_SKEW_MS) {
            return Err(KeyPackageError::TooLongLived { expires_at });
        }
        self.0.identity.check_key(&info.member, info.key)?;
        ExternalClient::builder()
            .crypto_provider(self.0.crypto.clone())
            .identity_provider(self.0.identity.clone())
            .build()
            .validate_key_package(key_package::message(bytes)?, Some(mls_time(now)))?;
        Ok(info)
    }

    /// Starts a conversation with nobody else in it. It has nothing to store until its first commit, which has to add
    /// somebody.
    ///
    /// # Errors
    /// [`CreateError`] if the id is not one of a conversation or the ledger does not know this device.
    pub fn create(&self, thread: ThreadId, now: Timestamp) -> Result<Conversation, CreateError> {
        if thread.kind() != Some(ThreadKind::Conversation) {
            return Err(CreateError::ThreadKind);
        }
        let staging = Staging::default();
        let group = self
            .client(staging.clone(), KeyPackages::default(), LIFETIME_MS_MAX)
            .group_builder()?
            .with_group_id(thread.as_bytes().to_vec())
            .with_now_time(mls_time(now))
            .build()?;
        let live = Live::new(group, self.0.suite, now).map_err(CreateError::Mls)?;
        Ok(Conversation::new(self.clone(), thread, staging, live))
    }

    /// Joins a conversation that `entry` adds this device to. `roster` is who the ledger says is in it after `entry`,
    /// computed from all commit entries up to it. `key_packages` holds at least the one that the Welcome is for
    /// ([`key_package::welcome_key_packages`]).
    ///
    /// # Errors
    /// [`JoinError`] if anything is not as the ledger says; nothing is changed then.
    pub fn join(
        &self,
        welcome: &[u8],
        tree: &[u8],
        key_packages: &[SealedKeyPackage],
        entry: &CommitEntry,
        roster: &[Member],
    ) -> Result<Joined, JoinError> {
        self.check_join_entry(welcome, tree, entry)?;
        let welcome = MlsMessage::from_bytes(welcome).map_err(|_| JoinError::Malformed)?;
        let ids = welcome.welcome_key_package_references();
        let (package, used) = key_packages
            .iter()
            .find_map(|package| {
                ids.iter().find(|id| id[..] == *package.id.0.as_ref()).map(|id| (package, id))
            })
            .ok_or(JoinError::NoKeyPackage)?;
        let private = state::unseal(&self.0.state_key, StatePart::KeyPackage, &package.id.0, &package.sealed)
            .map_err(JoinError::KeyPackage)?;
        let private = KeyPackageData::mls_decode(&mut &**private)
            .map_err(|_| JoinError::KeyPackage(UnsealError::Malformed(StatePart::KeyPackage)))?;
        let info = KeyPackageInfo::parse(&key_package_message(&private.key_package_bytes))
            .map_err(|_| JoinError::KeyPackage(UnsealError::Malformed(StatePart::KeyPackage)))?;
        let mut packages = KeyPackages::default();
        match packages.insert(used.to_vec(), private) {
            Ok(()) => {}
            Err(never) => match never {},
        }

        let staging = Staging::default();
        let client = self.client(staging.clone(), packages, LIFETIME_MS_MAX);
        let group_info = client.examine_welcome_message(&welcome)?;
        let context = group_info.group_context();
        if context.group_id() != entry.thread.as_ref() || context.cipher_suite() != cipher_suite(self.0.suite)
        {
            return Err(JoinError::OtherGroup);
        }
        if context.epoch() != entry.epoch.next().0 {
            return Err(JoinError::Epoch { expected: entry.epoch.next(), got: Epoch(context.epoch()) });
        }
        let tree_key = match group_info.extensions().get(TREE_KEY) {
            Some(extension) if group_info.extensions().len() == 1 && context.extensions().is_empty() => {
                Zeroizing::new(extension.extension_data)
            }
            _ => return Err(JoinError::Extensions),
        };
        let tree_key = AeadKey::from_slice(&tree_key).map_err(|_| JoinError::Extensions)?;
        let tree = aead::open(&tree_key, &tree_aad(entry.thread), tree).map_err(|_| JoinError::Tree)?;
        if blank_bytes(&tree) > blank_bytes_max(roster.len(), tree.len()) {
            return Err(JoinError::Tree);
        }
        let tree = ExportedTree::from_bytes(&tree).map_err(|_| JoinError::Tree)?;

        // No time: the validity of others' packages was their adders' business, and must not lock out newcomers
        // later on.
        let (group, new_member) = client.join_group(Some(tree), &welcome, None)?;
        let mut live = Live::new(group, self.0.suite, entry.time)?;
        let author = live.member(new_member.sender).ok_or(JoinError::Malformed)?;
        if author != entry.author {
            return Err(JoinError::Author { got: author });
        }
        let mut expected = roster.to_vec();
        expected.sort_unstable();
        if live.members() != expected {
            return Err(JoinError::Roster);
        }
        if live.authenticator()? != entry.authenticator {
            return Err(JoinError::Authenticator);
        }
        live.rotate_first = info.usage == KeyPackageUse::LastResort;
        let mut conversation = Conversation::new(self.clone(), entry.thread, staging, live);
        let state = conversation.save()?;
        let delete_key_package = info.usage == KeyPackageUse::OneTime;
        Ok(Joined { conversation, state, key_package: info.id, delete_key_package })
    }

    fn check_join_entry(&self, welcome: &[u8], tree: &[u8], entry: &CommitEntry) -> Result<(), JoinError> {
        if entry.thread.kind() != Some(ThreadKind::Conversation) {
            return Err(JoinError::ThreadKind);
        }
        for (what, bytes, max, digest) in [
            ("Welcome", welcome, limits::WELCOME_BYTES_MAX, entry.welcome),
            ("ratchet tree", tree, limits::TREE_BYTES_MAX, entry.tree),
        ] {
            if bytes.len() > max {
                return Err(JoinError::TooLong { what, got: bytes.len(), max });
            }
            if Some(digest::attachment_digest(bytes)) != digest {
                return Err(JoinError::Digest { what });
            }
        }
        if entry.added.contains(&self.0.member) { Ok(()) } else { Err(JoinError::NotAdded) }
    }

    /// Opens a conversation from its stored state.
    ///
    /// # Errors
    /// [`OpenError`] if a part was altered, is of another moment, conversation, device or version.
    pub fn open(&self, thread: ThreadId, stored: &StoredState) -> Result<Conversation, OpenError> {
        let key = &self.0.state_key;
        let core = state::unseal(key, StatePart::Core, &thread, &stored.core)?;
        let core: SavedCore<'_> = state::decode(StatePart::Core, &core)?;
        if core.version != STATE_VERSION {
            return Err(UnsealError::Malformed(StatePart::Core).into());
        }
        if (core.member, core.suite) != (self.0.member, self.0.suite) {
            return Err(OpenError::OtherDevice);
        }
        let part = |part, sealed: &[u8], hash: Hash| {
            if state::part_hash(sealed) != hash {
                return Err(UnsealError::Mixed(part));
            }
            state::unseal(key, part, &thread, sealed)
        };
        let tree = part(StatePart::Tree, &stored.tree, core.tree)?;
        let past = part(StatePart::Past, &stored.past, core.past)?;
        let pending = part(StatePart::Pending, &stored.pending, core.pending)?;

        let epochs: Vec<SavedEpoch<'_>> = state::decode(StatePart::Past, &past)?;
        let epochs = epochs.iter().map(|epoch| (epoch.id, Zeroizing::new(epoch.data.to_vec())));
        let staging = Staging::new(core.mls, epochs);
        let tree = ExportedTree::from_bytes(&tree).map_err(|_| UnsealError::Malformed(StatePart::Tree))?;
        let group = self
            .client(staging.clone(), KeyPackages::default(), LIFETIME_MS_MAX)
            .load_group_with_ratchet_tree(thread.as_ref(), tree)?;

        let mut live = Live::new(group, self.0.suite, core.epoch_started_at).map_err(OpenError::Mls)?;
        live.epoch_messages = core.epoch_messages;
        live.rotate_first = core.rotate_first;
        live.stored = Stored { tree: Some(core.tree), past: Some(core.past), pending: Some(core.pending) };
        if !pending.is_empty() {
            let saved: SavedPending<'_> = state::decode(StatePart::Pending, &pending)?;
            let secrets = Zeroizing::new(saved.secrets.to_vec());
            live.pending = Some(Arc::new(Pending { payload: saved.payload, secrets }));
        }
        Ok(Conversation::new(self.clone(), thread, staging, live))
    }

    fn client(&self, staging: Staging, packages: KeyPackages, lifetime_ms: u64) -> Client<Config> {
        let signer = &*self.0.signer;
        let identity = signing_identity(&self.0.member, signer.public_key());
        Client::builder()
            .key_package_repo(packages)
            .group_state_storage(staging)
            .identity_provider(self.0.identity.clone())
            .crypto_provider(self.0.crypto.clone())
            .mls_rules(Rules)
            .key_package_lifetime(Duration::from_millis(lifetime_ms))
            .signing_identity(identity, signer_handle(signer), cipher_suite(self.0.suite))
            .build()
    }

    pub(crate) fn state_key(&self) -> &AeadKey {
        &self.0.state_key
    }

    pub(crate) fn check_key(&self, member: &Member, key: Hash) -> Result<(), IdentityError> {
        self.0.identity.check_key(member, key)
    }
}

/// A GroupInfo extension with the key of the tree.
pub(crate) fn tree_key_extension(key: &AeadKey) -> ExtensionList {
    let mut extensions = ExtensionList::new();
    extensions.set(Extension::new(TREE_KEY, key.as_bytes().to_vec()));
    extensions
}

/// What an encrypted tree is bound to.
pub(crate) fn tree_aad(thread: ThreadId) -> Vec<u8> {
    [labels::TREE_BLOB, thread.as_ref()].concat()
}

/// MLS counts in seconds.
pub(crate) fn mls_time(time: Timestamp) -> MlsTime {
    MlsTime::from(time.0 / 1000)
}

/// A KeyPackage as an MLSMessage: version 1.0 and wire format 5 in front (RFC 9420 section 6).
fn key_package_message(key_package: &[u8]) -> Vec<u8> {
    [&[0, 1, 0, 5], key_package].concat()
}

/// Zero bytes in a ratchet tree as it is sent, where a blank node is a single one.
fn blank_bytes(tree: &[u8]) -> usize {
    tree.iter().filter(|byte| **byte == 0).count()
}

/// How many zero bytes an honest tree of this roster and length can have. A blank node takes one byte on the wire and
/// several hundred in memory, so a tree of nothing but blanks would decode to gigabytes: whoever adds somebody could
/// end that person's client. An honest tree has at most twice as many nodes as the next power of two of its members,
/// each node some zero bytes of lengths and times, and keys and signatures are random.
fn blank_bytes_max(roster: usize, tree_bytes: usize) -> usize {
    128 * roster.max(1).next_power_of_two() + tree_bytes / 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_blanks_is_refused_before_it_is_decoded() {
        for roster in [2, 16, 512] {
            let tree = vec![0; limits::TREE_BYTES_MAX];
            assert!(blank_bytes(&tree) > blank_bytes_max(roster, tree.len()));
        }
        // As many as are let through decode to tens of megabytes, not gigabytes.
        assert!(blank_bytes_max(512, limits::TREE_BYTES_MAX) < 200_000);
    }
}
