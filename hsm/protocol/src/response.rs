//! How the daemon answers.

use crate::CustodyError;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use zixt_crypto::AeadKey;
use zixt_types::{
    ApplianceId, CustodyMode, Hash, Height, KeyPurpose, ProtectorId, ProtectorKind, Round, SuiteId,
    UnlockMode, VoteStep,
};

/// A response. Each belongs to the request of the same name.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum Response {
    /// To `Status`.
    #[n(0)]
    Status(#[n(0)] Box<Status>),
    /// To `Provision`: the new keys, in the order of [`KeyPurpose::ALL`].
    #[n(1)]
    Provisioned(#[n(0)] Vec<KeyInfo>),
    /// To `BindGenesis`: the hash that is pinned from now on.
    #[n(2)]
    Bound(#[n(0)] Hash),
    /// To `Unlock`: the state that it led to.
    #[n(3)]
    Unlocked(#[n(0)] StateKind),
    /// To `Lock`.
    #[n(4)]
    Locked,
    /// To `SignTls`: the signature.
    #[n(5)]
    TlsSignature(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// To `SignVote`.
    #[n(6)]
    Vote(#[n(0)] VoteOutcome),
    /// To `SignInvite` and `SignRevocation`: the signature.
    #[n(7)]
    InviteSignature(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// To `UnsealRowKey`.
    #[n(8)]
    RowKey(#[n(0)] RowKey),
    /// To any request: why not.
    #[n(9)]
    Error(#[n(0)] CustodyError),
    /// To `AddProtector`: its id.
    #[n(10)]
    ProtectorAdded(#[n(0)] ProtectorId),
    /// To `GenerateKey`: the pending key.
    #[n(11)]
    Generated(#[n(0)] Box<KeyInfo>),
    /// To `Decide`: what was done, line by line, for people.
    #[n(12)]
    Decided(#[n(0)] Vec<String>),
    /// To `ChangePin`.
    #[n(13)]
    PinChanged,
    /// To `SelfTest` and `Doctor`: what was found.
    #[n(14)]
    Findings(#[n(0)] Vec<Finding>),
    /// To `Decisions`: transcripts that were taken, ascending.
    #[n(15)]
    Decisions(#[n(0)] Vec<TakenDecision>),
    /// To `Backup`.
    #[n(16)]
    Backup(#[n(0)] Box<BackupHead>),
    /// To `Recovery`: the recovery record, if one was set.
    #[n(17)]
    Recovery(#[cbor(n(0), with = "minicbor::bytes")] Option<Vec<u8>>),
    /// To `BeginRecovery`: the `zixt_ceremony::RecoveryRequest` that officers approve and release their shares for.
    #[n(18)]
    RecoveryBegun(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// To `FinishRecovery`.
    #[n(19)]
    Recovered {
        /// The state that it led to.
        #[n(0)]
        state: StateKind,
        /// The key of the backup's rest.
        #[n(1)]
        key: RowKey,
    },
    /// To `Reseal`.
    #[n(20)]
    Resealed,
    /// To `Quote`: a `zixt_measured::Attestation`.
    #[n(21)]
    Quoted(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// To `BackupKey`.
    #[n(22)]
    BackupKey(#[n(0)] RowKey),
    /// To `BackupUnpacked`.
    #[n(23)]
    BackupUnpacked,
}

/// Something that `SelfTest` or `Doctor` found out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Finding {
    /// What was looked at.
    #[n(0)]
    pub what: String,
    /// Whether it is as it should be.
    #[n(1)]
    pub good: bool,
    /// What was found.
    #[n(2)]
    pub found: String,
    /// What to do; empty where nothing is to be done.
    #[n(3)]
    pub advice: String,
}

/// A decision of officers that custody took.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TakenDecision {
    /// Its number.
    #[n(0)]
    pub sequence: u64,
    /// The `zixt_types::Transcript`.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub transcript: Vec<u8>,
}

/// What a backup begins with, and the key of the rest.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct BackupHead {
    /// Custody's part: sealed keys, what recovers the root, and the wrapped key of the rest. No secret.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub custody: Vec<u8>,
    /// The key of the rest.
    #[n(1)]
    pub key: RowKey,
}

/// The daemon's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum StateKind {
    /// No keys yet, or keys but no genesis.
    #[n(0)]
    Unprovisioned,
    /// Keys are wrapped; a PIN is needed.
    #[n(1)]
    Locked,
    /// Signs.
    #[n(2)]
    Operational,
    /// Keys or votes are not what they were: officers have to decide.
    #[n(3)]
    Quarantined,
    /// Does not work; see the reason.
    #[n(4)]
    Failed,
}

impl StateKind {
    /// The word for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unprovisioned => "unprovisioned",
            Self::Locked => "locked",
            Self::Operational => "operational",
            Self::Quarantined => "quarantined",
            Self::Failed => "failed",
        }
    }
}

impl std::fmt::Display for StateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What `Status` tells.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Status {
    /// The state.
    #[n(0)]
    pub state: StateKind,
    /// Why it is so, where that is not obvious; else empty.
    #[n(1)]
    pub reason: String,
    /// What to do next; empty when operational.
    #[n(2)]
    pub advice: String,
    /// The public keys; empty before provisioning.
    #[n(3)]
    pub keys: Vec<KeyInfo>,
    /// The pinned genesis.
    #[n(4)]
    pub genesis: Option<Hash>,
    /// Whether the keys were made for a lab. `None` before provisioning.
    #[n(5)]
    pub lab: Option<bool>,
    /// How it unlocks after a power-on.
    #[n(6)]
    pub unlock: UnlockMode,
    /// The highest vote that was signed; told when operational, because the votes are read with a key.
    #[n(7)]
    pub last_vote: Option<VoteSlot>,
    /// What wraps the root: enrolled ones, and others that the configuration offers.
    #[n(8)]
    pub protectors: Vec<ProtectorInfo>,
    /// The newest precommit for a header that was signed; told when operational.
    #[n(9)]
    pub last_precommit: Option<SignedPrecommit>,
    /// Officers' decisions that were taken so far: the number of the next one.
    #[n(10)]
    pub sequence: u64,
    /// This appliance, once it has keys.
    #[n(11)]
    pub appliance: Option<ApplianceId>,
    /// Whether officers can recover the root, and how many of how many it takes.
    #[n(12)]
    pub recovery: Option<(u8, u8)>,
}

/// A protector as everybody may know it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ProtectorInfo {
    /// Its name in the configuration.
    #[n(0)]
    pub name: String,
    /// Its kind.
    #[n(1)]
    pub kind: ProtectorKind,
    /// Its id; `None` before there are keys, or while the device cannot be seen.
    #[n(2)]
    pub id: Option<ProtectorId>,
    /// Whether it wraps the root.
    #[n(3)]
    pub enrolled: bool,
    /// Whether it is in the configuration, so that it can be opened.
    #[n(4)]
    pub configured: bool,
    /// Whether it is open.
    #[n(5)]
    pub open: bool,
    /// The device, when it can be seen.
    #[n(6)]
    pub token: Option<TokenInfo>,
    /// Why it cannot be seen; else empty.
    #[n(7)]
    pub problem: String,
    /// Whether it notices state that was set back.
    #[n(8)]
    pub anchored: bool,
    /// Whether it notices that also while it is not open: its counter is asked without a PIN, at every unlock and change.
    #[n(9)]
    pub anchored_closed: bool,
}

impl Status {
    /// The active key of a purpose.
    #[must_use]
    pub fn key(&self, purpose: KeyPurpose) -> Option<&KeyInfo> {
        self.keys.iter().find(|key| key.purpose == purpose && key.status == KeyStatus::Active)
    }
}

/// Whether a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum KeyStatus {
    /// Made, and waiting for officers to activate it.
    #[n(0)]
    Pending,
    /// Signs.
    #[n(1)]
    Active,
    /// Signs nothing any more.
    #[n(2)]
    Retired,
}

impl KeyStatus {
    /// The word for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }
}

/// A key as everybody may know it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct KeyInfo {
    /// What it is for.
    #[n(0)]
    pub purpose: KeyPurpose,
    /// `zixt_crypto::digest::key_hash` of the public key.
    #[n(1)]
    pub hash: Hash,
    /// Its suite.
    #[n(2)]
    pub suite: SuiteId,
    /// The public key.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// Where the private key lives.
    #[n(4)]
    pub custody: CustodyMode,
    /// Counts the keys of this purpose from 1.
    #[n(5)]
    pub version: u32,
    /// Whether it signs.
    #[n(6)]
    pub status: KeyStatus,
}

/// The token as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TokenInfo {
    /// Its label.
    #[n(0)]
    pub label: String,
    /// Its serial number.
    #[n(1)]
    pub serial: String,
    /// Manufacturer and model.
    #[n(2)]
    pub model: String,
    /// A software token: no hardware protects the wrapping key. Lab only.
    #[n(3)]
    pub software: bool,
}

/// A place that a validator may fill once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct VoteSlot {
    /// The height.
    #[n(0)]
    pub height: Height,
    /// The round.
    #[n(1)]
    pub round: Round,
    /// The step.
    #[n(2)]
    pub step: VoteStep,
}

impl std::fmt::Display for VoteSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let step = match self.step {
            VoteStep::Prevote => "prevote",
            VoteStep::Precommit => "precommit",
        };
        write!(f, "height {}, round {}, {step}", self.height, self.round)
    }
}

/// A precommit for a header (not nil) that was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SignedPrecommit {
    /// The height.
    #[n(0)]
    pub height: Height,
    /// The round.
    #[n(1)]
    pub round: Round,
    /// Hash of the header.
    #[n(2)]
    pub header: Hash,
}

impl std::fmt::Display for SignedPrecommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "height {}, round {}, header {}", self.height, self.round, self.header)
    }
}

/// What became of a vote.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum VoteOutcome {
    /// Signed now, or signed before: the same vote always gets the same signature.
    #[n(0)]
    Signed {
        /// Over `zixt_crypto::digest::vote_bytes`.
        #[cbor(n(0), with = "minicbor::bytes")]
        signature: Vec<u8>,
    },
    /// Another vote holds this slot. It is the one to send.
    #[n(1)]
    AlreadySigned {
        /// The earlier `zixt_types::Vote`.
        #[cbor(n(0), with = "minicbor::bytes")]
        vote: Vec<u8>,
        /// Its signature.
        #[cbor(n(1), with = "minicbor::bytes")]
        signature: Vec<u8>,
    },
    /// Not signed, and never will be.
    #[n(2)]
    Refused(#[n(0)] VoteRefusal),
}

/// Why a vote is not signed though it is well-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum VoteRefusal {
    /// A higher slot was signed and nothing is remembered of this one.
    #[n(0)]
    #[error("the slot lies below the highest signed one ({highest})")]
    BelowHighest {
        /// The highest slot signed.
        #[n(0)]
        highest: VoteSlot,
    },
    /// This appliance has more than two thirds of all stake: each of its precommits is a certificate, and there is one
    /// header for a height.
    #[n(1)]
    #[error("its precommit decides a height alone, and it has signed one for another header ({signed})")]
    OtherHeader {
        /// The precommit that decided.
        #[n(0)]
        signed: SignedPrecommit,
    },
}

/// The 32-byte key of sealed columns. Erased on drop, never printed.
#[derive(Debug, PartialEq, Eq)]
pub struct RowKey(pub AeadKey);

impl<C> Encode<C> for RowKey {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(self.0.as_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RowKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        AeadKey::from_slice(d.bytes()?).map(Self).map_err(|why| decode::Error::custom(why).at(at))
    }
}
