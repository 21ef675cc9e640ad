//! Whether a token can do an algorithm: its list of mechanisms says what it claims, a known key shows what it does.

use super::kem::{decapsulate, sized};
use super::signer::{BACKEND, sign};
use super::{Algorithm, NativeError, objects};
use crate::error::TokenError;
use crate::sessions::Sessions;
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::dsa::HedgeType;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zixt_crypto::selftest::{self, Test};
use zixt_crypto::{
    Backend, Ciphertext, DecapsulateError, DecapsulationKey, EncapsulateError, KemSeed, KeyError, Reference,
    SharedSecret, SignError, SigningKey, SigningSeed, SuiteId, VerifyError,
};

/// The answers for one token that is open, each found once.
#[derive(Debug, Default)]
pub(crate) struct Support(Mutex<HashMap<Algorithm, Answer>>);

#[derive(Debug, Clone)]
enum Answer {
    /// It works, and signs like this.
    Yes(HedgeType),
    No(String),
}

impl Support {
    /// How the token signs, or why it is of no use.
    pub(super) fn of(&self, sessions: &Sessions, algorithm: Algorithm) -> Result<HedgeType, NativeError> {
        let known = lock(&self.0).get(&algorithm).cloned();
        let answer = match known {
            Some(answer) => answer,
            None => {
                // A token that failed or went away has given no answer.
                let found = examine(sessions, algorithm)?;
                if let Answer::Yes(HedgeType::Preferred) = found
                    && algorithm != Algorithm::MlKem1024
                {
                    log::warn!("the token does not promise fresh randomness in {algorithm} signatures");
                }
                lock(&self.0).insert(algorithm, found.clone());
                found
            }
        };
        match answer {
            Answer::Yes(hedge) => Ok(hedge),
            Answer::No(why) => Err(NativeError::Unsupported { algorithm, why }),
        }
    }
}

fn examine(sessions: &Sessions, algorithm: Algorithm) -> Result<Answer, TokenError> {
    if let Some(missing) = missing_mechanism(sessions, algorithm)? {
        return Ok(Answer::No(missing));
    }
    let imported = sessions.lend(|session| judged(imported(session, algorithm)))?;
    match imported {
        Some(answer) => Ok(answer),
        None => {
            let made = sessions.lend(|session| judged(generated(session, algorithm)))?;
            made.ok_or_else(|| TokenError::Failed("it gave no answer".to_owned()))
        }
    }
}

/// What a trial shows, or nothing if the token did not take the key that it was to try.
fn judged((trial, works): (Trial, bool)) -> Result<Option<Answer>, TokenError> {
    let mut state = trial.state();
    match (works, state.error.take()) {
        (true, _) => Ok(Some(Answer::Yes(state.hedge))),
        (false, _) if state.import_refused => Ok(None),
        (false, None) => Ok(Some(Answer::No("it answers, and the answers are wrong".to_owned()))),
        (false, Some(error)) if for_good(&error) => Ok(Some(Answer::No(error.to_string()))),
        (false, Some(error)) => Err(TokenError::of(&error)),
    }
}

/// Known answers with published keys.
fn imported(session: Session, algorithm: Algorithm) -> (Trial, bool) {
    let trial = Trial::new(session);
    let tests: &[Test] = match algorithm {
        // Signatures are randomised: the reference implementation judges them, with the public key that it derives
        // from the seed itself.
        Algorithm::MlDsa(suite) => &[Test::MlDsaSign(suite)],
        Algorithm::MlKem1024 => &[Test::MlKemDecapsulate, Test::MlKemImplicitRejection],
    };
    let works = selftest::run_some(&trial, tests).is_ok();
    (trial, works)
}

/// For a token that takes no key from outside, not even one of a session: a pair of its own, judged by the reference.
fn generated(session: Session, algorithm: Algorithm) -> (Trial, bool) {
    let trial = Trial::new(session);
    let made = objects::generate_for_session(&trial.state().session, algorithm);
    let works = match made {
        Err(error) => {
            trial.state().error = Some(error);
            false
        }
        Ok((handle, public_key)) => match algorithm {
            Algorithm::MlDsa(suite) => {
                selftest::pairwise_check(&trial.signing(suite, handle, public_key)).is_ok()
            }
            Algorithm::MlKem1024 => {
                selftest::pairwise_check_kem(&trial.decapsulating(handle, public_key)).is_ok()
            }
        },
    };
    (trial, works)
}

