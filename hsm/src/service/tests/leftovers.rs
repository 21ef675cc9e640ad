//! What a change leaves in devices when it is cut off, or when a device is away.

use super::*;
use crate::backend::{NewKey, OpenEscrow, StoredKey};
use crate::protector::Erased;
use crate::root::Root;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use zixt_crypto::SigningKey;

fn record(service: &Service) -> CustodyRecord {
    service.read().record().unwrap().clone()
}

fn held(of: &Box_) -> Vec<Vec<u8>> {
    of.protectors[0].enrolments()
}

fn bad(service: &Service, what: &str) -> Option<String> {
    service.doctor().into_iter().find(|found| found.what == what && !found.good).map(|found| found.found)
}

/// Killed at every step of a rotation and of a change of PIN: once the new state stands, the next unlock leaves nothing of
/// the old one in the device.
#[test]
fn what_a_killed_change_left_is_destroyed_at_the_next_unlock() {
    for what in ["rotation", "PIN"] {
        let (mut left, mut strays, mut fails_in) = (0, 0, 0);
        loop {
            let of = Box_::new();
            let (service, _) = of.operational();
            let before = record(&service).protectors[0].enrolment.clone();
            let transcript = approved(&service, Decision::RotateRoot, &[1, 2]);
            faults::fail_in(fails_in);
            match what {
                "rotation" => drop(service.decide(&transcript, &[], &[])),
                _ => drop(service.change_pin("first", &pin(), &Pin::new("135790".to_owned()).unwrap())),
            }
            let crashed = faults::recover();
            drop(service);

            let service = of.start();
            let enrolment = record(&service).protectors[0].enrolment.clone();
            left += usize::from(enrolment != before && held(&of).contains(&before));
            let pin = Pin::new(of.protectors[0].pin_of(&enrolment).unwrap()).unwrap();
            let unlocked = match service.unlock(&pin, None, PinTry::Attended) {
                Err(CustodyError::PinBackoff { retry_after_s }) => {
                    std::thread::sleep(Duration::from_secs(retry_after_s));
                    service.unlock(&pin, None, PinTry::Attended)
                }
                unlocked => unlocked,
            };
            assert_eq!(unlocked, Ok(StateKind::Operational), "{what} {fails_in}");
            let (stray, rest) = (bad(&service, "stray"), record(&service).to_erase);
            assert!(rest.is_empty(), "{what} {fails_in}");
            if enrolment == before {
                // The new key of a change that never was wraps nothing; nobody but a person can tell that.
                assert_eq!(stray.is_some(), held(&of).len() > 1, "{what} {fails_in}");
                strays += usize::from(stray.is_some());
            } else {
                assert_eq!((held(&of), stray), (vec![enrolment], None), "{what} {fails_in}");
            }
            if !crashed {
                break;
            }
            fails_in += 1;
        }
        assert!(left > 0 && strays > 0, "{what}: {left} kills left an old key, {strays} a new one");
    }
}

#[test]
fn a_device_that_was_away_when_it_was_removed_is_emptied_when_it_is_added_again() {
    let of = Box_::new();
    let (service, _) = of.operational();
    add_second(&of, &service);
    service.lock().unwrap();
    unlock(&service);
    let id = service.status().protectors[1].id.unwrap();
    let remove = approved(&service, Decision::RemoveProtector { protector: id }, &[1, 2]);
    let done = service.decide(&remove, &[], &[]).unwrap();
    assert!(
        done.iter().any(|line| line.contains("second: its old wrapping key is not destroyed yet")),
        "{done:?}"
    );
    assert!(done.iter().any(|line| line.contains("still opens with second")), "{done:?}");
    let told = |service: &Service| {
        service.doctor().into_iter().find(|found| found.what == "leftover second").map(|found| found.good)
    };
    assert_eq!(told(&service), Some(true), "it may be lost, and then that is all");
    let old = of.protectors[1].enrolments();
    service.shut_down();
    let service = of.start();
    unlock(&service);
    assert_eq!((told(&service), of.protectors[1].enrolments()), (Some(true), old.clone()));
    add_second(&of, &service);
    assert_eq!(told(&service), None);
    let new = of.protectors[1].enrolments();
    assert!(new.len() == 1 && new != old, "{new:?}");
}

/// New keys live in a token that can be taken away. The seeds of the first ones do not.
struct InToken {
    wrapped: WrappedSeed,
    token: Arc<Token>,
}

#[derive(Default)]
struct Token {
    keys: Mutex<BTreeSet<Hash>>,
    away: AtomicBool,
}

impl Token {
    fn keys(&self) -> Vec<Hash> {
        self.keys.lock().unwrap().iter().copied().collect()
    }
}

