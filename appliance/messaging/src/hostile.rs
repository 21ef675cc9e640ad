//! An insider who speaks MLS well and breaks our rules: an honest device must not follow. (What outsiders and the
//! server can do is in `tests/it`.)

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use mls_rs::client_builder::{MlsConfig, PaddingMode};
use mls_rs::extension::built_in::RequiredCapabilitiesExt;
use mls_rs::group::CommitOutput;
use mls_rs::group::proposal::CustomProposal;
use mls_rs::mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions};
use mls_rs::{Client, ExtensionList, Group, MlsMessage, ProtocolVersion};
use mls_rs_core::extension::{Extension, ExtensionType};
use zixt_crypto::{AeadKey, Backend, Reference, SigningKey, SigningSeed, aead, digest};
use zixt_types::{
    AccountId, Canonical, DeviceId, Epoch, Hash, Member, MessageId, SuiteId, ThreadId, ThreadKind, Timestamp,
};

use crate::device::{tree_aad, tree_key_extension};
use crate::identity::{LedgerIdentity, signing_identity};
use crate::key_package::message;
use crate::provider::{MlsCrypto, cipher_suite, signer_handle};
use crate::*;

const SUITE: SuiteId = SuiteId::Standard;
const NOW: Timestamp = Timestamp(1_780_000_000_000);
const ID: MessageId = MessageId([7; 16]);

fn member(n: u8) -> Member {
    Member { account: AccountId([n; 16]), device: DeviceId([n; 16]) }
}

fn thread() -> ThreadId {
    ThreadId::new(ThreadKind::Conversation, &[1; 31])
}

/// Keys of members 1 to 4, made once.
fn signers() -> &'static BTreeMap<Member, Arc<dyn SigningKey>> {
    static SIGNERS: OnceLock<BTreeMap<Member, Arc<dyn SigningKey>>> = OnceLock::new();
    SIGNERS.get_or_init(|| {
        let signer = |n| Arc::from(Reference.signing_key(SUITE, &SigningSeed::from_bytes(&[n; 32])).unwrap());
        (1..=4).map(|n| (member(n), signer(n))).collect()
    })
}

struct Ledger;

impl KeyDirectory for Ledger {
    fn mls_key(&self, member: &Member) -> Option<Hash> {
        signers().get(member).map(|signer| digest::key_hash(SUITE, signer.public_key()))
    }
}

fn honest(n: u8) -> Device {
    let signer = Arc::clone(&signers()[&member(n)]);
    Device::new(Arc::new(Reference), member(n), signer, Arc::new(Ledger), AeadKey::from_bytes(&[n; 32]))
}

/// A client that is bound to no rules but those of MLS.
fn insider(n: u8, options: CommitOptions, encrypt: bool) -> Client<impl MlsConfig + use<>> {
    let signer = &signers()[&member(n)];
    let encryption = EncryptionOptions::new(encrypt, PaddingMode::None);
    let rules = DefaultMlsRules::new().with_commit_options(options).with_encryption_options(encryption);
    Client::builder()
        .crypto_provider(MlsCrypto::new(Arc::new(Reference), Arc::clone(signer)))
        .identity_provider(LedgerIdentity::new(SUITE, Arc::new(Ledger)))
        .mls_rules(rules)
        .custom_proposal_type(0xF0A5.into())
        .signing_identity(
            signing_identity(&member(n), signer.public_key()),
            signer_handle(&**signer),
            cipher_suite(SUITE),
        )
        .build()
}

fn ours() -> CommitOptions {
    CommitOptions::new().with_path_required(true).with_ratchet_tree_extension(false)
}

fn package(device: &Device) -> NewKeyPackage {
    device.generate_key_package(KeyPackageUse::OneTime, NOW, 1_000_000_000).unwrap()
}

/// What the ledger would say of a commit that the insider makes.
fn entry_of(output: &CommitOutput, epoch: u64, added: &[u8], removed: &[u8]) -> (Vec<u8>, CommitEntry) {
    let envelope = output.commit_message().to_bytes().unwrap();
    let entry = CommitEntry {
        thread: thread(),
        author: member(1),
        time: NOW,
        epoch: Epoch(epoch),
        envelope: digest::envelope_digest(&envelope),
        welcome: None,
        tree: None,
        authenticator: Hash::ZERO,
        added: added.iter().map(|n| member(*n)).collect(),
        removed: removed.iter().map(|n| member(*n)).collect(),
    };
    (envelope, entry)
}

