//! Every domain-separation label of the product, in one file.
//!
//! A key that signs, seals or hashes for two purposes is safe only if no input of one purpose can be read as
//! an input of the other. So each purpose has a label here, and nothing else in the product spells one out.
//!
//! The form is `zixt/v1/<purpose>` and a closing zero byte. The zero byte makes the set prefix-free by
//! construction (no name contains it), the version allows a purpose to change its encoding later. The tests at
//! the end check form, uniqueness and prefix-freedom over [`ALL`]; the macro puts every label in it.
//!
//! Signatures use the *empty* ML-DSA context (FIPS 204, Algorithms 2 and 3), because not every backend has a
//! context parameter: the label is the `external_aad` of the COSE `Sig_structure`, see [`crate::cose`].

/// Defines the constants and the list of all of them from one table, so that no label can miss the tests.
macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &[u8] = concat!("zixt/v1/", $text, "\0").as_bytes();)*

        /// Every label, in the order of this file.
        pub const ALL: &[&[u8]] = &[$($name),*];
    };
}

labels! {
    // Ledger: signatures
    /// Signature of an author's device over the body of an entry.
    BODY = "body";
    /// Cross-certification: an identity key vouches for the MLS and TLS keys of the same device.
    DEVICE_CROSS_CERT = "device-cross-cert";
    /// Cross-certification: an appliance's identity key vouches for its consensus and TLS keys.
    APPLIANCE_CROSS_CERT = "appliance-cross-cert";
    /// Signature of an invitation key over the first device entry of an account.
    INVITATION = "invitation";
    /// Signature of an officer over a proposed action.
    OFFICER_APPROVAL = "officer-approval";
    /// Signature of an officer over a public card.
    OFFICER_CARD = "officer-card";
    /// Signature of an officer over a share that is released for one recovery.
    SHARE_RELEASE = "share-release";
    /// Signature of a validator over a vote (a precommit certifies a header).
    VOTE = "vote";
    /// Signature of a proposer over a proposal.
    PROPOSAL = "proposal";

    // Ledger: hashes
    /// Hash of an entry: the link of a thread's chain.
    ENTRY = "entry";
    /// Hash of a signed body, which a receipt and a retry are compared by.
    BODY_DIGEST = "body-digest";
    /// Hash of an envelope (ciphertext as it travels).
    ENVELOPE = "envelope";
    /// Hash of salt and entry: the data of a leaf in a shard's tree.
    LEAF = "leaf";
    /// Derivation of a leaf's salt.
    LEAF_SALT = "leaf-salt";
    /// Hash of the genesis document, the name of a network.
    GENESIS = "genesis";
    /// Hash of a header, the value that consensus decides.
    HEADER = "header";
    /// Hash of a validator set.
    VALIDATOR_SET = "validator-set";
    /// Hash of a policy document.
    POLICY = "policy";
    /// Leaf of the sparse Merkle map of heads.
    MAP_LEAF = "map-leaf";
    /// Inner node of the sparse Merkle map of heads.
    MAP_NODE = "map-node";
    /// Empty subtree of the sparse Merkle map of heads.
    MAP_EMPTY = "map-empty";
    /// Key of the head map: hash of a thread or account id.
    MAP_KEY = "map-key";
    /// Salted commitment to an account's name.
    NAME_COMMITMENT = "name-commitment";
    /// Keyed commitment to a message's content.
    CONTENT_COMMITMENT = "content-commitment";
    /// Digest of an attachment.
    ATTACHMENT = "attachment";
    /// Digest of a signature, which an entry hash is made over.
    SIGNATURE_DIGEST = "signature-digest";
    /// Digest of the `epoch_authenticator` (RFC 9420, Section 8.7) that a commit entry records.
    EPOCH_AUTHENTICATOR = "epoch-authenticator";
    /// Hash of an action that officers approve.
    ACTION = "action";
    /// Commitment to a share of the recovery key.
    SHARE_COMMITMENT = "share-commitment";
    /// Checksum of a share on paper.
    SHARE_CHECKSUM = "share-checksum";
    /// Secret that decoys of passkeys are derived from.
    ACCESS_PASSKEYS = "access/passkeys";
    /// Name of what an answer of the API says.
    ENTITY_TAG = "entity-tag";
    /// Hash chain of the audit journal.
    AUDIT = "audit";
    /// Name of one audit journal, and the hash before its first record.
    AUDIT_CHAIN = "audit/chain";
    /// Check over the head of a frame in a segment of the audit journal.
    AUDIT_FRAME = "audit/frame";
    /// Check over the header of a segment of the audit journal.
    AUDIT_SEGMENT = "audit/segment";
    /// Check over the mark that says what of a segment was acknowledged.
    AUDIT_MARK = "audit/mark";
    /// Bytes of the audit journal that were dropped after a crash.
    AUDIT_TORN = "audit/torn";

    // Identifiers
    /// Thread that belongs to an account (its devices, its recovery).
    ACCOUNT_THREAD = "account-thread";
    /// Thread of the network itself.
    SYSTEM_THREAD = "system-thread";
    /// Id of a device, from its identity key.
    DEVICE_ID = "device-id";
    /// Id of a protector of one custody, from what the device says it is.
    PROTECTOR_ID = "protector-id";
    /// Hash of custody's part of a backup.
    CUSTODY_BACKUP = "custody/backup";
    /// Name of a vote guard's file, random.
    VOTE_GUARD = "vote-guard";
    /// Id of a TPM as protector, from the Name of its storage key.
    TPM_PROTECTOR_ID = "tpm/protector-id";
    /// Hash by which everything names a public key, a TLS pin included.
    KEY_ID = "key-id";
    /// Hash by which everything names an ML-KEM key.
    KEM_KEY_ID = "kem-key-id";
    /// Id of an appliance, from its identity key.
    APPLIANCE_ID = "appliance-id";

    // Sealing
    /// HPKE info: the key of a thread's ratchet tree, sealed to a member.
    HPKE_RATCHET_TREE_KEY = "hpke/ratchet-tree-key";
    /// HPKE info: the key of a row, sealed to the custody daemon.
    HPKE_ROW_KEY = "hpke/row-key";
    /// HPKE info: a share of the recovery key, sealed to its officer.
    HPKE_RECOVERY_SHARE = "hpke/recovery-share";
    /// HPKE info: a share of the recovery key, sealed to the machine that recovers.
    HPKE_SHARE_RELEASE = "hpke/share-release";
    /// HPKE info: a root key, sealed to the recovery key.
    HPKE_RECOVERY_ROOT = "hpke/recovery-root";
    /// AAD of an officer's private keys in their file.
    OFFICER_KEY = "officer-key";
    /// AAD of the private key that approves images, in its file.
    IMAGE_KEY = "image-key";
    /// HPKE info: the seed of a key that is imported into a token, sealed to the officers' recovery key.
    HPKE_KEY_ESCROW = "hpke/key-escrow";
    /// AAD of a wrapped key seed.
    SEED_WRAP = "seed-wrap";
    /// AAD of a root key that a protector wraps.
    CUSTODY_ROOT = "custody/root";
    /// Class key: seeds of signing keys.
    CUSTODY_CLASS_SEEDS = "custody/class/seeds";
    /// Class key: data keys.
    CUSTODY_CLASS_DATA = "custody/class/data";
    /// Class key: MAC of the state file.
    CUSTODY_CLASS_STATE = "custody/class/state";
    /// Class key: keys of backups.
    CUSTODY_CLASS_BACKUP = "custody/class/backup";
    /// Class key: key-check value.
    CUSTODY_CLASS_CHECK = "custody/class/check";
    /// Key of a lab's software protector, from its file and the PIN.
    CUSTODY_SOFTWARE = "custody/software";
    /// AAD of the row data key, the vote guard's key and a protector's authorisation in the state file.
    CUSTODY_DATA = "custody/data";
    /// What approvals of register values are for.
    TPM_POLICY_REFERENCE = "tpm/policy-reference";
    /// Keyed hash of a PIN: the authorisation value that a TPM asks for.
    TPM_PIN = "tpm/pin";
    /// Derivation and AAD of the key that wraps a root key beside the TPM that guards it.
    TPM_ROOT_WRAP = "tpm/root-wrap";
    /// AAD of MLS state at rest on a client.
    MLS_STATE = "mls-state";
    /// Derivation and AAD of the key-encryption key of a client's store.
    CLIENT_STORE_KEK = "client-store-kek";
    /// Derivation and AAD of the data-encryption key of a client's store.
    CLIENT_STORE_DEK = "client-store-dek";
    /// Derivation and AAD of the key that seals accounts' names in the server's store.
    NAME_SEAL = "name-seal";
    /// Keyed hash by which the server's store finds an account's name.
    NAME_TAG = "name-tag";
    /// AAD of an encrypted ratchet tree that the server keeps for a thread.
    TREE_BLOB = "tree-blob";

    // Sign-in
    /// Signature of a device's identity key over a sign-in statement.
    SIGN_IN = "sign-in";
    /// Hash of what a session is bound to.
    CHANNEL_BINDING = "channel-binding";
    /// Key that a pre-shared key proves itself with. All that the server keeps of it.
    PSK_VERIFIER = "psk/verifier";
    /// Id of a pre-shared key.
    PSK_ID = "psk/id";
    /// Answer to a challenge with a pre-shared key.
    PSK_RESPONSE = "psk/response";
    /// The server's proof that it knows the verifier too.
    PSK_CONFIRMATION = "psk/confirmation";
    /// External PSK of an MLS group (RFC 9420, Section 8.4), from a pre-shared key.
    PSK_MLS = "psk/mls";
    /// Id of that external PSK.
    PSK_MLS_ID = "psk/mls-id";
    /// Keyed hash by which failed sign-ins are counted.
    ATTEMPT_TAG = "attempt-tag";
    /// Hash of a source that an account has signed in from.
    KNOWN_SOURCE = "known-source";
    /// Hash of a session's token.
    SESSION_TOKEN = "session-token";
    /// Hash of the code that comes with an invitation to sign in.
    INVITATION_CODE = "invitation-code";
    /// Hash by which a blocklist finds a password.
    BLOCKLIST = "blocklist";
    /// Hash of a person's id in a directory or at an identity provider.
    EXTERNAL_SUBJECT = "external-subject";
    /// Hash of what a directory's plan takes away, by which an officer names it.
    DIRECTORY_PLAN = "directory/plan";
    /// Hash of the settings that a snapshot of a directory was taken with.
    DIRECTORY_SETTINGS = "directory/settings";
    /// Hash of what names a domain controller, whose update numbers mean something there alone.
    DIRECTORY_SOURCE = "directory/source";
    /// Short hash by which two versions of a directory's entry are told apart.
    DIRECTORY_ENTRY = "directory/entry";
    /// Hash of the secret of the browser that a single sign-on began in.
    SSO_BROWSER = "sso-browser";
    /// Hash of an id that an identity provider gave to a message, to see it once.
    SSO_REPLAY = "sso-replay";
    /// Hash of an API client's token, by which an answer about it is remembered.
    SSO_API_TOKEN = "sso-api-token";
    /// Hash of a sign-in's challenge, which an authenticator signs.
    WEBAUTHN_CHALLENGE = "webauthn/challenge";
    /// Derivation of the ids of authenticators that nobody has.
    WEBAUTHN_DECOY = "webauthn/decoy";
    /// Derivation of the name of an account for authenticators.
    WEBAUTHN_USER = "webauthn/user";
    /// AAD of an account's credentials at rest.
    CREDENTIALS = "credentials";
    /// Derivation of the keys under which rows of sign-in are authenticated, from the row key.
    SIGN_IN_ROW_KEY = "sign-in-row/key";
    /// Authentication of a row of sign-in at rest.
    SIGN_IN_ROW_TAG = "sign-in-row/tag";
    /// Derivation of the key that rows of sign-in are authenticated under, from custody's row key.
    ACCESS_ROWS = "access/rows";
    /// Derivation of the key that secrets of sign-in are sealed under in the server's store, and their AAD.
    ACCESS_SEAL = "access/seal";
    /// Derivation and AAD of the key of a user's vault.
    VAULT = "vault";

    // This crate
    /// Messages that a new key pair is tried on, and that start-up self-tests sign.
    SELF_TEST = "self-test";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_the_form() {
        for label in ALL {
            let text = std::str::from_utf8(label).unwrap();
            let purpose = text.strip_prefix("zixt/v1/").unwrap().strip_suffix('\0').unwrap();
            assert!(!purpose.is_empty(), "{text:?}");
            assert!(
                purpose.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-/".contains(&b)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn labels_are_unique_and_prefix_free() {
        for (i, a) in ALL.iter().enumerate() {
            for (j, b) in ALL.iter().enumerate() {
                assert!(i == j || !b.starts_with(a), "{:?} is a prefix of {:?}", a, b);
            }
        }
    }
}
