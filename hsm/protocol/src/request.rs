//! What may be asked.

use crate::Pin;
use minicbor::{Decode, Encode};
use zixt_types::{Hash, KeyPurpose, SuiteId};

/// A request. Objects travel as their exact bytes: the daemon parses them itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// State, keys, pinned genesis. Needs no unlocked token.
    #[n(0)]
    Status,
    /// Makes the appliance's keys. Once, while unprovisioned, with the token unlocked.
    #[n(1)]
    Provision {
        /// Suite of the keys.
        #[n(0)]
        suite: SuiteId,
        /// For a lab network; a software token is refused otherwise.
        #[n(1)]
        lab: bool,
    },
    /// Pins the network for ever. Repeating the pinned one is no error.
    #[n(2)]
    BindGenesis {
        /// A `zixt_types::Genesis`.
        #[cbor(n(0), with = "minicbor::bytes")]
        genesis: Vec<u8>,
    },
    /// Logs in to the token and, if provisioned, loads the keys.
    #[n(3)]
    Unlock {
        /// The protector's PIN.
        #[n(0)]
        pin: Pin,
        /// Which protector, by its name in the configuration; the first one that is enrolled if none is named.
        #[n(1)]
        protector: Option<String>,
    },
    /// Forgets the keys and logs out of the token.
    #[n(4)]
    Lock,
    /// Signs a handshake as TLS 1.3 server (RFC 8446 section 4.4.3).
    #[n(5)]
    SignTls {
        /// The whole content covered by CertificateVerify: padding, context string, zero byte, transcript hash.
        #[cbor(n(0), with = "minicbor::bytes")]
        content: Vec<u8>,
    },
    /// Signs a vote, unless the slot is taken by another one.
    #[n(6)]
    SignVote {
        /// A `zixt_types::Vote`.
        #[cbor(n(0), with = "minicbor::bytes")]
        vote: Vec<u8>,
    },
    /// Signs an invitation as enroller.
    #[n(7)]
    SignInvite {
        /// A `zixt_types::Body` with an invitation.
        #[cbor(n(0), with = "minicbor::bytes")]
        body: Vec<u8>,
    },
    /// Asks for the key that seals sensitive columns of the server's store.
    #[n(8)]
    UnsealRowKey,
    /// Enrols another protector. Once the genesis is pinned, officers have to approve it.
    #[n(9)]
    AddProtector {
        /// Its name in the configuration: never a path or address, which only the configuration gives.
        #[n(0)]
        name: String,
        /// Its PIN.
        #[n(1)]
        pin: Pin,
        /// A `zixt_types::Transcript`.
        #[cbor(n(2), with = "minicbor::bytes")]
        transcript: Option<Vec<u8>>,
    },
    /// Makes a key that officers may activate. Replaces a pending one.
    #[n(10)]
    GenerateKey {
        /// What for.
        #[n(0)]
        purpose: KeyPurpose,
    },
    /// Carries out what officers decided.
    #[n(11)]
    Decide {
        /// A `zixt_types::Transcript`.
        #[cbor(n(0), with = "minicbor::bytes")]
        transcript: Vec<u8>,
        /// PINs of protectors that have to be open for it.
        #[n(1)]
        pins: Vec<NamedPin>,
        /// Officers' cards, where the decision names holders of shares.
        #[n(2)]
        cards: Vec<Card>,
    },
    /// Asks for the recovery record with the officers' sealed shares.
    #[n(12)]
    Recovery,
    /// Begins a backup.
    #[n(13)]
    Backup,
    /// Begins to recover what a backup holds, on a machine without keys whose new protector is open.
    #[n(14)]
    BeginRecovery {
        /// [`crate::BackupHead::custody`].
        #[cbor(n(0), with = "minicbor::bytes")]
        backup: Vec<u8>,
    },
    /// Recovers, with officers' approvals and shares.
    #[n(15)]
    FinishRecovery {
        /// A `zixt_types::Transcript`.
        #[cbor(n(0), with = "minicbor::bytes")]
        transcript: Vec<u8>,
        /// Officers' releases of their shares.
        #[n(1)]
        releases: Vec<Blob>,
    },
    /// Gives a protector another PIN.
    #[n(16)]
    ChangePin {
        /// The protector's name.
        #[n(0)]
        protector: String,
        /// Its PIN.
        #[n(1)]
        old: Pin,
        /// Its next PIN.
        #[n(2)]
        new: Pin,
    },
    /// Tries every key and algorithm.
    #[n(17)]
    SelfTest,
    /// Looks at everything and says what is wrong.
    #[n(18)]
    Doctor,
    /// Asks for decisions that were taken, so that the ledger records them.
    #[n(19)]
    Decisions {
        /// Those from this number on.
        #[n(0)]
        from: u64,
    },
    /// Seals a TPM's key anew: to the values of an image that will be started next, or to what the configuration says.
    #[n(20)]
    Reseal {
        /// The protector's name.
        #[n(0)]
        protector: String,
        /// Its PIN.
        #[n(1)]
        pin: Pin,
        /// A `zixt_measured::PcrValues`.
        #[cbor(n(2), with = "minicbor::bytes")]
        values: Option<Vec<u8>>,
    },
    /// Lets the TPM sign what it measured. Needs no PIN: what was started is asked before one is entered.
    #[n(21)]
    Quote {
        /// Chosen by who will check it.
        #[cbor(n(0), with = "minicbor::bytes")]
        nonce: [u8; 32],
    },
    /// Asks again for the key of a recovered backup's rest, until [`Self::BackupUnpacked`].
    #[n(22)]
    BackupKey {
        /// Hash of [`crate::BackupHead::custody`].
        #[n(0)]
        backup: Hash,
    },
    /// Says that everything in a recovered backup is where it belongs: custody forgets its key.
    #[n(23)]
    BackupUnpacked {
        /// Hash of [`crate::BackupHead::custody`].
        #[n(0)]
        backup: Hash,
    },
    /// Signs, as enroller, that a device of an account has ended.
    #[n(24)]
    SignRevocation {
        /// A `zixt_types::Body` with a revocation.
        #[cbor(n(0), with = "minicbor::bytes")]
        body: Vec<u8>,
    },
}