/// The insider invites honest member 2 with the given extensions and lets it join.
fn invite<C: MlsConfig>(
    group: &mut Group<C>,
    extensions: impl FnOnce(&AeadKey) -> ExtensionList,
) -> Result<Joined, JoinError> {
    let device = honest(2);
    let package = package(&device);
    let tree_key = AeadKey::generate().unwrap();
    let output = group
        .commit_builder()
        .commit_time(device::mls_time(NOW))
        .add_member(message(&package.public).unwrap())
        .unwrap()
        .set_group_info_ext(extensions(&tree_key))
        .build()
        .unwrap();
    group.apply_pending_commit().unwrap();
    let welcome = output.welcome_messages()[0].to_bytes().unwrap();
    let tree = aead::seal(&tree_key, &tree_aad(thread()), &group.export_tree().to_bytes().unwrap()).unwrap();
    let (_, mut entry) = entry_of(&output, 0, &[2], &[]);
    entry.welcome = Some(digest::attachment_digest(&welcome));
    entry.tree = Some(digest::attachment_digest(&tree));
    entry.authenticator = digest::authenticator_digest(&group.epoch_authenticator().unwrap());
    device.join(&welcome, &tree, &[package.private], &entry, &[member(1), member(2)])
}

fn create<C: MlsConfig>(client: &Client<C>, context: ExtensionList) -> Group<C> {
    let id = thread().as_ref().to_vec();
    let time = device::mls_time(NOW);
    client.create_group_with_id(id, context, ExtensionList::new(), Some(time)).unwrap()
}

/// A conversation of the insider (1) and an honest device (2).
fn pair(encrypt: bool) -> (Group<impl MlsConfig + use<>>, Conversation) {
    let mut group = create(&insider(1, ours(), encrypt), ExtensionList::new());
    let joined = invite(&mut group, tree_key_extension).unwrap();
    (group, joined.conversation)
}

#[test]
fn commits_that_do_more_than_add_and_remove_are_refused() {
    for kind in 0..3 {
        let (mut group, mut honest) = pair(true);
        let builder = group.commit_builder();
        let output = match kind {
            0 => builder.set_group_context_ext(required_nothing()).unwrap().build(),
            1 => builder
                .reinit(None, ProtocolVersion::MLS_10, cipher_suite(SUITE), ExtensionList::new())
                .unwrap()
                .build(),
            _ => builder.custom_proposal(CustomProposal::new(0xF0A5.into(), vec![])).build(),
        };
        // Honest members do not support custom proposals, so MLS itself stops the insider there.
        let Ok(output) = output else {
            assert_eq!(kind, 2);
            continue;
        };
        let (envelope, entry) = entry_of(&output, 1, &[], &[]);
        let error = honest.process_commit(&envelope, &entry).unwrap_err();
        assert!(matches!(error, CommitError::Mls(MlsFault::Rule(RuleError::Kind))), "{kind}: {error:?}");
        assert_eq!(honest.epoch(), Some(Epoch(1)));
    }
}

fn required_nothing() -> ExtensionList {
    let mut extensions = ExtensionList::new();
    extensions.set_from(RequiredCapabilitiesExt::default()).unwrap();
    extensions
}

#[test]
fn proposals_on_their_own_and_commits_that_refer_to_them_are_refused() {
    let (mut group, mut honest) = pair(true);
    let proposal = group.propose_update(Vec::new()).unwrap().to_bytes().unwrap();
    let entry = MessageEntry {
        thread: thread(),
        author: member(1),
        message_id: ID,
        epoch: Epoch(1),
        envelope: digest::envelope_digest(&proposal),
        content: Hash::ZERO,
    };
    assert!(matches!(honest.decrypt(&proposal, &entry), Err(DecryptError::Malformed)));
    group.clear_proposal_cache();
    let other = package(&self::honest(3));
    let _ = group.propose_add(message(&other.public).unwrap(), Vec::new()).unwrap();
    let output = group.commit_builder().commit_time(device::mls_time(NOW)).build().unwrap();
    let (envelope, entry) = entry_of(&output, 1, &[3], &[]);
    let error = honest.process_commit(&envelope, &entry).unwrap_err();
    assert!(matches!(error, CommitError::Mls(MlsFault::Protocol(_))), "{error:?}");
}

