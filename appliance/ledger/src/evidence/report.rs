//! What a verification found: one verdict for each question, with typed findings where the answer is no.

use crate::Refusal;
use crate::certificate::{CertificateError, SignedStake};
use crate::map::MapProofError;
use crate::system::SystemFault;
use crate::tree::ProofError;
use thiserror::Error;
use zixt_crypto::VerifyError;
use zixt_types::{
    AccountId, ApplianceId, Author, BodyKind, CustodyMode, DeviceId, Hash, Head, Height, ParseError, Round,
    Seq, SuiteId, ThreadId, Timestamp,
};

/// The answer to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Proven.
    Ok,
    /// Not proven, and why.
    Failed(Vec<Finding>),
    /// The evidence does not hold what would answer it.
    NotIncluded,
}

impl Verdict {
    /// Whether something failed.
    #[must_use]
    pub const fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// What failed.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Failed(findings) => findings,
            Self::Ok | Self::NotIncluded => &[],
        }
    }

    pub(super) fn of(findings: Vec<Finding>) -> Self {
        if findings.is_empty() { Self::Ok } else { Self::Failed(findings) }
    }
}

/// A fault and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What.
    pub fault: Fault,
}

/// A part of an evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The list of public keys.
    Keyring,
    /// The header.
    Header,
    /// The certificate.
    Certificate,
    /// The system thread as a whole.
    System,
    /// An entry of the system thread.
    SystemEntry(Seq),
    /// An account's thread as a whole.
    Account(AccountId),
    /// An entry of an account's thread.
    AccountEntry(AccountId, Seq),
    /// The conversation as a whole.
    Thread,
    /// An entry of the conversation.
    Entry(Seq),
}

