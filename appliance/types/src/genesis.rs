//! The genesis: what a network is. Its hash names the network in every signed object. Keys stand in it as hashes;
//! the keys themselves travel beside it and are checked against it.

use crate::{ApplianceId, Canonical, Hash, SuiteId, Timestamp, limits};
use minicbor::{Decode, Encode};
use std::collections::BTreeSet;

/// Where a private key lives and signs. Always told truthfully.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum CustodyMode {
    /// Mode 1: the token itself signs; the key never leaves it.
    #[n(1)]
    Token,
    /// Mode 2: the seed is wrapped by a non-extractable key in a PKCS#11 token and used in locked memory.
    #[n(2)]
    WrappedByToken,
    /// Mode 2: the seed is sealed in a TPM 2.0 and used in locked memory.
    #[n(3)]
    SealedByTpm,
    /// Mode 3: software only. Refused unless the genesis says lab.
    #[n(4)]
    Software,
}

impl CustodyMode {
    /// The words that people read, in the console and in evidence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Token => "signs inside the HSM",
            Self::WrappedByToken => "seed wrapped by the HSM, used in locked memory",
            Self::SealedByTpm => "seed sealed by the TPM, used in locked memory",
            Self::Software => "software only (lab)",
        }
    }
}

/// How the appliance gets its keys after a power-on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum UnlockMode {
    /// A person enters the PIN at the console after each power-on.
    #[n(0)]
    Attended,
    /// The appliance unlocks itself: whoever steals it switched off and switches it on has a running appliance.
    #[n(1)]
    Unattended,
}

/// A security officer.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Officer {
    /// The officer's name as the ceremony shows it.
    #[n(0)]
    pub name: String,
    /// Hash of the officer's approval key.
    #[n(1)]
    pub key: Hash,
}

/// A validator: an appliance with stake.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Validator {
    /// The appliance: the hash of its identity key.
    #[n(0)]
    pub appliance: ApplianceId,
    /// Hash of its consensus key.
    #[n(1)]
    pub consensus: Hash,
    /// Hash of its TLS key: what a client pins.
    #[n(2)]
    pub tls: Hash,
    /// Its voting power.
    #[n(3)]
    pub stake: u64,
    /// Where its consensus key lives.
    #[n(4)]
    pub custody: CustodyMode,
}

/// When clients have to rotate a conversation's keys by a commit. A removal rotates at once in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct RotationPolicy {
    /// After this many messages of one epoch.
    #[n(0)]
    pub messages_max: u32,
    /// When an epoch is this old, in milliseconds.
    #[n(1)]
    pub age_ms_max: u64,
}

/// What a network is. Immutable; its labelled hash names the network.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Genesis {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// Suites that policy allows; the first is the one for new keys.
    #[n(1)]
    pub suites: Vec<SuiteId>,
    /// The network's name as people read it.
    #[n(2)]
    pub network: String,
    /// Hash of the organisation's key.
    #[n(3)]
    pub organisation: Hash,
    /// The security officers.
    #[n(4)]
    pub officers: Vec<Officer>,
    /// How many of them have to approve (M of N).
    #[n(5)]
    pub officers_required: u8,
    /// Hashes of the enrollers' keys.
    #[n(6)]
    pub enrollers: Vec<Hash>,
    /// The first validator set, ascending by appliance.
    #[n(7)]
    pub validators: Vec<Validator>,
    /// Number of shards, for ever.
    #[n(8)]
    pub shard_count: u16,
    /// How the appliances unlock.
    #[n(9)]
    pub unlock: UnlockMode,
    /// A lab network: not for production. Everything that shows the network says so.
    #[n(10)]
    pub lab: bool,
    /// When conversations rotate their keys.
    #[n(11)]
    pub rotation: RotationPolicy,
    /// When it was made, by the clock of the ceremony.
    #[n(12)]
    pub created_at: Timestamp,
    /// Random: two networks never share a genesis.
    #[cbor(n(13), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
}

impl Genesis {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// The suite for new keys.
    #[must_use]
    pub fn suite(&self) -> SuiteId {
        // `check` refuses an empty list.
        self.suites.first().copied().unwrap_or(SuiteId::Standard)
    }

    /// The stake of all validators together; `check` refuses a sum that overflows.
    #[must_use]
    pub fn stake_total(&self) -> u64 {
        self.validators.iter().fold(0, |sum, validator| sum.saturating_add(validator.stake))
    }
}

fn repeats<'a, T, K: Ord>(items: &'a [T], key: impl Fn(&'a T) -> K) -> bool {
    let mut seen = BTreeSet::new();
    !items.iter().all(|item| seen.insert(key(item)))
}

impl Canonical for Genesis {
    const WHAT: &'static str = "genesis";
    const BYTES_MAX: usize = limits::GENESIS_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.suites.is_empty() || repeats(&self.suites, |suite| *suite) {
            return Err("it allows no suite or names one twice");
        }
        if self.network.is_empty() || self.network.len() > limits::NAME_BYTES_MAX {
            return Err("the network's name is empty or too long");
        }
        let too_many = |count: usize| count == 0 || count > limits::GENESIS_KEYS_MAX;
        if too_many(self.officers.len()) || too_many(self.enrollers.len()) || too_many(self.validators.len())
        {
            return Err("it needs at least one officer, enroller and validator, and at most 128 of each");
        }
        if self.officers.iter().any(|o| o.name.is_empty() || o.name.len() > limits::NAME_BYTES_MAX) {
            return Err("an officer's name is empty or too long");
        }
        // An officer who counts twice would make M of N less than it says.
        if repeats(&self.officers, |officer| officer.key) {
            return Err("two officers have the same key");
        }
        if repeats(&self.officers, |officer| &officer.name) {
            return Err("two officers have the same name");
        }
        if repeats(&self.enrollers, |enroller| *enroller) {
            return Err("it names an enroller twice");
        }
        if self.officers_required == 0 || usize::from(self.officers_required) > self.officers.len() {
            return Err("the officers required are none or more than there are");
        }
        if !self.validators.windows(2).all(|pair| pair[0].appliance < pair[1].appliance) {
            return Err("the validators are not sorted or repeat an appliance");
        }
        if repeats(&self.validators, |validator| validator.consensus) {
            return Err("two validators have the same consensus key");
        }
        if repeats(&self.validators, |validator| validator.tls) {
            return Err("two validators have the same TLS key");
        }
        if self.validators.iter().any(|validator| validator.stake == 0) {
            return Err("a validator has no stake");
        }
        let sum = self.validators.iter().try_fold(0u64, |sum, validator| sum.checked_add(validator.stake));
        // Three times the sum must not overflow in the two-thirds comparison.
        if sum.and_then(|sum| sum.checked_mul(3)).is_none() {
            return Err("the stake is too large to count");
        }
        if !self.lab && self.validators.iter().any(|v| v.custody == CustodyMode::Software) {
            return Err("a software key is allowed in a lab only");
        }
        if self.shard_count == 0 || self.shard_count > limits::SHARDS_MAX {
            return Err("the shard count is 0 or too large");
        }
        if self.created_at.0 > limits::CLOCK_MS_MAX {
            return Err("it was made after the year 2198");
        }
        if self.rotation.messages_max == 0 || self.rotation.age_ms_max == 0 {
            return Err("the rotation policy would rotate on every message");
        }
        Ok(())
    }
}