/// A PIN and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct NamedPin {
    /// The protector's name in the configuration.
    #[n(0)]
    pub protector: String,
    /// Its PIN.
    #[n(1)]
    pub pin: Pin,
}

/// An officer's public keys.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Card {
    /// Hash of the approval key.
    #[n(0)]
    pub officer: Hash,
    /// The ML-KEM-1024 encapsulation key that the officer's share is sealed to.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub kem: Vec<u8>,
}

/// Bytes that somebody else reads.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Blob(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// What a peer may be allowed to do. Names in the configuration are those of [`Purpose::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Purpose {
    /// See state, public keys and advice.
    #[n(0)]
    Status,
    /// Make keys and pin the genesis.
    #[n(1)]
    Provision,
    /// Lock and unlock.
    #[n(2)]
    Unlock,
    /// Sign TLS handshakes as server.
    #[n(3)]
    TlsServer,
    /// Sign votes of the consensus.
    #[n(4)]
    ConsensusVote,
    /// Sign invitations.
    #[n(5)]
    EnrollerSign,
    /// Get the row data key.
    #[n(6)]
    UnsealRowKey,
    /// Change custody: protectors, keys, PINs, recovery. What needs officers, they approve besides.
    #[n(7)]
    Manage,
    /// Make backups.
    #[n(8)]
    Backup,
    /// Sign revocations of devices: whoever may can shut people out, and let nobody in.
    #[n(9)]
    EnrollerRevoke,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 10] = [
        Self::Status,
        Self::Provision,
        Self::Unlock,
        Self::TlsServer,
        Self::ConsensusVote,
        Self::EnrollerSign,
        Self::UnsealRowKey,
        Self::Manage,
        Self::Backup,
        Self::EnrollerRevoke,
    ];

    /// The name that the configuration and messages use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Provision => "provision",
            Self::Unlock => "unlock",
            Self::TlsServer => "tls-server",
            Self::ConsensusVote => "consensus-vote",
            Self::EnrollerSign => "enroller-sign",
            Self::UnsealRowKey => "unseal-row-key",
            Self::Manage => "manage",
            Self::Backup => "backup",
            Self::EnrollerRevoke => "enroller-revoke",
        }
    }

    /// Reads what [`Self::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Request {
    /// The purpose that a peer needs for it.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        match self {
            Self::Status | Self::Recovery | Self::Decisions { .. } | Self::Doctor | Self::Quote { .. } => {
                Purpose::Status
            }
            Self::Provision { .. } | Self::BindGenesis { .. } => Purpose::Provision,
            Self::AddProtector { .. }
            | Self::GenerateKey { .. }
            | Self::Decide { .. }
            | Self::BeginRecovery { .. }
            | Self::FinishRecovery { .. }
            | Self::BackupKey { .. }
            | Self::BackupUnpacked { .. }
            | Self::ChangePin { .. }
            | Self::Reseal { .. }
            | Self::SelfTest => Purpose::Manage,
            Self::Backup => Purpose::Backup,
            Self::Unlock { .. } | Self::Lock => Purpose::Unlock,
            Self::SignTls { .. } => Purpose::TlsServer,
            Self::SignVote { .. } => Purpose::ConsensusVote,
            Self::SignInvite { .. } => Purpose::EnrollerSign,
            Self::SignRevocation { .. } => Purpose::EnrollerRevoke,
            Self::UnsealRowKey => Purpose::UnsealRowKey,
        }
    }

    /// Whether a client may send it again when the connection broke and it does not know what became of it.
    /// An unlock might use up a try of the PIN; a second provisioning or decision would be refused and hide the first's
    /// success.
    pub(crate) const fn may_repeat(&self) -> bool {
        matches!(
            self,
            Self::Status
                | Self::BindGenesis { .. }
                | Self::Lock
                | Self::SignTls { .. }
                | Self::SignVote { .. }
                | Self::SignInvite { .. }
                | Self::SignRevocation { .. }
                | Self::UnsealRowKey
                | Self::Recovery
                | Self::BackupKey { .. }
                | Self::SelfTest
                | Self::Doctor
                | Self::Quote { .. }
                | Self::Decisions { .. }
        )
    }
}
