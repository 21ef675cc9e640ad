//! The M-of-N rule: one pass over a transcript, which refuses it as a whole for one bad approval.

use std::collections::BTreeMap;
use thiserror::Error;
use zixt_crypto::{Backend, SignError, SigningKey, VerifyError, cose, digest, labels};
use zixt_types::{
    Action, ApplianceId, Approval, Canonical as _, Genesis, Hash, ParseError, Timestamp, Transcript, limits,
};

/// Who may approve, and how many of them have to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficerRule {
    /// Hashes of the officers' approval keys.
    pub officers: Vec<Hash>,
    /// How many of them a decision needs.
    pub required: u8,
}

impl OfficerRule {
    /// The rule of a genesis.
    #[must_use]
    pub fn of(genesis: &Genesis) -> Self {
        Self {
            officers: genesis.officers.iter().map(|officer| officer.key).collect(),
            required: genesis.officers_required,
        }
    }

    fn check(&self) -> Result<(), CeremonyError> {
        let mut officers = self.officers.clone();
        officers.sort_unstable();
        officers.dedup();
        if officers.len() != self.officers.len() || officers.len() > limits::GENESIS_KEYS_MAX {
            return Err(CeremonyError::Rule("it names an officer twice, or too many"));
        }
        if self.required == 0 || usize::from(self.required) > officers.len() {
            return Err(CeremonyError::Rule("it needs no officer, or more than there are"));
        }
        Ok(())
    }
}

/// Why an action is not approved.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CeremonyError {
    /// The bytes are no transcript, or no action is in it.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The rule itself contradicts itself: a fault of the caller's state, not of the transcript.
    #[error("the officers' rule is invalid: {0}")]
    Rule(&'static str),
    /// The action is for another network.
    #[error("the action is for network {got}, and this is {expected}")]
    OtherNetwork {
        /// This network.
        expected: Hash,
        /// The action's network.
        got: Hash,
    },
    /// Somebody signed who is no officer of this network.
    #[error("key {key} approved, and is no officer's of this network")]
    NotAnOfficer {
        /// Hash of the key.
        key: Hash,
    },
    /// An officer approved twice. One officer counts once.
    #[error("officer {key} approved twice; leave one of the two out")]
    Repeated {
        /// Hash of the officer's key.
        key: Hash,
    },
    /// The approvals are not in the one order that a transcript has.
    #[error("the approvals are not sorted by officer; collect them again")]
    OutOfOrder,
    /// A signature is not the officer's over this action.
    #[error("the approval of officer {key} is not for this action, or was altered: {source}")]
    BadSignature {
        /// Hash of the officer's key.
        key: Hash,
        /// The fault.
        #[source]
        source: VerifyError,
    },
    /// Not enough officers.
    #[error("{got} of the {required} officers required approved")]
    TooFew {
        /// Good approvals.
        got: usize,
        /// Approvals that the rule asks for.
        required: u8,
    },
    /// The action is for another appliance.
    #[error("the action is for appliance {got}, and this is {expected}")]
    OtherAppliance {
        /// This appliance.
        expected: ApplianceId,
        /// The action's appliance.
        got: ApplianceId,
    },
    /// The action was made for another state of the appliance, or was already carried out.
    #[error(
        "the action is decision number {got}, and the appliance is at number {expected}; propose it again"
    )]
    OtherSequence {
        /// The appliance's number.
        expected: u64,
        /// The action's number.
        got: u64,
    },
    /// Too late.
    #[error("the action expired at {}, and the clock here says {}; propose it again", expires_at.utc(), now.utc())]
    Expired {
        /// The action's end.
        expires_at: Timestamp,
        /// The clock of who asked.
        now: Timestamp,
    },
}

/// An action that enough officers approved. Only [`judge`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    action: Action,
    officers: Vec<Hash>,
}

impl Approved {
    /// What they approved.
    #[must_use]
    pub const fn action(&self) -> &Action {
        &self.action
    }

    /// Who approved it, ascending.
    #[must_use]
    pub fn officers(&self) -> &[Hash] {
        &self.officers
    }

    /// Whether it is due here and now. Who carries it out asks this first; who reads it later in the ledger does not.
    ///
    /// # Errors
    /// [`CeremonyError::OtherAppliance`], [`CeremonyError::OtherSequence`], [`CeremonyError::Expired`].
    pub fn check_due(
        &self,
        appliance: ApplianceId,
        sequence: u64,
        now: Timestamp,
    ) -> Result<(), CeremonyError> {
        if self.action.appliance != appliance {
            return Err(CeremonyError::OtherAppliance { expected: appliance, got: self.action.appliance });
        }
        if self.action.sequence != sequence {
            return Err(CeremonyError::OtherSequence { expected: sequence, got: self.action.sequence });
        }
        if now > self.action.expires_at {
            return Err(CeremonyError::Expired { expires_at: self.action.expires_at, now });
        }
        Ok(())
    }
}