/// Why something is not proven.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The header is not certified, so nothing under it is proven.
    #[error("the header is not certified, so what stands under it proves nothing")]
    NotCertified,
    /// The certificate does not make the header final.
    #[error(transparent)]
    Certificate(CertificateError),
    /// A decision of the officers does not stand.
    #[error(transparent)]
    System(SystemFault),
    /// An object names another network.
    #[error("it names another network (genesis {0})")]
    OtherGenesis(Hash),
    /// The header names another policy.
    #[error("it names a policy that this network does not have")]
    OtherPolicy,
    /// The policy does not allow the suite.
    #[error("it uses suite {0}, which this network's policy does not allow")]
    SuiteNotAllowed(SuiteId),
    /// The body is malformed.
    #[error(transparent)]
    Body(ParseError),
    /// The body was written for another thread.
    #[error("its body was signed for another thread ({0})")]
    OtherThread(ThreadId),
    /// An entry stands out of order.
    #[error("it stands where entry {expected} belongs: an entry is missing or out of order")]
    OutOfOrder {
        /// The seq that belongs here.
        expected: Seq,
    },
    /// An entry does not link to the one before it.
    #[error(
        "it does not continue the entry before it: that one was changed, or another history was put in its place"
    )]
    BrokenLink,
    /// The chain does not lead to the head that is certified.
    #[error(
        "the certified ledger ends this thread with entry {} ({}), but the chain here ends with entry {} ({}): \
         entries were dropped, added or changed", certified.seq, certified.hash, found.seq, found.hash
    )]
    OtherHead {
        /// The head in the certified head map.
        certified: Head,
        /// The last entry here.
        found: Head,
    },
    /// The certified ledger has no such thread.
    #[error("the certified ledger has no such thread")]
    NoSuchThread,
    /// The proof for the head map does not fit.
    #[error("head map: {0}")]
    MapProof(MapProofError),
    /// The entry is not the leaf that the proof is about.
    #[error("it is not in the shard's tree as this proof says: {0}")]
    NotInShard(ProofError),
    /// The shard's state is not the certified one.
    #[error("the shard's state is not the one in the header: {0}")]
    NotInHeader(ProofError),
    /// The proof is about a shard to which this thread does not belong.
    #[error("the proof is about another shard than the thread's")]
    OtherShard,
    /// The ledger's clock goes backwards.
    #[error("its ledger time {} is before {}, the time of what precedes it", time.utc(), earliest.utc())]
    TimeBackwards {
        /// The entry's ledger time.
        time: Timestamp,
        /// The earliest that it may be.
        earliest: Timestamp,
    },
    /// An entry is younger than the header that proves it.
    #[error("its ledger time {} is after the header's {}", time.utc(), header.utc())]
    TimeAfterHeader {
        /// The entry's ledger time.
        time: Timestamp,
        /// The header's.
        header: Timestamp,
    },
    /// A public key is not in the file.
    #[error("public key {0} is missing from the evidence")]
    KeyMissing(Hash),
    /// A public key in the file is used by nothing.
    #[error("public key {0} has nothing to do with this evidence")]
    KeyUnused(Hash),
    /// The signature does not verify.
    #[error("signature: {0}; its body was changed or somebody else signed it")]
    Signature(VerifyError),
    /// The signature is given as a digest only, but is needed.
    #[error("its signature is given as digest only, but who wrote it cannot be proven without")]
    SignatureLeftOut,
    /// An addition without, or something else with, a second signature.
    #[error("a device addition needs the new device's own signature, and nothing else may have one")]
    Possession,
    /// A device's id is not that of its key.
    #[error("the device's id is not the one of its identity key")]
    DeviceId,
    /// The author's account is not in the file.
    #[error("the account {0} of its author is missing from the evidence")]
    AccountMissing(AccountId),
    /// The enroller is not one of the genesis.
    #[error("the enroller {0} is not appointed in this network")]
    UnknownEnroller(Hash),
    /// The entry breaks a rule of accounts or conversations.
    #[error("the ledger's rules refuse it: {0}")]
    Refused(Refusal),
    /// The account has no such device.
    #[error("the author's account has no device {0}")]
    UnknownDevice(DeviceId),
    /// The device was added later.
    #[error("device {device} was added at ledger time {}, not before this entry at {}", added.utc(), time.utc())]
    NotYetActive {
        /// The device.
        device: DeviceId,
        /// Ledger time of its addition.
        added: Timestamp,
        /// The entry's ledger time.
        time: Timestamp,
    },
    /// The device was revoked before.
    #[error("device {device} was revoked at ledger time {}, before this entry at {}", revoked.utc(), time.utc())]
    Revoked {
        /// The device.
        device: DeviceId,
        /// Ledger time of its revocation.
        revoked: Timestamp,
        /// The entry's ledger time.
        time: Timestamp,
    },
    /// The chain from the genesis to the device is not proven.
    #[error("device {0} is not proven to belong to its account: see what failed there")]
    DeviceUnproven(DeviceId),
    /// The name is not the one in the account's invitation.
    #[error("the name given for it is not the one that the enroller recorded")]
    OtherName,
    /// The envelope is not the one that was recorded.
    #[error("the envelope is not the one that was recorded")]
    OtherEnvelope,
    /// The content is not the one that was committed to.
    #[error("the content is not what the author committed to")]
    OtherContent,
    /// The content is the one that was committed to, but no client would have shown it: it is no content, or it says of
    /// itself that it belongs to another message.
    #[error("the content is the one that was committed to, but every recipient's client has refused it")]
    RefusedContent,
    /// The entry has no such part.
    #[error("an entry of this kind has no such part")]
    NoSuchPart,
}

impl Fault {
    /// A stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotCertified => "not-certified",
            Self::Certificate(_) => "certificate",
            Self::System(_) => "system",
            Self::OtherGenesis(_) => "other-genesis",
            Self::OtherPolicy => "other-policy",
            Self::SuiteNotAllowed(_) => "suite-not-allowed",
            Self::Body(_) => "body-malformed",
            Self::OtherThread(_) => "other-thread",
            Self::OutOfOrder { .. } => "out-of-order",
            Self::BrokenLink => "broken-link",
            Self::OtherHead { .. } => "other-head",
            Self::NoSuchThread => "no-such-thread",
            Self::MapProof(_) => "map-proof",
            Self::NotInShard(_) => "not-in-shard",
            Self::NotInHeader(_) => "not-in-header",
            Self::OtherShard => "other-shard",
            Self::TimeBackwards { .. } => "time-backwards",
            Self::TimeAfterHeader { .. } => "time-after-header",
            Self::KeyMissing(_) => "key-missing",
            Self::KeyUnused(_) => "key-unused",
            Self::Signature(_) => "signature",
            Self::SignatureLeftOut => "signature-left-out",
            Self::Possession => "possession",
            Self::DeviceId => "device-id",
            Self::AccountMissing(_) => "account-missing",
            Self::UnknownEnroller(_) => "unknown-enroller",
            Self::Refused(_) => "refused",
            Self::UnknownDevice(_) => "unknown-device",
            Self::NotYetActive { .. } => "not-yet-active",
            Self::Revoked { .. } => "revoked",
            Self::DeviceUnproven(_) => "device-unproven",
            Self::OtherName => "other-name",
            Self::OtherEnvelope => "other-envelope",
            Self::OtherContent => "other-content",
            Self::RefusedContent => "refused-content",
            Self::NoSuchPart => "no-such-part",
        }
    }
}

