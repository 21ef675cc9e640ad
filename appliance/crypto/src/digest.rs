//! The labelled digests that give the formats of `zixt-types` their identity, in one place, so that the ledger, the
//! custody daemon, the consensus and the verifier cannot disagree about one.

use crate::hash::{hmac_sha384, sha384};
use crate::labels;
use zixt_types::{
    AccountId, Action, ApplianceId, Canonical, DeviceId, EntryPosition, Genesis, Hash, Header, Salt, SuiteId,
    ThreadId, ThreadKind, Validator, Vote,
};

/// The hash by which genesis, bodies and invitations name a public key of `suite`.
#[must_use]
pub fn key_hash(suite: SuiteId, public_key: &[u8]) -> Hash {
    sha384(labels::KEY_ID, &[&suite.id().to_be_bytes(), public_key])
}

/// The hash by which everything names an ML-KEM-1024 key.
#[must_use]
pub fn kem_key_hash(encapsulation_key: &[u8]) -> Hash {
    sha384(labels::KEM_KEY_ID, &[encapsulation_key])
}

/// The id of the device that holds an identity key.
#[must_use]
pub fn device_id(identity: Hash) -> DeviceId {
    DeviceId(first(&sha384(labels::DEVICE_ID, &[identity.as_ref()])))
}

/// The id of the appliance that holds an identity key.
#[must_use]
pub fn appliance_id(identity: Hash) -> ApplianceId {
    ApplianceId(sha384(labels::APPLIANCE_ID, &[identity.as_ref()]).0)
}

/// The thread of an account.
#[must_use]
pub fn account_thread(account: AccountId) -> ThreadId {
    ThreadId::new(ThreadKind::Account, &first(&sha384(labels::ACCOUNT_THREAD, &[account.as_ref()])))
}

/// The system thread of a network.
#[must_use]
pub fn system_thread(genesis: Hash) -> ThreadId {
    ThreadId::new(ThreadKind::System, &first(&sha384(labels::SYSTEM_THREAD, &[genesis.as_ref()])))
}

/// The hash that names a network.
#[must_use]
pub fn genesis_hash(genesis: &Genesis) -> Hash {
    sha384(labels::GENESIS, &[&genesis.to_bytes()])
}

/// The hash that names an action in what officers sign besides their approval.
#[must_use]
pub fn action_hash(action: &Action) -> Hash {
    sha384(labels::ACTION, &[&action.to_bytes()])
}

/// The hash that consensus decides.
#[must_use]
pub fn header_hash(header: &Header) -> Hash {
    sha384(labels::HEADER, &[&header.to_bytes()])
}

/// The hash of a validator set as it stands in a header.
#[must_use]
pub fn validator_set_hash(validators: &[Validator]) -> Hash {
    let encoded: Vec<Vec<u8>> = validators.iter().map(encode).collect();
    let parts: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
    sha384(labels::VALIDATOR_SET, &parts)
}

/// The hash of the policy in force: until policy entries exist, what the genesis says.
#[must_use]
pub fn policy_hash(genesis: &Genesis) -> Hash {
    sha384(labels::POLICY, &[&encode(&genesis.suites), &encode(&genesis.rotation)])
}

/// Digest of an envelope: the bytes of an MLS message as they travel.
#[must_use]
pub fn envelope_digest(envelope: &[u8]) -> Hash {
    sha384(labels::ENVELOPE, &[envelope])
}

/// Digest of a Welcome or an encrypted ratchet tree.
#[must_use]
pub fn attachment_digest(bytes: &[u8]) -> Hash {
    sha384(labels::ATTACHMENT, &[bytes])
}

/// What a commit entry says of the new epoch, so that members can compare without revealing the authenticator.
#[must_use]
pub fn authenticator_digest(epoch_authenticator: &[u8]) -> Hash {
    sha384(labels::EPOCH_AUTHENTICATOR, &[epoch_authenticator])
}

/// Digest of a signature: an entry binds the exact signature, and evidence may leave out one that it does not need.
#[must_use]
pub fn signature_digest(signature: &[u8]) -> Hash {
    sha384(labels::SIGNATURE_DIGEST, &[signature])
}

/// Commitment to an account's name; the salt is random and stays with those who may know the name.
#[must_use]
pub fn name_commitment(salt: &Salt, name: &str) -> Hash {
    sha384(labels::NAME_COMMITMENT, &[salt.as_ref(), name.as_bytes()])
}

/// Commitment to a message's canonical content. `k` is random and travels only inside the MLS plaintext: whoever lacks
/// it cannot test guesses, and deleting it with the content leaves nothing to test.
#[must_use]
pub fn content_commitment(k: &[u8; 32], content: &[u8]) -> Hash {
    hmac_sha384(k, labels::CONTENT_COMMITMENT, &[content])
}

/// The hash of an entry: the link of its thread's chain and the data of its leaf. `possession` is the digest of the
/// second signature, which only device additions have.
#[must_use]
pub fn entry_hash(body: &[u8], signature: Hash, possession: Option<Hash>, position: &EntryPosition) -> Hash {
    let possession: &[u8] = possession.as_ref().map_or(&[], AsRef::as_ref);
    sha384(labels::ENTRY, &[body, signature.as_ref(), possession, &encode(position)])
}

/// The bytes that a validator signs for a vote.
#[must_use]
pub fn vote_bytes(vote: &Vote) -> Vec<u8> {
    let mut bytes = labels::VOTE.to_vec();
    bytes.extend_from_slice(&vote.to_bytes());
    bytes
}

fn first<const N: usize>(hash: &Hash) -> [u8; N] {
    const { assert!(N <= Hash::LEN) };
    let mut out = [0; N];
    out.copy_from_slice(&hash.0[..N]);
    out
}

fn encode<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    match minicbor::encode(value, &mut bytes) {
        Ok(()) => bytes,
        Err(_) => unreachable!("encoding to memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_types::{Seq, Timestamp};

    #[test]
    fn an_entry_hash_binds_every_part() {
        let position = EntryPosition { seq: Seq(1), prev: Hash::ZERO, time: Timestamp(2) };
        let base = entry_hash(b"body", Hash([1; 48]), None, &position);
        let later = EntryPosition { time: Timestamp(3), ..position };
        for other in [
            entry_hash(b"bodz", Hash([1; 48]), None, &position),
            entry_hash(b"body", Hash([2; 48]), None, &position),
            entry_hash(b"body", Hash([1; 48]), Some(Hash::ZERO), &position),
            entry_hash(b"body", Hash([1; 48]), None, &later),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn derived_threads_keep_their_kind() {
        assert_eq!(account_thread(AccountId([1; 16])).kind(), Some(ThreadKind::Account));
        assert_eq!(system_thread(Hash([1; 48])).kind(), Some(ThreadKind::System));
        assert_ne!(account_thread(AccountId([1; 16])), account_thread(AccountId([2; 16])));
    }

    #[test]
    fn a_key_is_named_together_with_its_suite() {
        assert_ne!(key_hash(SuiteId::Standard, b"key"), key_hash(SuiteId::Cnsa, b"key"));
    }
}