/// Whether enough officers of the network approved the action of a transcript. Nothing is ignored: one unknown key, one
/// repeat or one bad signature refuses the whole, so that nobody has to ask which part was good.
///
/// # Errors
/// See [`CeremonyError`]; those of [`Approved::check_due`] are asked apart.
pub fn judge(
    transcript: &[u8],
    rule: &OfficerRule,
    genesis: Hash,
    backend: &dyn Backend,
) -> Result<Approved, CeremonyError> {
    rule.check()?;
    let transcript = Transcript::parse(transcript)?;
    let action = Action::parse(&transcript.action)?;
    if action.genesis != genesis {
        return Err(CeremonyError::OtherNetwork { expected: genesis, got: action.genesis });
    }
    let mut officers: Vec<Hash> = Vec::with_capacity(transcript.approvals.len());
    for approval in &transcript.approvals {
        let key = officer(approval);
        if let Some(last) = officers.last() {
            if officers.contains(&key) {
                return Err(CeremonyError::Repeated { key });
            }
            if key < *last {
                return Err(CeremonyError::OutOfOrder);
            }
        }
        if !rule.officers.contains(&key) {
            return Err(CeremonyError::NotAnOfficer { key });
        }
        check_signature(&transcript.action, approval, backend)?;
        officers.push(key);
    }
    if officers.len() < usize::from(rule.required) {
        return Err(CeremonyError::TooFew { got: officers.len(), required: rule.required });
    }
    Ok(Approved { action, officers })
}

/// Signs an action's exact bytes as officer. Whoever calls this has shown the action to the officer.
///
/// # Errors
/// [`SignError`], as [`SigningKey::sign`].
pub fn approve(action: &[u8], key: &dyn SigningKey) -> Result<Approval, SignError> {
    Ok(Approval {
        suite: key.suite(),
        public_key: key.public_key().to_vec(),
        signature: cose::sign(key, labels::OFFICER_APPROVAL, action)?,
    })
}

/// Puts approvals of one action into the one order of a transcript. Checks every signature; whether the signers are
/// officers, and enough of them, is [`judge`]'s.
///
/// # Errors
/// [`CeremonyError::Parse`], [`CeremonyError::Repeated`], [`CeremonyError::BadSignature`].
pub fn assemble(
    action: &[u8],
    approvals: Vec<Approval>,
    backend: &dyn Backend,
) -> Result<Transcript, CeremonyError> {
    Action::parse(action)?;
    let mut sorted = BTreeMap::new();
    for approval in approvals {
        check_signature(action, &approval, backend)?;
        let key = officer(&approval);
        if sorted.insert(key, approval).is_some() {
            return Err(CeremonyError::Repeated { key });
        }
    }
    let transcript = Transcript {
        version: Transcript::VERSION,
        action: action.to_vec(),
        approvals: sorted.into_values().collect(),
    };
    transcript.check().map_err(|why| ParseError::Invalid { what: Transcript::WHAT, why })?;
    Ok(transcript)
}

/// The officer that an approval claims to be of.
fn officer(approval: &Approval) -> Hash {
    digest::key_hash(approval.suite, &approval.public_key)
}