#[test]
fn commits_in_the_clear_or_with_open_data_are_refused() {
    let (mut group, mut honest) = pair(false);
    let output = group.commit(Vec::new()).unwrap();
    let (envelope, entry) = entry_of(&output, 1, &[], &[]);
    assert!(matches!(honest.process_commit(&envelope, &entry), Err(CommitError::Malformed)));

    let (mut group, mut honest) = pair(true);
    let output = group.commit(b"for everybody to read".to_vec()).unwrap();
    let (envelope, entry) = entry_of(&output, 1, &[], &[]);
    assert!(matches!(honest.process_commit(&envelope, &entry), Err(CommitError::Malformed)));
}

#[test]
fn external_commits_are_refused() {
    let (group, mut honest) = pair(true);
    let info = group.group_info_message_allowing_ext_commit(true).unwrap();
    let (_, commit) = insider(3, ours(), true).commit_external(info).unwrap();
    let envelope = commit.to_bytes().unwrap();
    let entry = CommitEntry {
        thread: thread(),
        author: member(3),
        time: NOW,
        epoch: Epoch(1),
        envelope: digest::envelope_digest(&envelope),
        welcome: None,
        tree: None,
        authenticator: Hash::ZERO,
        added: vec![member(3)],
        removed: vec![],
    };
    assert!(matches!(honest.process_commit(&envelope, &entry), Err(CommitError::Malformed)));
}

#[test]
fn a_hidden_member_is_found() {
    let (mut group, mut honest) = pair(true);
    let hidden = package(&self::honest(4));
    let builder = group
        .commit_builder()
        .commit_time(device::mls_time(NOW))
        .add_member(message(&hidden.public).unwrap())
        .unwrap();
    let output = builder.build().unwrap();
    let (envelope, entry) = entry_of(&output, 1, &[], &[]);
    let error = honest.process_commit(&envelope, &entry).unwrap_err();
    assert!(
        matches!(&error, CommitError::Roster { added, removed } if added == &[member(4)] && removed.is_empty()),
        "{error:?}"
    );
}

#[test]
fn replacing_a_member_s_leaf_in_one_commit_is_found() {
    let mut group = create(&insider(1, ours(), true), ExtensionList::new());
    let mut honest = invite(&mut group, tree_key_extension).unwrap().conversation;
    // Member 3 joins openly, then gets another leaf in a commit that claims to change nobody.
    let device = self::honest(3);
    let packages = [package(&device), package(&device)];
    let builder = group
        .commit_builder()
        .commit_time(device::mls_time(NOW))
        .add_member(message(&packages[0].public).unwrap())
        .unwrap();
    let output = builder.build().unwrap();
    group.apply_pending_commit().unwrap();
    let (envelope, mut entry) = entry_of(&output, 1, &[3], &[]);
    entry.authenticator = digest::authenticator_digest(&group.epoch_authenticator().unwrap());
    let _ = honest.process_commit(&envelope, &entry).unwrap();
    let builder = group.commit_builder().commit_time(device::mls_time(NOW)).remove_member(2).unwrap();
    let output = builder.add_member(message(&packages[1].public).unwrap()).unwrap().build().unwrap();
    let (envelope, entry) = entry_of(&output, 2, &[], &[]);
    let error = honest.process_commit(&envelope, &entry).unwrap_err();
    assert!(
        matches!(&error, CommitError::Roster { added, removed } if added == &[member(3)] && removed == added),
        "{error:?}"
    );
}

