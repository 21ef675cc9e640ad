//! What may be asked.

use crate::Pin;
use minicbor::{Decode, Encode};
use zixt_types::SuiteId;

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
        /// The token's user PIN.
        #[n(0)]
        pin: Pin,
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
}

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
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 7] = [
        Self::Status,
        Self::Provision,
        Self::Unlock,
        Self::TlsServer,
        Self::ConsensusVote,
        Self::EnrollerSign,
        Self::UnsealRowKey,
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
            Self::Status => Purpose::Status,
            Self::Provision { .. } | Self::BindGenesis { .. } => Purpose::Provision,
            Self::Unlock { .. } | Self::Lock => Purpose::Unlock,
            Self::SignTls { .. } => Purpose::TlsServer,
            Self::SignVote { .. } => Purpose::ConsensusVote,
            Self::SignInvite { .. } => Purpose::EnrollerSign,
            Self::UnsealRowKey => Purpose::UnsealRowKey,
        }
    }

    /// Whether a client may send it again when the connection broke and it does not know what became of it.
    /// An unlock might use up a try of the PIN; a second provisioning would be refused and hide the first's success.
    pub(crate) const fn may_repeat(&self) -> bool {
        !matches!(self, Self::Unlock { .. } | Self::Provision { .. })
    }
}