fn check_signature(action: &[u8], approval: &Approval, backend: &dyn Backend) -> Result<(), CeremonyError> {
    cose::verify(
        backend,
        approval.suite,
        &approval.public_key,
        labels::OFFICER_APPROVAL,
        action,
        &approval.signature,
    )
    .map_err(|source| CeremonyError::BadSignature { key: officer(approval), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zixt_crypto::{Reference, SigningSeed};
    use zixt_types::{Decision, SuiteId};

    const GENESIS: Hash = Hash([7; 48]);

    fn key(number: u8) -> Box<dyn SigningKey> {
        let suite = if number.is_multiple_of(2) { SuiteId::Standard } else { SuiteId::Cnsa };
        Reference.signing_key(suite, &SigningSeed::from_bytes(&[number; 32])).unwrap()
    }

    fn hash(number: u8) -> Hash {
        let key = key(number);
        digest::key_hash(key.suite(), key.public_key())
    }

    fn action() -> Action {
        Action {
            version: 1,
            genesis: GENESIS,
            appliance: ApplianceId([8; 48]),
            sequence: 5,
            expires_at: Timestamp(1000),
            decision: Decision::RotateRoot,
        }
    }

    fn rule(officers: &[u8], required: u8) -> OfficerRule {
        OfficerRule { officers: officers.iter().map(|n| hash(*n)).collect(), required }
    }

    fn approvals(action: &[u8], officers: &[u8]) -> Vec<Approval> {
        officers.iter().map(|n| approve(action, &*key(*n)).unwrap()).collect()
    }

    fn transcript(action: &Action, officers: &[u8]) -> Transcript {
        let bytes = action.to_bytes();
        assemble(&bytes, approvals(&bytes, officers), &Reference).unwrap()
    }

    fn judged(transcript: &Transcript, rule: &OfficerRule) -> Result<Approved, CeremonyError> {
        judge(&transcript.to_bytes(), rule, GENESIS, &Reference)
    }

    #[test]
    fn enough_officers_approve() {
        let rule = rule(&[1, 2, 3], 2);
        let approved = judged(&transcript(&action(), &[3, 1]), &rule).unwrap();
        assert_eq!(approved.action(), &action());
        let mut both = [hash(1), hash(3)];
        both.sort();
        assert_eq!(approved.officers(), both);
        assert!(judged(&transcript(&action(), &[1, 2, 3]), &rule).is_ok());
        let few = judged(&transcript(&action(), &[2]), &rule);
        assert_eq!(few, Err(CeremonyError::TooFew { got: 1, required: 2 }));
    }

    #[test]
    fn one_bad_approval_refuses_all() {
        let rule = rule(&[1, 2, 3], 2);
        let stranger = judged(&transcript(&action(), &[1, 2, 4]), &rule);
        assert_eq!(stranger, Err(CeremonyError::NotAnOfficer { key: hash(4) }));

        let good = transcript(&action(), &[1, 2, 3]);
        let mut twice = good.clone();
        twice.approvals[1] = twice.approvals[0].clone();
        assert!(matches!(judged(&twice, &rule), Err(CeremonyError::Repeated { .. })));
        let mut twice = good.clone();
        twice.approvals[2] = twice.approvals[0].clone();
        assert!(matches!(judged(&twice, &rule), Err(CeremonyError::Repeated { .. })));

        let mut swapped = good.clone();
        swapped.approvals.swap(0, 2);
        assert_eq!(judged(&swapped, &rule), Err(CeremonyError::OutOfOrder));

        let mut other = good.clone();
        other.action = Action { sequence: 6, ..action() }.to_bytes();
        assert!(matches!(judged(&other, &rule), Err(CeremonyError::BadSignature { .. })));
    }

    #[test]
    fn an_approval_is_for_one_network() {
        let rule = rule(&[1, 2, 3], 2);
        let elsewhere = transcript(&Action { genesis: Hash([9; 48]), ..action() }, &[1, 2]);
        assert_eq!(
            judged(&elsewhere, &rule),
            Err(CeremonyError::OtherNetwork { expected: GENESIS, got: Hash([9; 48]) })
        );
    }

    #[test]
    fn a_signature_for_another_purpose_approves_nothing() {
        let bytes = action().to_bytes();
        let mut approvals = approvals(&bytes, &[1, 2]);
        let key = key(2);
        approvals[1].signature = cose::sign(&*key, labels::BODY, &bytes).unwrap();
        assert!(matches!(assemble(&bytes, approvals, &Reference), Err(CeremonyError::BadSignature { .. })));
    }

    #[test]
    fn a_rule_that_contradicts_itself_approves_nothing() {
        let transcript = transcript(&action(), &[1, 2]);
        for bad in [rule(&[1, 2], 0), rule(&[1, 2], 3), rule(&[1, 1, 2], 2), rule(&[], 0)] {
            assert!(matches!(judged(&transcript, &bad), Err(CeremonyError::Rule(_))));
        }
    }

    #[test]
    fn an_approved_action_is_due_once_and_here() {
        let approved = judged(&transcript(&action(), &[1, 2]), &rule(&[1, 2], 2)).unwrap();
        let here = action().appliance;
        assert_eq!(approved.check_due(here, 5, Timestamp(1000)), Ok(()));
        assert!(matches!(
            approved.check_due(ApplianceId([1; 48]), 5, Timestamp(0)),
            Err(CeremonyError::OtherAppliance { .. })
        ));
        assert_eq!(
            approved.check_due(here, 6, Timestamp(0)),
            Err(CeremonyError::OtherSequence { expected: 6, got: 5 })
        );
        assert!(matches!(approved.check_due(here, 5, Timestamp(1001)), Err(CeremonyError::Expired { .. })));
    }

    #[test]
    fn collecting_names_a_repeat() {
        let bytes = action().to_bytes();
        let twice = approvals(&bytes, &[1, 2, 1]);
        assert_eq!(assemble(&bytes, twice, &Reference), Err(CeremonyError::Repeated { key: hash(1) }));
        assert!(matches!(assemble(&bytes, vec![], &Reference), Err(CeremonyError::Parse(_))));
        assert!(matches!(assemble(b"\x80", vec![], &Reference), Err(CeremonyError::Parse(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_changed_byte_is_refused(at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = transcript(&action(), &[1, 2]).to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(judge(&bytes, &rule(&[1, 2], 2), GENESIS, &Reference).is_err());
        }
    }
}