/// What the token does not claim to do.
fn missing_mechanism(sessions: &Sessions, algorithm: Algorithm) -> Result<Option<String>, TokenError> {
    let failed = |error: Error| TokenError::of(&error);
    let (generation, work) =
        (objects::generation(algorithm).mechanism_type(), objects::mechanism_type(algorithm));
    let offered = sessions.pkcs11.get_mechanism_list(sessions.slot).map_err(failed)?;
    for wanted in [generation, work] {
        if !offered.contains(&wanted) {
            return Ok(Some(format!("it does not offer {wanted}")));
        }
        let info = sessions.pkcs11.get_mechanism_info(sessions.slot, wanted).map_err(failed)?;
        let (min, max) = (info.min_key_size(), info.max_key_size());
        if !size_fits(min, max, algorithm) {
            return Ok(Some(format!("it offers {wanted} from {min} to {max} only")));
        }
        let does = match algorithm {
            _ if wanted == generation => info.generate_key_pair(),
            Algorithm::MlDsa(_) => info.sign(),
            Algorithm::MlKem1024 => info.decapsulate(),
        };
        if !does {
            return Ok(Some(format!("it offers {wanted}, but not for this use")));
        }
    }
    if algorithm == Algorithm::MlKem1024 && !sessions.pkcs11.is_fn_supported(Function::DecapsulateKey) {
        return Ok(Some("it has no C_DecapsulateKey".to_owned()));
    }
    Ok(None)
}

/// Sizes are those of public keys in bytes; some tokens count bits or name parameter sets, and some say nothing (0). What
/// fits none of these readings is refused; what fits one is tried.
fn size_fits(min: usize, max: usize, algorithm: Algorithm) -> bool {
    let bytes = algorithm.public_key_bytes();
    let parameter_set = match algorithm {
        Algorithm::MlDsa(SuiteId::Standard) => 2,
        Algorithm::MlDsa(SuiteId::Cnsa) | Algorithm::MlKem1024 => 3,
    };
    max == 0 || [bytes, 8 * bytes, parameter_set].iter().any(|size| (min..=max).contains(size))
}

/// Whether asking again would give the same answer.
fn for_good(error: &Error) -> bool {
    match error {
        Error::NullFunctionPointer | Error::NotSupported | Error::InvalidValue => true,
        Error::Pkcs11(rv, _) => matches!(
            rv,
            RvError::ActionProhibited
                | RvError::ArgumentsBad
                | RvError::AttributeReadOnly
                | RvError::AttributeTypeInvalid
                | RvError::AttributeValueInvalid
                | RvError::FunctionNotSupported
                | RvError::FunctionRejected
                | RvError::KeyFunctionNotPermitted
                | RvError::KeySizeRange
                | RvError::KeyTypeInconsistent
                | RvError::MechanismInvalid
                | RvError::MechanismParamInvalid
                | RvError::TemplateIncomplete
                | RvError::TemplateInconsistent
                // CKR_PARAMETER_SET_NOT_SUPPORTED among them, which the crate does not know.
                | RvError::UnknownErrorCode(_)
        ),
        _ => false,
    }
}

/// The token as a backend whose keys are objects of one session. It exists for the self-tests alone.
struct Trial(Arc<Mutex<State>>);

struct State {
    session: Session,
    hedge: HedgeType,
    import_refused: bool,
    /// What the token said last, which the backend's errors have no room for.
    error: Option<Error>,
}

impl Trial {
    fn new(session: Session) -> Self {
        let state = State { session, hedge: HedgeType::Required, import_refused: false, error: None };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn import(&self, algorithm: Algorithm, seed: &[u8]) -> Result<ObjectHandle, KeyError> {
        let mut state = self.state();
        let made = objects::import_private(&state.session, algorithm, None, seed);
        made.map_err(|error| {
            state.import_refused = for_good(&error);
            state.error = Some(error);
            KeyError::Backend { backend: BACKEND }
        })
    }

    fn signing(&self, suite: SuiteId, handle: ObjectHandle, public_key: Vec<u8>) -> TrialSigner {
        TrialSigner { state: self.0.clone(), handle, suite, public_key }
    }

    fn decapsulating(&self, handle: ObjectHandle, encapsulation_key: Vec<u8>) -> TrialDecapsulator {
        TrialDecapsulator { state: self.0.clone(), handle, encapsulation_key }
    }
}

impl Backend for Trial {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn verify(
        &self,
        suite: SuiteId,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        Reference.verify(suite, key, message, signature)
    }

