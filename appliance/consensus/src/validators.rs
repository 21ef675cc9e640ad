//! Who votes at a height, with which key and how much stake.

use crate::context::{Address, Context, PublicKey};
use std::sync::Arc;
use zixt_types::{ApplianceId, Height, Round, limits};

/// All stake together, at most: the thresholds multiply it by three.
pub const STAKE_TOTAL_MAX: u64 = u64::MAX / 4;

/// A validator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Validator {
    pub(crate) address: Address,
    pub(crate) key: PublicKey,
    pub(crate) stake: u64,
}

impl Validator {
    /// A validator with its public consensus key and its stake.
    #[must_use]
    pub fn new(appliance: ApplianceId, consensus_key: &[u8], stake: u64) -> Self {
        Self { address: Address(appliance), key: PublicKey(consensus_key.into()), stake }
    }

    /// The appliance.
    #[must_use]
    pub const fn appliance(&self) -> ApplianceId {
        self.address.0
    }

    /// Its voting power.
    #[must_use]
    pub const fn stake(&self) -> u64 {
        self.stake
    }
}

/// The validators of a height: at least one, each with stake, none twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidatorSet(Arc<Inner>);

#[derive(PartialEq, Eq, Debug)]
struct Inner {
    /// Most stake first, then by id: the same order on every appliance.
    validators: Vec<Validator>,
    total: u64,
}

/// Why a list of validators is no validator set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ValidatorSetError {
    /// Nobody would vote.
    #[error("the list of validators is empty")]
    Empty,
    /// More than [`limits::GENESIS_KEYS_MAX`].
    #[error("{0} validators; at most {max} are allowed", max = limits::GENESIS_KEYS_MAX)]
    TooMany(usize),
    /// A validator stands in it twice.
    #[error("validator {0} is listed twice")]
    Twice(ApplianceId),
    /// Two validators have the same key, so that one vote would count twice.
    #[error("validator {0} has the consensus key of another one")]
    SharedKey(ApplianceId),
    /// A validator without stake is none.
    #[error("validator {0} has no stake")]
    NoStake(ApplianceId),
    /// All stake together is more than [`STAKE_TOTAL_MAX`].
    #[error("all stake together is more than {STAKE_TOTAL_MAX}")]
    TooMuchStake,
}

impl ValidatorSet {
    /// Checks a list. Its order does not matter.
    ///
    /// # Errors
    /// [`ValidatorSetError`].
    pub fn new(mut validators: Vec<Validator>) -> Result<Self, ValidatorSetError> {
        if validators.is_empty() {
            return Err(ValidatorSetError::Empty);
        }
        if validators.len() > limits::GENESIS_KEYS_MAX {
            return Err(ValidatorSetError::TooMany(validators.len()));
        }
        validators.sort_by(|a, b| b.stake.cmp(&a.stake).then(a.address.cmp(&b.address)));
        let mut total = 0_u64;
        for (place, validator) in validators.iter().enumerate() {
            if validator.stake == 0 {
                return Err(ValidatorSetError::NoStake(validator.appliance()));
            }
            if validators[..place].iter().any(|other| other.address == validator.address) {
                return Err(ValidatorSetError::Twice(validator.appliance()));
            }
            if validators[..place].iter().any(|other| other.key == validator.key) {
                return Err(ValidatorSetError::SharedKey(validator.appliance()));
            }
            total = total
                .checked_add(validator.stake)
                .filter(|total| *total <= STAKE_TOTAL_MAX)
                .ok_or(ValidatorSetError::TooMuchStake)?;
        }
        Ok(Self(Arc::new(Inner { validators, total })))
    }

    /// The validators, most stake first.
    #[must_use]
    pub fn validators(&self) -> &[Validator] {
        &self.0.validators
    }