impl KeyBackend for InToken {
    fn generate(&self, root: &Root, new: NewKey, escrow: Option<&[u8]>) -> Result<StoredKey, CustodyError> {
        let mut key = self.wrapped.generate(root, new, escrow)?;
        if new.version > 1 {
            key.mode = CustodyMode::Token;
            self.token.keys.lock().unwrap().insert(key.hash());
        }
        Ok(key)
    }
    fn load(&self, root: &Root, key: &StoredKey) -> Result<Box<dyn SigningKey>, CustodyError> {
        self.wrapped.load(root, key)
    }
    fn rewrap(&self, old: &Root, new: &Root, key: &StoredKey) -> Result<Vec<u8>, CustodyError> {
        self.wrapped.rewrap(old, new, key)
    }
    fn recover(
        &self,
        root: &Root,
        key: &StoredKey,
        mode: CustodyMode,
        open: &OpenEscrow<'_>,
    ) -> Result<StoredKey, CustodyError> {
        self.wrapped.recover(root, key, mode, open)
    }
    fn destroy(&self, key: &StoredKey) -> Result<Erased, CustodyError> {
        if self.token.away.load(Ordering::Relaxed) {
            return Err(CustodyError::TokenLocked);
        }
        faults::step().map_err(|error| CustodyError::TokenFailed { detail: error.to_string() })?;
        self.token.keys.lock().unwrap().remove(&key.hash());
        Ok(Erased::Destroyed)
    }
    fn strays(&self, known: &[&StoredKey]) -> Result<Vec<String>, CustodyError> {
        let known: Vec<_> = known.iter().map(|key| key.hash()).collect();
        Ok(self
            .token
            .keys()
            .into_iter()
            .filter(|key| !known.contains(key))
            .map(|key| format!("key {key}"))
            .collect())
    }
}

fn with_token(of: &Box_, token: &Arc<Token>) -> Service {
    let mut service = of.start();
    let wrapped = WrappedSeed::new(Box::new(Reference));
    service.devices.keys = Box::new(InToken { wrapped, token: Arc::clone(token) });
    service
}

/// A machine whose first consensus key in a token is retired, and its decision to destroy that one.
fn with_a_retired_key(token: &Arc<Token>) -> (Box_, Service, Hash, Vec<u8>) {
    let of = Box_::new();
    of.operational().0.shut_down();
    let service = with_token(&of, token);
    unlock(&service);
    for _ in 0..2 {
        let transcript = activate_consensus(&service);
        service.decide(&transcript, &[], &[]).unwrap();
    }
    let retired = |key: &&zixt_hsm_protocol::KeyInfo| {
        key.status == KeyStatus::Retired && key.custody == CustodyMode::Token
    };
    let key = service.status().keys.iter().find(retired).unwrap().hash;
    let transcript =
        approved(&service, Decision::DestroyKey { purpose: KeyPurpose::Consensus, key }, &[1, 2]);
    (of, service, key, transcript)
}

/// The decision was carried out, and says what it could not do; an error would read as if it had not been.
#[test]
fn a_key_whose_token_is_away_is_taken_out_and_destroyed_when_the_token_is_back() {
    let token = Arc::new(Token::default());
    let (_of, service, key, transcript) = with_a_retired_key(&token);
    token.away.store(true, Ordering::Relaxed);
    let said = service.decide(&transcript, &[], &[]).unwrap();
    assert!(
        said.last().unwrap().contains("taken out, but not destroyed: its token may still hold it"),
        "{said:?}"
    );
    assert!(service.status().keys.iter().all(|known| known.hash != key) && token.keys().contains(&key));
    assert!(bad(&service, "leftover key").unwrap().contains(&key.to_string()));
    service.lock().unwrap();
    unlock(&service);
    assert!(token.keys().contains(&key), "it is still away");
    token.away.store(false, Ordering::Relaxed);
    service.lock().unwrap();
    unlock(&service);
    assert!(!token.keys().contains(&key));
    assert_eq!((bad(&service, "leftover key"), bad(&service, "stray")), (None, None));
}

#[test]
fn a_key_that_was_to_be_destroyed_when_custody_was_killed_is_destroyed_at_the_next_unlock() {
    let (mut left, mut fails_in) = (0, 0);
    loop {
        let token = Arc::new(Token::default());
        let (of, service, key, transcript) = with_a_retired_key(&token);
        faults::fail_in(fails_in);
        drop(service.decide(&transcript, &[], &[]));
        let crashed = faults::recover();
        drop(service);
        let service = with_token(&of, &token);
        let taken_out = record(&service).keys.iter().all(|kept| kept.hash() != key);
        left += usize::from(taken_out && token.keys().contains(&key));
        unlock(&service);
        assert_eq!(token.keys().contains(&key), !taken_out, "step {fails_in}");
        if !crashed {
            break;
        }
        fails_in += 1;
    }
    assert!(left > 0, "no kill came between the commit and the token");
}

#[test]
fn a_pending_key_that_is_replaced_does_not_stay_in_its_token() {
    let token = Arc::new(Token::default());
    let of = Box_::new();
    of.operational().0.shut_down();
    let service = with_token(&of, &token);
    unlock(&service);
    service.generate_key(KeyPurpose::Consensus).unwrap();
    let second = service.generate_key(KeyPurpose::Consensus).unwrap();
    assert_eq!(token.keys(), [second.hash]);
}

/// A list of before may name a key that the newest state uses: in a quarantine none is destroyed.
#[test]
fn a_state_that_was_set_back_destroys_no_key_in_a_token() {
    let token = Arc::new(Token::default());
    let of = Box_::new();
    of.operational().0.shut_down();
    let service = with_token(&of, &token);
    unlock(&service);
    let transcript = activate_consensus(&service);
    let pending = std::fs::read(of.folder().path(STATE_FILE)).unwrap();
    service.decide(&transcript, &[], &[]).unwrap();
    let keys = token.keys();
    service.shut_down();
    std::fs::write(of.folder().path(STATE_FILE), pending).unwrap();
    for _ in 0..2 {
        let service = with_token(&of, &token);
        assert_eq!(unlock(&service), StateKind::Quarantined);
        service.generate_key(KeyPurpose::Enroller).unwrap();
        assert!(keys.iter().all(|key| token.keys().contains(key)));
        service.shut_down();
    }
}