#[test]
fn a_welcome_has_the_key_of_the_tree_and_nothing_else() {
    let refused =
        |options: CommitOptions, context: ExtensionList, extensions: fn(&AeadKey) -> ExtensionList| {
            let mut group = create(&insider(1, options, true), context);
            let joined = invite(&mut group, extensions);
            assert!(matches!(joined, Err(JoinError::Extensions)), "{joined:?}");
        };
    let none = ExtensionList::new;
    refused(ours(), none(), |_| ExtensionList::new());
    refused(ours().with_ratchet_tree_extension(true), none(), tree_key_extension);
    refused(ours(), none(), |key| {
        let mut extensions = tree_key_extension(key);
        extensions.set(Extension::new(ExtensionType::new(0xF0AF), vec![]));
        extensions
    });
    refused(ours(), none(), |key| {
        let short = key.as_bytes()[1..].to_vec();
        vec![Extension::new(ExtensionType::new(0xF0A1), short)].into()
    });
    refused(ours(), required_nothing(), tree_key_extension);
}

#[test]
fn plaintexts_that_do_not_fit_their_entry_are_refused() {
    let (mut group, mut honest) = pair(true);
    let mut send = |plaintext: &[u8], aad: Vec<u8>, commitment: Hash| {
        let message: MlsMessage = group.encrypt_application_message(plaintext, aad).unwrap();
        let envelope = message.to_bytes().unwrap();
        let entry = MessageEntry {
            thread: thread(),
            author: member(1),
            message_id: ID,
            epoch: Epoch(1),
            envelope: digest::envelope_digest(&envelope),
            content: commitment,
        };
        honest.decrypt(&envelope, &entry)
    };
    let aad = [thread().as_ref(), ID.as_ref()].concat();
    let key = ContentKey::from_bytes(&[5; 32]);
    let wrap = |content: &[u8], key: &[u8]| {
        let mut bytes = Vec::new();
        minicbor::encode(content::Plaintext { content, key }, &mut bytes).unwrap();
        bytes
    };
    let text = |id| Content::text(id, "text", None).unwrap().to_bytes();
    let good = text(ID);
    let commitment = content_commitment(&key, &good);

    let other_id = text(MessageId([8; 16]));
    let sent = send(&wrap(&other_id, &[5; 32]), aad.clone(), content_commitment(&key, &other_id));
    assert!(matches!(sent, Err(DecryptError::MessageId)), "{sent:?}");
    let sent = send(&wrap(&good, &[5; 32]), aad[..32].to_vec(), commitment);
    assert!(matches!(sent, Err(DecryptError::MessageId)), "{sent:?}");
    let sent = send(&wrap(&good, &[6; 32]), aad.clone(), commitment);
    assert!(matches!(sent, Err(DecryptError::Commitment)), "{sent:?}");
    let sent = send(&wrap(&good, &[5; 31]), aad.clone(), commitment);
    assert!(matches!(sent, Err(DecryptError::Plaintext(_))), "{sent:?}");
    let sent = send(&good, aad.clone(), commitment);
    assert!(matches!(sent, Err(DecryptError::Plaintext(_))), "{sent:?}");
    // The commitment holds, but what it commits to is no content.
    let sent = send(&wrap(b"\x80", &[5; 32]), aad.clone(), content_commitment(&key, b"\x80"));
    assert!(matches!(sent, Err(DecryptError::Plaintext(_))), "{sent:?}");
    let sent = send(&wrap(&good, &[5; 32]), aad, commitment).unwrap();
    assert_eq!((sent.content.text.as_str(), sent.key), ("text", key));
}

#[test]
fn a_jump_of_the_ratchet_is_bounded() {
    let (mut group, mut honest) = pair(true);
    let mut last = None;
    for _ in 0..1026 {
        last = Some(group.encrypt_application_message(b"", Vec::new()).unwrap());
    }
    let envelope = last.unwrap().to_bytes().unwrap();
    let entry = MessageEntry {
        thread: thread(),
        author: member(1),
        message_id: ID,
        epoch: Epoch(1),
        envelope: digest::envelope_digest(&envelope),
        content: Hash::ZERO,
    };
    let error = honest.decrypt(&envelope, &entry).unwrap_err();
    assert!(matches!(error, DecryptError::TooFarAhead), "{error:?}");
}
