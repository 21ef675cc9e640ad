//! Every bound of the product, with its reason. Units stand last in the names.

/// A signed body: ids, hashes and, in a commit, the roster change of a whole group.
pub const BODY_BYTES_MAX: usize = 48 * 1024;
/// Members added or removed by one commit: a group of this size joins with one Welcome of about 900 kB.
pub const ROSTER_CHANGE_MAX: usize = 512;
/// Members of a conversation: at this size a first path update is still below 1 MB.
pub const MEMBERS_MAX: usize = 512;
/// Text of one message as the client takes it; longer things are attachments.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// The MLS ciphertext of an application message: the text, 3.5 kB of MLS overhead, and room to grow.
pub const ENVELOPE_BYTES_MAX: usize = 96 * 1024;
/// An MLS commit: adding 512 members at once measures 6.0 MB.
pub const COMMIT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A Welcome for all who join by one commit: 512 joiners measure 0.9 MB.
pub const WELCOME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// An encrypted ratchet tree: 512 members measure 3.5 MB.
pub const TREE_BYTES_MAX: usize = 6 * 1024 * 1024;
/// One HTTP request: a commit with its Welcome and tree in base64, and a message.
pub const REQUEST_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Submissions in one request: a commit and the first messages after it.
pub const SUBMISSIONS_MAX: usize = 16;
/// Entries certified at one height: amortises two votes and the fsyncs while a batch still fits in memory easily.
pub const BATCH_ENTRIES_MAX: usize = 512;
/// Bytes of one batch with its envelopes; a batch closes before it would grow beyond.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Shards, fixed at genesis.
pub const SHARDS_MAX: u16 = 256;
/// Validators, officers and enrollers that a genesis may name.
pub const GENESIS_KEYS_MAX: usize = 128;
/// A genesis file.
pub const GENESIS_BYTES_MAX: usize = 64 * 1024;
/// The latest ledger time, in milliseconds since 1970: 2200-01-01T00:00:00Z. Every header is later than the one before,
/// so one at the end of the numbers would be the last of its ledger; and times stay exact in JSON and in every calendar.
pub const LEDGER_TIME_MS_MAX: u64 = 7_258_118_400_000;
/// The latest clock that a header may take over: 2199-01-01T00:00:00Z. The year between is for the headers after it, a
/// millisecond each, so that no clock, however wrong, ends the ledger.
pub const CLOCK_MS_MAX: u64 = 7_226_582_400_000;
/// A header.
pub const HEADER_BYTES_MAX: usize = 1024;
/// A certificate: 128 validators with ML-DSA-87 signatures.
pub const CERTIFICATE_BYTES_MAX: usize = 640 * 1024;
/// A vote.
pub const VOTE_BYTES_MAX: usize = 512;
/// One key package (11.8 kB in the standard suite, more in cnsa).
pub const KEY_PACKAGE_BYTES_MAX: usize = 32 * 1024;
/// One-time key packages kept per device; the last-resort one is counted apart.
pub const KEY_PACKAGES_MAX: usize = 100;
/// An account's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Devices that one account may hold at a time.
pub const DEVICES_MAX: usize = 32;
/// Devices that one account may ever have, the revoked ones counted: they stay in its state and in every proof of it, so
/// without an end they would make each height, each start-up and each evidence file of that account slower for ever. A
/// new device every month lasts 21 years.
pub const DEVICES_EVER_MAX: usize = 256;
/// A password, in bytes as it comes: 256 characters of the longest kind in UTF-8. SP 800-63B-4 section 3.1.1.2 wants room
/// for 64 characters; an end is needed because each byte is normalised and hashed.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Characters of a password after normalisation.
pub const PASSWORD_CHARS_MAX: usize = 256;
/// Entries of a password blocklist: 8 bytes each, so 8 MB.
pub const BLOCKLIST_ENTRIES_MAX: usize = 1_000_000;
/// A sign-in policy: six roles with eight paths each take 2 kB.
pub const SIGN_IN_POLICY_BYTES_MAX: usize = 8 * 1024;
/// Ways to sign in that a policy may name for one role.
pub const SIGN_IN_PATHS_MAX: usize = 8;
/// Factors that one way to sign in may ask for after the first.
pub const SIGN_IN_REQUIREMENTS_MAX: usize = 4;
/// What an account signs in with: mostly WebAuthn credentials.
pub const CREDENTIALS_BYTES_MAX: usize = 64 * 1024;
/// WebAuthn credentials of an account.
pub const WEBAUTHN_CREDENTIALS_MAX: usize = 8;
/// The id of a WebAuthn credential (Web Authentication level 2, section 4: at most 1023 bytes).
pub const WEBAUTHN_ID_BYTES_MAX: usize = 1023;
/// What the WebAuthn verifier keeps of a credential: a public key and flags.
pub const WEBAUTHN_STATE_BYTES_MAX: usize = 4 * 1024;
/// What a person calls a WebAuthn credential.
pub const WEBAUTHN_NAME_BYTES_MAX: usize = 64;
/// What a browser sends of a new WebAuthn credential: with RSA keys and a statement below 4 kB.
pub const WEBAUTHN_REGISTRATION_BYTES_MAX: usize = 16 * 1024;
/// An assertion of an authenticator, as the browser sends it.
pub const WEBAUTHN_ASSERTION_BYTES_MAX: usize = 16 * 1024;
/// Sources that an account has signed in from and that the lockout by strangers leaves alone. With the limits of
/// attempts it keeps the sum below the 100 of SP 800-63B-4 section 3.2.2.
pub const KNOWN_SOURCES_MAX: usize = 8;
/// Backup codes in a set.
pub const BACKUP_CODES_MAX: usize = 20;
/// Subjects that the record of failed sign-ins holds (about 100 bytes each).
pub const ATTEMPT_ROWS_MAX: usize = 131_072;
/// Open sessions of one account: more than anybody has devices and browsers.
pub const SESSIONS_EACH_MAX: usize = 16;
/// Open sessions in all (about 400 bytes each).
pub const SESSIONS_MAX: usize = 131_072;
/// Links of an account to directories and identity providers.
pub const ACCOUNT_LINKS_MAX: usize = 4;
/// The record of an account's roles and standing.
pub const ACCOUNT_RECORD_BYTES_MAX: usize = 1024;
/// What a vault holds: the seeds of a device and its settings.
pub const VAULT_CONTENT_BYTES_MAX: usize = 64 * 1024;
/// A vault: its content, and what opening it needs.
pub const VAULT_BYTES_MAX: usize = VAULT_CONTENT_BYTES_MAX + 256;
/// Events in one answer of the push stream's backlog.
pub const EVENTS_PAGE_MAX: usize = 256;
/// Entries in one page of a thread's listing.
pub const ENTRIES_PAGE_MAX: usize = 256;
/// An evidence file: a thread of about 10,000 messages with content.
pub const EVIDENCE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// An action for officers: a recovery key with 128 holders takes 13 kB.
pub const ACTION_BYTES_MAX: usize = 16 * 1024;
/// What describes a protector to officers: label, serial number and model of a token fit into one line.
pub const DESCRIPTION_BYTES_MAX: usize = 200;
/// The longest public key that signs: ML-DSA-87 (FIPS 204, Table 2).
pub const PUBLIC_KEY_BYTES_MAX: usize = 2592;
/// The longest signature: ML-DSA-87 (FIPS 204, Table 2).
pub const SIGNATURE_BYTES_MAX: usize = 4627;
/// One officer's approval, with its key.
pub const APPROVAL_BYTES_MAX: usize = 8 * 1024;
/// An action with the approvals of 128 officers (ML-DSA-87).
pub const TRANSCRIPT_BYTES_MAX: usize = 1024 * 1024;
/// An officer's public card: two keys and a signature.
pub const OFFICER_CARD_BYTES_MAX: usize = 12 * 1024;
/// An officer's key file: the card, and the seeds sealed under a passphrase.
pub const OFFICER_KEY_BYTES_MAX: usize = 16 * 1024;
/// A share of the recovery key, sealed to its officer.
pub const SEALED_SHARE_BYTES_MAX: usize = 4 * 1024;
/// A recovery key's public part with the sealed shares of 128 officers.
pub const RECOVERY_RECORD_BYTES_MAX: usize = 512 * 1024;
/// A request for shares: the record, the action and the recipient's key.
pub const RECOVERY_REQUEST_BYTES_MAX: usize = 640 * 1024;
/// A share that an officer released, with key and signature.
pub const SHARE_RELEASE_BYTES_MAX: usize = 12 * 1024;
/// CBOR nesting. No format of ours goes deeper than 9.
pub const CBOR_DEPTH_MAX: usize = 12;
