//! Every violation that the client can find.

use thiserror::Error;
use zixt_crypto::VerifyError;
use zixt_ledger::certificate::CertificateError;
use zixt_ledger::evidence::ForkProof;
use zixt_ledger::map::MapProofError;
use zixt_ledger::tree::ProofError;
use zixt_ledger::{Refusal, SubmissionError, SystemFault};
use zixt_types::{AccountId, DeviceId, Hash, Height, Member, ParseError, Seq, SuiteId, ThreadId};

/// What the appliance, the validators or a member of a conversation did that cannot be true.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TrustError {
    /// Something is of another network.
    #[error("the {what} is of another network")]
    OtherGenesis {
        /// What.
        what: &'static str,
    },
    /// The keyring lacks a key that the genesis names.
    #[error("the key {0} that the genesis names is missing")]
    KeyMissing(Hash),
    /// Bytes are not what they should be.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// A header is not certified.
    #[error("the header of height {height} is not certified: {source}")]
    Certificate {
        /// The height.
        height: Height,
        /// The fault.
        #[source]
        source: CertificateError,
    },
    /// A header names validators to whom no decision of the officers leads.
    #[error("the header of height {0} names other validators than the officers' decisions lead to")]
    OtherValidators(Height),
    /// What the appliance shows of the officers' decisions does not stand.
    #[error("decision {seq} of the officers does not stand: {source}")]
    System {
        /// Its place in the system thread.
        seq: Seq,
        /// The fault.
        #[source]
        source: SystemFault,
    },
    /// The officers' decisions are not the ones that the ledger certifies.
    #[error("the officers' decisions that the appliance shows are not the ones in the ledger")]
    SystemHead,
    /// A header says of itself other things than what came with it.
    #[error("the header of height {0} is not the one announced")]
    OtherHeader(Height),
    /// A header follows another policy than the genesis.
    #[error("the header of height {0} names a policy that this network does not have")]
    Policy(Height),
    /// The ledger does not contain the invitation's checkpoint.
    #[error(
        "the ledger does not contain what the invitation says (height {0}): it is another ledger, or was set back"
    )]
    Checkpoint(Height),
    /// Two certified histories. There is a proof.
    #[error("the validators certified two different ledgers (height {}): the proof can be exported", .0.first.header.height)]
    Fork(Box<ForkProof>),
    /// A header is not in the past of a later one.
    #[error("the header of height {older} is not in the past of the one of height {newer}: {source}")]
    History {
        /// The older height.
        older: Height,
        /// The newer height.
        newer: Height,
        /// The fault.
        #[source]
        source: ProofError,
    },
    /// The ledger is shorter than it was.
    #[error("the appliance shows a ledger of height {got}, but this device has verified height {known}")]
    WentBack {
        /// What this device knows.
        known: Height,
        /// What the appliance shows.
        got: Height,
    },
    /// The ledger kept moving while it was compared.
    #[error("the appliance could not show that height {0} belongs to its ledger")]
    Unproven(Height),
    /// The proof of a shard was left out or is about something else.
    #[error("the proof is not about what was asked for")]
    OtherProof,
    /// A shard's state is not the one in the header.
    #[error("a shard's state is not the one in the header: {0}")]
    Shard(ProofError),
    /// A shard's tree does not continue the one seen before.
    #[error("shard {shard} lost or changed entries that were recorded: {source}")]
    ShardHistory {
        /// The shard.
        shard: u16,
        /// The fault.
        #[source]
        source: ProofError,
    },
    /// An entry is not in the ledger.
    #[error("entry {seq} is not in the ledger as the proof says: {source}")]
    NotRecorded {
        /// Its place.
        seq: Seq,
        /// The fault.
        #[source]
        source: ProofError,
    },
    /// An entry is not what it was announced as.
    #[error("entry {0} is not the one announced")]
    OtherEntry(Seq),
    /// A body was written for another thread.
    #[error("entry {seq} was signed for another thread ({got})")]
    OtherThread {
        /// Its place.
        seq: Seq,
        /// The thread in the body.
        got: ThreadId,
    },
    /// The policy does not allow the suite.
    #[error("entry {seq} uses suite {suite}, which this network does not allow")]
    Suite {
        /// Its place.
        seq: Seq,
        /// The suite.
        suite: SuiteId,
    },
    /// The author's account has no such device.
    #[error("entry {seq} names device {} of account {}, which the ledger does not know", .author.device, .author.account)]
    UnknownAuthor {
        /// Its place.
        seq: Seq,
        /// Who is said to have written it.
        author: Member,
    },
    /// The author could not write at that time.
    #[error("entry {seq}: device {} was not active at that time", .author.device)]
    AuthorInactive {
        /// Its place.
        seq: Seq,
        /// Who is said to have written it.
        author: Member,
    },
    /// An author's signature is not good.
    #[error("entry {seq} was not signed by its author: {source}")]
    Signature {
        /// Its place.
        seq: Seq,
        /// The fault.
        #[source]
        source: VerifyError,
    },
    /// A submission in an account's thread is not good.
    #[error("entry {seq}: {source}")]
    Submission {
        /// Its place.
        seq: Seq,
        /// The fault.
        #[source]
        source: SubmissionError,
    },
    /// The ledger time does not fit the header, or goes backwards.
    #[error("the ledger time of entry {0} does not fit")]
    Time(Seq),
    /// An entry does not continue the chain that this device has.
    #[error(
        "entry {0} does not continue the entry before it: an entry was dropped, changed or put in its place"
    )]
    BrokenChain(Seq),
    /// The appliance cannot show entries that have to exist.
    #[error("entries from {from} on are withheld; entry {upto} has been announced")]
    Withheld {
        /// The first that is missing.
        from: Seq,
        /// What was announced.
        upto: Seq,
    },
    /// What belongs to an entry is not any more what the entry names; the appliance says so itself.
    #[error("the appliance's copy of what belongs to entry {0} is damaged")]
    Damaged(Seq),
    /// An entry breaks the ledger's rules.
    #[error("entry {seq} breaks the ledger's rules: {source}")]
    Rules {
        /// Its place.
        seq: Seq,
        /// The fault.
        #[source]
        source: Refusal,
    },
    /// An author says that it saw another history of the thread. One of two lies, and nobody can tell which; the
    /// author's signature under it stays.
    #[error(
        "{name} (device {}) signed in entry {seq} that entry {seen} is another one than this device has verified: the \
         appliance shows the two of you different histories, or {name}'s client lies", .author.device
    )]
    OtherLastSeen {
        /// Its place.
        seq: Seq,
        /// What was seen.
        seen: Seq,
        /// Who says so.
        author: Member,
        /// The author's name.
        name: String,
    },
    /// An author says that it saw another ledger. As with [`TrustError::OtherLastSeen`], one of two lies, and nobody can
    /// tell which: what is certified twice is a [`TrustError::Fork`] and proves itself.
    #[error(
        "{name} (device {}) says in entry {seq} that the ledger's header of height {height} is another one than this \
         device has verified: the appliance shows the two of you different ledgers, or {name}'s client lies", .author.device
    )]
    SplitView {
        /// Its place.
        seq: Seq,
        /// The height.
        height: Height,
        /// Who says so.
        author: Member,
        /// The author's name.
        name: String,
    },
    /// What this device keeps of a conversation does not work with an entry of it.
    #[error("entry {seq} cannot be processed with what this device keeps of the conversation: {reason}")]
    Unusable {
        /// Its place.
        seq: Seq,
        /// Why.
        reason: String,
    },
    /// An account's thread does not end with its certified head.
    #[error("the account's entries do not lead to the head that the ledger certifies")]
    AccountHead(AccountId),
    /// The proof of a head is not good.
    #[error("head map: {0}")]
    MapProof(MapProofError),
    /// The account's thread does not continue what this device had verified.
    #[error("the account {0} has another past than this device has verified")]
    AccountHistory(AccountId),
    /// An enroller is not appointed.
    #[error("the account {0} was invited by somebody who is not appointed")]
    Enroller(AccountId),
    /// A name is not the one that the invitation recorded.
    #[error("the account {0} was invited under another name")]
    Name(AccountId),
    /// A receipt is not for what was handed in.
    #[error("the receipt is for something else than what was handed in")]
    Receipt,
    /// Somebody else added a device to this account.
    #[error("device {0} appeared in your account, and this device did not add it")]
    OwnDevice(DeviceId),
    /// The ledger has an entry of this device that it does not remember.
    #[error(
        "entry {0} is signed by this device, which does not remember it: its store was set back, or its keys are known \
         to somebody else"
    )]
    NotMine(Seq),
    /// A member's commit does not do what its entry says, so that nobody can follow it.
    #[error("the change of members or keys in entry {seq} does not hold: {reason}")]
    Commit {
        /// Its place.
        seq: Seq,
        /// Why.
        reason: String,
    },
    /// A key package that was given out for a device is not that device's.
    #[error(
        "the key package that the appliance gave out for device {} of account {} is not to be trusted: {reason}",
        .member.device, .member.account
    )]
    KeyPackage {
        /// The device.
        member: Member,
        /// Why.
        reason: String,
    },
    /// The appliance refused an entry, and the ledger that it has proven says otherwise.
    #[error(
        "the appliance refused an entry ({code}), but the history that it has proven says otherwise: {reason}"
    )]
    FalseRefusal {
        /// The code of the refusal.
        code: String,
        /// What the history says.
        reason: String,
    },
    /// What the validators certified does not hold, so that no auditor would accept it.
    #[error("the ledger's entries do not hold as evidence: {0}")]
    Evidence(String),
}