/// A validator that signed the certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signer {
    /// The validator.
    pub appliance: ApplianceId,
    /// Its stake.
    pub stake: u64,
    /// Where its key lives.
    pub custody: CustodyMode,
    /// How its key came to be; `None` if the genesis names it.
    pub activated: Option<SignerActivation>,
}

/// Since when and by whose decision a signer has its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignerActivation {
    /// Ledger time of the activation.
    pub time: Timestamp,
    /// Names of the officers who approved, as the genesis has them.
    pub officers: Vec<String>,
}

/// What the evidence says of one entry of the conversation. Read it together with the verdicts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryReport {
    /// Its place in the thread.
    pub seq: Seq,
    /// Its hash.
    pub hash: Hash,
    /// Ledger time: the validators' clock.
    pub ledger_time: Timestamp,
    /// The author's clock; `None` if the body is malformed.
    pub sent_at: Option<Timestamp>,
    /// What kind of entry it is; `None` if the body is malformed.
    pub kind: Option<BodyKind>,
    /// Who wrote it; `None` if the body is malformed.
    pub author: Option<Author>,
    /// The author's name as the enroller recorded it, if it is in the file.
    pub name: Option<String>,
    /// Whether the envelope is in the file.
    pub has_envelope: bool,
    /// The content, if it is in the file.
    pub content: Option<Vec<u8>>,
}

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The network's name, as its genesis says.
    pub network: String,
    /// Hash of the genesis.
    pub genesis: Hash,
    /// Whether it is a lab network, whose keys prove nothing to anybody.
    pub lab: bool,
    /// Height of the header.
    pub height: Height,
    /// Hash of the header.
    pub header: Hash,
    /// Ledger time of the header.
    pub header_time: Timestamp,
    /// Suite of the certificate.
    pub suite: SuiteId,
    /// Round in which the header was decided.
    pub round: Round,
    /// Stake behind the header, if the certificate is good.
    pub stake: Option<SignedStake>,
    /// Who signed the certificate, as far as the genesis knows them.
    pub signers: Vec<Signer>,
    /// The conversation.
    pub thread: ThreadId,
    /// Its entries here.
    pub entries: Vec<EntryReport>,
    /// Does policy allow every suite that was used?
    pub suites: Verdict,
    /// Is the header certified by more than two thirds of all stake?
    pub certificate: Verdict,
    /// Is every entry here in the certified ledger, in this order?
    pub recorded: Verdict,
    /// Did the named authors sign, with devices that were theirs at that time?
    pub author: Verdict,
    /// Are the envelopes here the recorded ones?
    pub envelope: Verdict,
    /// Are the contents here what the authors committed to?
    pub content: Verdict,
    /// Is the ledger time of every entry in order?
    pub time: Verdict,
    /// Where did the keys live that signed the certificate?
    pub custody: Verdict,
    /// Is nothing missing from the first entry here up to the header?
    pub complete: Verdict,
}

impl Report {
    /// Every verdict under its stable name, in the order of a reader's interest.
    #[must_use]
    pub const fn verdicts(&self) -> [(&'static str, &Verdict); 9] {
        [
            ("recorded", &self.recorded),
            ("author", &self.author),
            ("envelope", &self.envelope),
            ("content", &self.content),
            ("time", &self.time),
            ("complete", &self.complete),
            ("certificate", &self.certificate),
            ("custody", &self.custody),
            ("suite", &self.suites),
        ]
    }

    /// Whether no verdict failed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.verdicts().iter().all(|(_, verdict)| !verdict.is_failed())
    }
}