    /// All stake together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.total
    }

    /// A validator by its appliance.
    #[must_use]
    pub fn get(&self, appliance: &ApplianceId) -> Option<&Validator> {
        self.0.validators.iter().find(|validator| validator.address.0 == *appliance)
    }

    /// Whether the other set has the same appliances with the same stakes, whatever their keys.
    pub(crate) fn weighs_like(&self, other: &Self) -> bool {
        let weight = |validator: &Validator| (validator.address, validator.stake);
        self.0.validators.iter().map(weight).eq(other.0.validators.iter().map(weight))
    }

    /// Who proposes in a round. In round 0 it is drawn by stake, from the height alone, so that every appliance draws
    /// the same one. Each further round takes the next one in order of stake, so that after at most as many rounds as
    /// there are validators every one has had a turn, whoever is down. That the order can be foreseen is no loss: the
    /// protocol does not rely on surprise.
    #[must_use]
    pub fn proposer(&self, height: Height, round: Round) -> &Validator {
        let validators = &self.0.validators;
        let mut ticket = mix(height.0) % self.0.total;
        let drawn = validators.iter().position(|validator| {
            let drawn = ticket < validator.stake;
            ticket = ticket.saturating_sub(validator.stake);
            drawn
        });
        let place = drawn.unwrap_or(0) + usize::try_from(round.0).unwrap_or(0) % validators.len();
        &validators[place % validators.len()]
    }
}

/// Spreads heights evenly (the finaliser of SplitMix64). Not a cryptographic hash, and need not be one.
const fn mix(height: u64) -> u64 {
    let z = height.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

impl malachite_types::Validator<Context> for Validator {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn voting_power(&self) -> u64 {
        self.stake
    }
}

impl malachite_types::ValidatorSet<Context> for ValidatorSet {
    fn count(&self) -> usize {
        self.0.validators.len()
    }

    fn total_voting_power(&self) -> u64 {
        self.0.total
    }

    fn get_by_address(&self, address: &Address) -> Option<&Validator> {
        self.get(&address.0)
    }

    fn get_by_index(&self, index: usize) -> Option<&Validator> {
        self.0.validators.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(stakes: &[u64]) -> Result<ValidatorSet, ValidatorSetError> {
        let one = |(i, stake): (u8, &u64)| Validator::new(ApplianceId([i; 48]), &[i; 4], *stake);
        ValidatorSet::new((0..).zip(stakes).map(one).collect())
    }

    #[test]
    fn refuses_what_cannot_vote() {
        assert_eq!(set(&[]), Err(ValidatorSetError::Empty));
        assert_eq!(set(&[1, 0]), Err(ValidatorSetError::NoStake(ApplianceId([1; 48]))));
        assert_eq!(set(&[STAKE_TOTAL_MAX, 1]), Err(ValidatorSetError::TooMuchStake));
        assert_eq!(set(&[u64::MAX, u64::MAX]), Err(ValidatorSetError::TooMuchStake));
        assert_eq!(set(&[1; 129]), Err(ValidatorSetError::TooMany(129)));
        let id = ApplianceId([7; 48]);
        let twice = vec![Validator::new(id, b"a", 1), Validator::new(id, b"b", 1)];
        assert_eq!(ValidatorSet::new(twice), Err(ValidatorSetError::Twice(id)));
        let shared = vec![Validator::new(ApplianceId([6; 48]), b"a", 1), Validator::new(id, b"a", 1)];
        assert_eq!(ValidatorSet::new(shared), Err(ValidatorSetError::SharedKey(id)));
    }

    #[test]
    fn the_proposer_is_drawn_by_stake_and_every_one_has_a_turn() {
        let set = set(&[10, 5, 3, 2]).unwrap();
        let mut turns = [0_u32; 4];
        for height in 1..=20_000 {
            turns[usize::from(set.proposer(Height(height), Round(0)).appliance().0[0])] += 1;
            let mut others: Vec<_> =
                (0..4).map(|round| set.proposer(Height(height), Round(round)).appliance()).collect();
            others.sort_unstable();
            others.dedup();
            assert_eq!(others.len(), 4, "height {height}");
        }
        for (turns, stake) in turns.iter().zip([10, 5, 3, 2]) {
            assert!(turns.abs_diff(stake * 1000) < 300, "{turns} turns with stake {stake} of 20");
        }
    }
}