    fn signing_key(&self, suite: SuiteId, seed: &SigningSeed) -> Result<Box<dyn SigningKey>, KeyError> {
        let handle = self.import(Algorithm::MlDsa(suite), seed.as_bytes())?;
        let public_key = Reference.signing_key(suite, seed)?.public_key().to_vec();
        Ok(Box::new(self.signing(suite, handle, public_key)))
    }

    fn decapsulation_key(&self, seed: &KemSeed) -> Result<Box<dyn DecapsulationKey>, KeyError> {
        let handle = self.import(Algorithm::MlKem1024, seed.as_bytes())?;
        let encapsulation_key = Reference.decapsulation_key(seed)?.encapsulation_key().to_vec();
        Ok(Box::new(self.decapsulating(handle, encapsulation_key)))
    }

    fn validate_encapsulation_key(&self, encapsulation_key: &[u8]) -> Result<(), KeyError> {
        Reference.validate_encapsulation_key(encapsulation_key)
    }

    fn encapsulate(&self, encapsulation_key: &[u8]) -> Result<(Ciphertext, SharedSecret), EncapsulateError> {
        Reference.encapsulate(encapsulation_key)
    }
}

struct TrialSigner {
    state: Arc<Mutex<State>>,
    handle: ObjectHandle,
    suite: SuiteId,
    public_key: Vec<u8>,
}

impl SigningKey for TrialSigner {
    fn suite(&self) -> SuiteId {
        self.suite
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut state = lock(&self.state);
        let mut signed = sign(&state.session, self.handle, state.hedge, message);
        if signed.as_ref().is_err_and(for_good) {
            // A token may not know the choice, or not have it.
            state.hedge = HedgeType::Preferred;
            signed = sign(&state.session, self.handle, state.hedge, message);
        }
        signed.map_err(|error| {
            state.error = Some(error);
            SignError::Backend { backend: BACKEND }
        })
    }
}

struct TrialDecapsulator {
    state: Arc<Mutex<State>>,
    handle: ObjectHandle,
    encapsulation_key: Vec<u8>,
}

impl DecapsulationKey for TrialDecapsulator {
    fn encapsulation_key(&self) -> &[u8] {
        &self.encapsulation_key
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, DecapsulateError> {
        let ciphertext = sized(ciphertext)?;
        let mut state = lock(&self.state);
        let failed = DecapsulateError::Backend { backend: BACKEND };
        match decapsulate(&state.session, self.handle, ciphertext) {
            Ok(secret) => SharedSecret::from_slice(&secret).map_err(|_| failed),
            Err(error) => {
                state.error = Some(error);
                Err(failed)
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_way_that_tokens_have() {
        let standard = Algorithm::MlDsa(SuiteId::Standard);
        let cnsa = Algorithm::MlDsa(SuiteId::Cnsa);
        for (min, max) in [(1312, 2592), (10_496, 20_736), (1, 3), (0, 0)] {
            assert!(size_fits(min, max, standard) && size_fits(min, max, cnsa), "{min} to {max}");
        }
        assert!(size_fits(800, 1568, Algorithm::MlKem1024));
        assert!(size_fits(1312, 1952, standard) && !size_fits(1312, 1952, cnsa));
        assert!(!size_fits(800, 1184, Algorithm::MlKem1024), "up to ML-KEM-768 only");
        assert!(!size_fits(1, 2, cnsa));
    }

    #[test]
    fn only_a_refusal_is_an_answer_for_good() {
        let pkcs11 = |rv| Error::Pkcs11(rv, Function::Sign);
        assert!(for_good(&pkcs11(RvError::MechanismInvalid)));
        assert!(for_good(&pkcs11(RvError::UnknownErrorCode(0x0000_01EA))));
        for rv in
            [RvError::GeneralError, RvError::DeviceRemoved, RvError::DeviceMemory, RvError::SessionCount]
        {
            assert!(!for_good(&pkcs11(rv)), "{rv:?}");
        }
    }
}