impl TrustError {
    /// A stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::OtherGenesis { .. } => "other-genesis",
            Self::KeyMissing(_) => "key-missing",
            Self::Malformed(_) => "malformed",
            Self::Certificate { .. } => "certificate",
            Self::OtherValidators(_) => "other-validators",
            Self::System { .. } => "system",
            Self::SystemHead => "system-head",
            Self::OtherHeader(_) => "other-header",
            Self::Policy(_) => "policy",
            Self::Checkpoint(_) => "checkpoint",
            Self::Fork(_) => "fork",
            Self::History { .. } => "history",
            Self::WentBack { .. } => "went-back",
            Self::Unproven(_) => "unproven",
            Self::OtherProof => "other-proof",
            Self::Shard(_) => "shard",
            Self::ShardHistory { .. } => "shard-history",
            Self::NotRecorded { .. } => "not-recorded",
            Self::OtherEntry(_) => "other-entry",
            Self::OtherThread { .. } => "other-thread",
            Self::Suite { .. } => "suite",
            Self::UnknownAuthor { .. } => "unknown-author",
            Self::AuthorInactive { .. } => "author-inactive",
            Self::Signature { .. } => "signature",
            Self::Submission { .. } => "submission",
            Self::Time(_) => "time",
            Self::BrokenChain(_) => "broken-chain",
            Self::Withheld { .. } => "withheld",
            Self::Damaged(_) => "damaged",
            Self::Rules { .. } => "rules",
            Self::OtherLastSeen { .. } => "other-last-seen",
            Self::SplitView { .. } => "split-view",
            Self::Unusable { .. } => "unusable",
            Self::AccountHead(_) => "account-head",
            Self::MapProof(_) => "map-proof",
            Self::AccountHistory(_) => "account-history",
            Self::Enroller(_) => "enroller",
            Self::Name(_) => "name",
            Self::Receipt => "receipt",
            Self::OwnDevice(_) => "own-device",
            Self::NotMine(_) => "not-mine",
            Self::Commit { .. } => "commit",
            Self::KeyPackage { .. } => "key-package",
            Self::FalseRefusal { .. } => "false-refusal",
            Self::Evidence(_) => "evidence",
        }
    }

    /// What to do, for people.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Fork(_) => {
                "Send nothing more. Export the proof and give it to an administrator and an auditor: it needs nobody's word."
            }
            Self::OwnDevice(_) => {
                "If you did not add it, somebody else did. Tell an administrator to revoke it at once."
            }
            Self::NotMine(_) => {
                "Never restore this device's store from a backup. Have the device revoked and enrol a new one."
            }
            Self::OtherLastSeen { .. } | Self::SplitView { .. } => {
                "The conversation goes on. Compare with that person over another channel, and tell an administrator. \
                 Evidence of the entry proves who signed it."
            }
            Self::Unusable { .. } => {
                "Nothing was lost on the appliance. Try `zixt recheck`; if it stays, start a new conversation and report it."
            }
            Self::Withheld { .. } => {
                "Tell an administrator. When the appliance shows them again, `zixt recheck` goes on from there."
            }
            Self::Damaged(_) => {
                "An administrator should run `zixt-admin fsck` and restore what it names. Then `zixt recheck` goes on."
            }
            Self::Commit { .. } => "Start a new conversation without whoever made that change.",
            Self::KeyPackage { .. } => {
                "Nothing was encrypted to it. The appliance put it there, or that device's client lies: tell an administrator."
            }
            Self::WentBack { .. } => {
                "The appliance may have been restored from an old backup. Tell an administrator; nothing was sent."
            }
            Self::Checkpoint(_) | Self::OtherGenesis { .. } => {
                "This is not the appliance of the invitation. Tell an administrator."
            }
            _ => "Do not rely on what this appliance says until an administrator has looked after it.",
        }
    }

    /// Whether the conversation in which it was found has to stop. Nothing that any member can say alone may end a
    /// conversation: a claim about what its author saw, or a key package of who was to be added.
    #[must_use]
    pub const fn stops_its_conversation(&self) -> bool {
        !matches!(self, Self::KeyPackage { .. } | Self::OtherLastSeen { .. } | Self::SplitView { .. })
    }

    /// The member on whose word it rests.
    #[must_use]
    pub const fn author(&self) -> Option<Member> {
        match self {
            Self::OtherLastSeen { author, .. } | Self::SplitView { author, .. } => Some(*author),
            _ => None,
        }
    }

    /// What stays the same while it is found again and again, if its text does not: the appliance's ledger grows, and what
    /// it announces.
    #[must_use]
    pub fn repeats(&self) -> Option<String> {
        match self {
            Self::WentBack { known, .. } => Some(known.to_string()),
            Self::Withheld { from, .. } => Some(from.to_string()),
            Self::History { older, .. } => Some(older.to_string()),
            _ => None,
        }
    }

    /// Whether it concerns the whole ledger, not one conversation.
    #[must_use]
    pub const fn is_ledger_wide(&self) -> bool {
        matches!(
            self,
            Self::OtherGenesis { .. }
                | Self::KeyMissing(_)
                | Self::Certificate { .. }
                | Self::OtherValidators(_)
                | Self::System { .. }
                | Self::SystemHead
                | Self::OtherHeader(_)
                | Self::Policy(_)
                | Self::Checkpoint(_)
                | Self::Fork(_)
                | Self::History { .. }
                | Self::WentBack { .. }
                | Self::Unproven(_)
                | Self::ShardHistory { .. }
                | Self::OwnDevice(_)
        )
    }
}
