//! A recovery: a machine asks, officers release their shares to it and to nobody else, and it puts the key together.

use crate::recovery::{RecoveryError, RecoveryRecord, Share};
use crate::{Approved, action_hash};
use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_crypto::hpke::{self, OpenError, OpeningKey, SealError};
use zixt_crypto::suite::ML_KEM_1024_ENCAPSULATION_KEY_BYTES;
use zixt_crypto::{Backend, SignError, SigningKey, VerifyError, cose, digest, labels, suite_params};
use zixt_types::{Action, Canonical, Decision, Hash, SuiteId, limits};

/// Why a share was not released or not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReleaseError {
    /// The share itself.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The share is held by another officer than the one who signs.
    #[error("share {index} is held by officer {expected}, and officer {got} released it")]
    OtherOfficer {
        /// Which share.
        index: u8,
        /// Who holds it.
        expected: Hash,
        /// Who signed.
        got: Hash,
    },
    /// Nothing could be sealed.
    #[error("the share cannot be sealed: {0}")]
    Seal(#[from] SealError),
    /// Nothing could be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The action is about something else.
    #[error("the action is {0}, not recover")]
    NotARecovery(&'static str),
    /// The release is for another recovery.
    #[error("officer {officer} released the share for another action, {got}")]
    OtherAction {
        /// The officer.
        officer: Hash,
        /// Hash of the action that the officer saw.
        got: Hash,
    },
    /// The release is for another machine.
    #[error("officer {officer} released the share to another machine, with key {got}")]
    OtherRecipient {
        /// The officer.
        officer: Hash,
        /// Hash of the ML-KEM key that the share is for.
        got: Hash,
    },
    /// The signature is not the officer's.
    #[error("the release of officer {officer} was altered: {source}")]
    Signature {
        /// The officer.
        officer: Hash,
        /// The fault.
        #[source]
        source: VerifyError,
    },
    /// Signed by the officer and sealed to somebody else, or sealed wrongly.
    #[error("the share that officer {officer} released does not open: {source}")]
    Open {
        /// The officer.
        officer: Hash,
        /// The fault.
        #[source]
        source: OpenError,
    },
}

/// What the recovering machine gives to the officers: all that they need to see, approve and release.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RecoveryRequest {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The recover action's exact bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub action: Vec<u8>,
    /// The machine's ML-KEM key, which the action names by its hash.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub recipient: Vec<u8>,
    /// The backup's recovery record, with every officer's sealed share.
    #[n(3)]
    pub record: RecoveryRecord,
}

impl RecoveryRequest {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// A request; the same checks as for one that comes from elsewhere.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn new(action: &Action, recipient: &[u8], record: &RecoveryRecord) -> Result<Self, &'static str> {
        let request = Self {
            version: Self::VERSION,
            action: action.to_bytes(),
            recipient: recipient.to_vec(),
            record: record.clone(),
        };
        request.check()?;
        Ok(request)
    }

    /// The action.
    ///
    /// # Errors
    /// The bytes are no action: not in a request that was parsed.
    pub fn action(&self) -> Result<Action, zixt_types::ParseError> {
        Action::parse(&self.action)
    }
}

impl Canonical for RecoveryRequest {
    const WHAT: &'static str = "recovery request";
    const BYTES_MAX: usize = limits::RECOVERY_REQUEST_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        self.record.check()?;
        if self.record.version != RecoveryRecord::VERSION {
            return Err("its record has an unknown version");
        }
        let Ok(action) = self.action() else { return Err("its action is none") };
        let Decision::Recover { recipient, .. } = action.decision else {
            return Err("its action is no recovery");
        };
        if self.recipient.len() != ML_KEM_1024_ENCAPSULATION_KEY_BYTES
            || digest::kem_key_hash(&self.recipient) != recipient
        {
            return Err("the machine's key is not the one that the action names");
        }
        let fits = |share: &crate::SealedShare| {
            share.genesis == action.genesis && share.appliance == action.appliance
        };
        if !self.record.shares.iter().all(fits) {
            return Err("its shares are of another network or appliance than the action");
        }
        Ok(())
    }
}

/// A share that its officer released: sealed to the recovering machine, bound to one action, signed by the officer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ShareRelease {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// Hash of the recover action that the officer saw.
    #[n(1)]
    pub action: Hash,
    /// The recovery key.
    #[n(2)]
    pub recovery: Hash,
    /// Which share.
    #[n(3)]
    pub index: u8,
    /// Hash of the ML-KEM key that it is sealed to.
    #[n(4)]
    pub recipient: Hash,
    /// The suite of the officer's key.
    #[n(5)]
    pub suite: SuiteId,
    /// The officer's approval key.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// The share: HPKE. All fields above are associated data.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
    /// The officer's signature over all this, with an empty signature.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

impl ShareRelease {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// The officer whose key it claims.
    #[must_use]
    pub fn officer(&self) -> Hash {
        digest::key_hash(self.suite, &self.public_key)
    }

    /// Checks the signature alone; whether it is for this recovery, [`open_release`] asks.
    ///
    /// # Errors
    /// [`ReleaseError::Signature`].
    pub fn verify(&self, backend: &dyn Backend) -> Result<(), ReleaseError> {
        let (signed, signature) = (self.signed(), &self.signature);
        cose::verify(backend, self.suite, &self.public_key, labels::SHARE_RELEASE, &signed, signature)
            .map_err(|source| ReleaseError::Signature { officer: self.officer(), source })
    }

    fn context(&self) -> Vec<u8> {
        Self { sealed: Vec::new(), signature: Vec::new(), ..self.clone() }.to_bytes()
    }

    fn signed(&self) -> Vec<u8> {
        Self { signature: Vec::new(), ..self.clone() }.to_bytes()
    }
}

impl Canonical for ShareRelease {
    const WHAT: &'static str = "share release";
    const BYTES_MAX: usize = limits::SHARE_RELEASE_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        let params = suite_params(self.suite);
        if self.public_key.len() != params.public_key_bytes || self.signature.len() != params.signature_bytes
        {
            return Err("key or signature does not have the length of its suite");
        }
        if self.sealed.len() != hpke::OVERHEAD_BYTES + crate::shamir::SECRET_BYTES {
            return Err("what is sealed has the wrong length");
        }
        Ok(())
    }
}

/// Releases a share for the recovery of a request. Whoever calls this has shown the request to the officer.
///
/// # Errors
/// [`ReleaseError`]: the share is of another recovery key or held by another officer, or nothing could be sealed or
/// signed.
pub fn release(
    share: &Share,
    request: &RecoveryRequest,
    key: &dyn SigningKey,
) -> Result<ShareRelease, ReleaseError> {
    let held = request.record.share_at(share.recovery, share.index)?;
    let got = digest::key_hash(key.suite(), key.public_key());
    if held.officer != got {
        return Err(ReleaseError::OtherOfficer { index: share.index, expected: held.officer, got });
    }
    // A request that was parsed holds an action in its one encoding, and so its hash is that of its bytes.
    let action = request.action().map_err(|_| ReleaseError::NotARecovery("none"))?;
    let mut release = ShareRelease {
        version: ShareRelease::VERSION,
        action: action_hash(&action),
        recovery: share.recovery,
        index: share.index,
        recipient: digest::kem_key_hash(&request.recipient),
        suite: key.suite(),
        public_key: key.public_key().to_vec(),
        sealed: Vec::new(),
        signature: Vec::new(),
    };
    release.sealed = hpke::seal(
        &request.recipient,
        labels::HPKE_SHARE_RELEASE,
        &release.context(),
        share.value.as_slice(),
    )?;
    release.signature = cose::sign(key, labels::SHARE_RELEASE, &release.signed())?;
    Ok(release)
}

/// Takes a released share on the recovering machine: for the action that the officers approved, from the officer who
/// holds it, sealed to this machine, and the one that was given out. [`RecoveryRecord::combine`] does the rest.
///
/// # Errors
/// See [`ReleaseError`]; each names the officer.
pub fn open_release(
    record: &RecoveryRecord,
    approved: &Approved,
    release: &ShareRelease,
    machine: &OpeningKey,
    backend: &dyn Backend,
) -> Result<Share, ReleaseError> {
    let Decision::Recover { recipient, .. } = approved.action().decision else {
        return Err(ReleaseError::NotARecovery(approved.action().decision.name()));
    };
    let officer = release.officer();
    let held = record.share_at(release.recovery, release.index)?;
    if held.officer != officer {
        let (index, expected) = (release.index, held.officer);
        return Err(ReleaseError::OtherOfficer { index, expected, got: officer });
    }
    if release.action != action_hash(approved.action()) {
        return Err(ReleaseError::OtherAction { officer, got: release.action });
    }
    let own = digest::kem_key_hash(&machine.encapsulation_key());
    for got in [recipient, release.recipient] {
        if got != own {
            return Err(ReleaseError::OtherRecipient { officer, got });
        }
    }
    release.verify(backend)?;
    let value = machine
        .open(labels::HPKE_SHARE_RELEASE, &release.context(), &release.sealed)
        .map_err(|source| ReleaseError::Open { officer, source })?;
    Ok(held.admit(&value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OfficerRule, RecoveryKey, SealedShare, approve, assemble, judge};
    use proptest::prelude::*;
    use std::sync::OnceLock;
    use zixt_crypto::{KemSeed, Reference, SigningSeed};
    use zixt_types::{ApplianceId, ShareHolder, Timestamp};

    const GENESIS: Hash = Hash([7; 48]);
    const APPLIANCE: ApplianceId = ApplianceId([8; 48]);
    const NETWORK: &[u8] = labels::HPKE_RECOVERY_ROOT;

    struct Person {
        key: Box<dyn SigningKey>,
        kem: OpeningKey,
    }

    impl Person {
        fn new(number: u8) -> Self {
            Self {
                key: Reference
                    .signing_key(SuiteId::Standard, &SigningSeed::from_bytes(&[number; 32]))
                    .unwrap(),
                kem: OpeningKey::new(&KemSeed::from_bytes(&[number; 64])),
            }
        }

        fn holder(&self) -> ShareHolder {
            ShareHolder {
                officer: digest::key_hash(SuiteId::Standard, self.key.public_key()),
                kem: digest::kem_key_hash(&self.kem.encapsulation_key()),
            }
        }
    }

    /// Five officers, a recovery key of which any three give it back, and a request for it.
    struct Scene {
        officers: Vec<Person>,
        recovery: RecoveryKey,
        record: RecoveryRecord,
        machine: OpeningKey,
        request: RecoveryRequest,
        approved: Approved,
    }

    fn scene() -> &'static Scene {
        static SCENE: OnceLock<Scene> = OnceLock::new();
        SCENE.get_or_init(|| {
            let mut officers: Vec<Person> = (1..=5).map(Person::new).collect();
            officers.sort_by_key(|officer| officer.holder());
            let holders: Vec<ShareHolder> = officers.iter().map(Person::holder).collect();
            let kems: Vec<Vec<u8>> = officers.iter().rev().map(|o| o.kem.encapsulation_key()).collect();
            let recovery = RecoveryKey::generate().unwrap();
            let record = recovery.share(GENESIS, APPLIANCE, 3, &holders, &kems).unwrap();
            let machine = OpeningKey::new(&KemSeed::from_bytes(&[99; 64]));
            let action = recover(&machine, 1);
            let request = RecoveryRequest::new(&action, &machine.encapsulation_key(), &record).unwrap();
            let approved = approved(&action, &officers);
            Scene { officers, recovery, record, machine, request, approved }
        })
    }

    fn recover(machine: &OpeningKey, sequence: u64) -> Action {
        Action {
            version: 1,
            genesis: GENESIS,
            appliance: APPLIANCE,
            sequence,
            expires_at: Timestamp(1000),
            decision: Decision::Recover {
                backup: Hash([9; 48]),
                recipient: digest::kem_key_hash(&machine.encapsulation_key()),
            },
        }
    }

    fn approved(action: &Action, officers: &[Person]) -> Approved {
        let bytes = action.to_bytes();
        let approvals = officers[..2].iter().map(|o| approve(&bytes, &*o.key).unwrap()).collect();
        let transcript = assemble(&bytes, approvals, &Reference).unwrap().to_bytes();
        let rule =
            OfficerRule { officers: officers.iter().map(|o| o.holder().officer).collect(), required: 2 };
        judge(&transcript, &rule, GENESIS, &Reference).unwrap()
    }

    impl Scene {
        fn sealed(&self, at: usize) -> &SealedShare {
            self.record.share_of(&self.officers[at].holder().officer).unwrap()
        }

        fn share(&self, at: usize) -> Share {
            self.sealed(at).open(&self.officers[at].kem).unwrap()
        }

        fn release(&self, at: usize) -> ShareRelease {
            release(&self.share(at), &self.request, &*self.officers[at].key).unwrap()
        }

        fn open(&self, release: &ShareRelease) -> Result<Share, ReleaseError> {
            open_release(&self.record, &self.approved, release, &self.machine, &Reference)
        }
    }

    #[test]
    fn officers_give_a_machine_the_key_back() {
        let scene = scene();
        let root = hpke::seal(scene.recovery.encapsulation_key(), NETWORK, b"aad", b"root").unwrap();
        let shares: Vec<Share> = [4, 0, 2].map(|at| scene.open(&scene.release(at)).unwrap()).into();
        let key = scene.record.combine(&shares).unwrap();
        assert_eq!(key.id(), scene.recovery.id());
        assert_eq!(&**key.open(NETWORK, b"aad", &root).unwrap(), b"root");
        // Paper instead of one of the files.
        let words = scene.share(1).to_words();
        let shares = vec![
            scene.share(0),
            scene.record.share_from_paper(&words).unwrap(),
            scene.record.share_from_paper(&scene.share(3).to_code()).unwrap(),
        ];
        assert_eq!(scene.record.combine(&shares).unwrap().id(), scene.recovery.id());
        let few = scene.record.combine(&shares[1..]).unwrap_err();
        assert_eq!(few, RecoveryError::TooFew { got: 2, threshold: 3 });
        let officer = scene.officers[0].holder().officer;
        let twice = scene.record.combine(&[scene.share(0), scene.share(1), scene.share(0)]).unwrap_err();
        assert_eq!(twice, RecoveryError::Repeated { index: 1, officer });
    }

    #[test]
    fn a_record_is_one_encoding_and_consistent() {
        let scene = scene();
        assert_eq!(RecoveryRecord::parse(&scene.record.to_bytes()), Ok(scene.record.clone()));
        assert_eq!(RecoveryRequest::parse(&scene.request.to_bytes()), Ok(scene.request.clone()));
        let sealed = scene.sealed(2);
        assert_eq!(SealedShare::parse(&sealed.to_bytes()).as_ref(), Ok(sealed));
        let release = scene.release(2);
        assert_eq!(ShareRelease::parse(&release.to_bytes()), Ok(release));
        let broken = |change: &dyn Fn(&mut RecoveryRecord)| {
            let mut record = scene.record.clone();
            change(&mut record);
            assert!(RecoveryRecord::parse(&record.to_bytes()).is_err());
        };
        broken(&|record| record.shares.clear());
        broken(&|record| record.shares.swap(0, 1));
        broken(&|record| record.shares.truncate(2));
        broken(&|record| record.shares[1].threshold = 2);
        broken(&|record| record.shares[1].appliance = ApplianceId([1; 48]));
        broken(&|record| record.shares[1].kem = record.shares[0].kem);
        broken(&|record| record.encapsulation_key[5] ^= 1);
        let mut request = scene.request.clone();
        request.recipient[5] ^= 1;
        assert!(RecoveryRequest::parse(&request.to_bytes()).is_err());
        let other = Action { appliance: ApplianceId([1; 48]), ..scene.request.action().unwrap() };
        assert!(RecoveryRequest::new(&other, &scene.request.recipient, &scene.record).is_err());
        let other = Action { decision: Decision::RotateRoot, ..other };
        assert!(RecoveryRequest::new(&other, &scene.request.recipient, &scene.record).is_err());
    }

    #[test]
    fn holders_are_the_actions_and_no_others() {
        let scene = scene();
        let holders: Vec<ShareHolder> = scene.officers.iter().map(Person::holder).collect();
        let kems: Vec<Vec<u8>> = scene.officers.iter().map(|o| o.kem.encapsulation_key()).collect();
        let share = |threshold, holders: &[ShareHolder], kems: &[Vec<u8>]| {
            scene.recovery.share(GENESIS, APPLIANCE, threshold, holders, kems).map(|_| ())
        };
        let missing = share(3, &holders, &kems[1..]);
        assert_eq!(
            missing,
            Err(RecoveryError::KeyMissing { officer: holders[0].officer, kem: holders[0].kem })
        );
        for threshold in [0, 1, 6] {
            assert!(matches!(share(threshold, &holders, &kems), Err(RecoveryError::Sharing(_))));
        }
        let reversed: Vec<ShareHolder> = holders.iter().rev().copied().collect();
        assert!(matches!(share(3, &reversed, &kems), Err(RecoveryError::Holders(_))));
        let mut bad = kems.clone();
        bad[0] = vec![0xFF; 1568];
        let mut with_bad = holders.clone();
        with_bad[0].kem = digest::kem_key_hash(&bad[0]);
        assert!(matches!(share(3, &with_bad, &bad), Err(RecoveryError::Seal(_))));
    }

    #[test]
    fn a_share_opens_for_its_holder_only_and_where_it_belongs() {
        let scene = scene();
        let other = scene.sealed(0).open(&scene.officers[1].kem).unwrap_err();
        assert!(matches!(other, RecoveryError::OtherHolder { index: 1, .. }), "{other}");
        let moved = |change: &dyn Fn(&mut SealedShare)| {
            let mut share = scene.sealed(0).clone();
            change(&mut share);
            let refused = share.open(&scene.officers[0].kem).unwrap_err();
            assert!(matches!(refused, RecoveryError::Open { .. }), "{refused}");
        };
        moved(&|share| share.genesis = Hash([1; 48]));
        moved(&|share| share.appliance = ApplianceId([1; 48]));
        moved(&|share| share.recovery = Hash([1; 48]));
        moved(&|share| share.index = 2);
        moved(&|share| share.threshold = 2);
        moved(&|share| share.officer = Hash([1; 48]));
        moved(&|share| share.commitment = Hash([1; 48]));
        moved(&|share| share.sealed[1600] ^= 1);
    }

    #[test]
    fn a_wrong_share_is_named() {
        let scene = scene();
        // A record whose second share was replaced by one of another key, sealed rightly and committed to as before.
        let holders: Vec<ShareHolder> = scene.officers.iter().map(Person::holder).collect();
        let kems: Vec<Vec<u8>> = scene.officers.iter().map(|o| o.kem.encapsulation_key()).collect();
        let other_key = RecoveryKey::generate().unwrap();
        let other = other_key.share(GENESIS, APPLIANCE, 3, &holders, &kems).unwrap();
        let foreign = other.shares[1].open(&scene.officers[1].kem).unwrap();
        let officer = holders[1].officer;

        let refused = scene.record.combine(&[scene.share(0), foreign, scene.share(2)]).unwrap_err();
        assert!(matches!(refused, RecoveryError::OtherRecovery { .. }), "{refused}");
        let mut wrong = scene.share(1);
        wrong.value[3] ^= 1;
        let refused = scene.record.combine(&[scene.share(0), wrong, scene.share(2)]).unwrap_err();
        assert_eq!(refused, RecoveryError::WrongShare { index: 2, officer });
        let foreign = other.shares[1].open(&scene.officers[1].kem).unwrap();
        let refused = scene.record.share_from_paper(&foreign.to_words()).unwrap_err();
        assert!(matches!(refused, RecoveryError::Paper(_)), "{refused}");
        let words = scene.share(0).to_words();
        assert_eq!(scene.sealed(0).share_from_paper(&words).unwrap().index(), 1);
        let refused = scene.sealed(1).share_from_paper(&words).unwrap_err();
        assert_eq!(refused, RecoveryError::OtherShare { expected: 2, got: 1 });
        let refused = release(&foreign, &scene.request, &*scene.officers[1].key).unwrap_err();
        assert!(matches!(refused, ReleaseError::Recovery(RecoveryError::OtherRecovery { .. })), "{refused}");
    }

    #[test]
    fn a_release_is_for_one_recovery_by_its_officer() {
        let scene = scene();
        let refused = release(&scene.share(0), &scene.request, &*scene.officers[1].key).unwrap_err();
        assert!(matches!(refused, ReleaseError::OtherOfficer { index: 1, .. }), "{refused}");

        // Another action for the same machine.
        let later = approved(&recover(&scene.machine, 2), &scene.officers);
        let open = |approved, machine| {
            open_release(&scene.record, approved, &scene.release(0), machine, &Reference)
                .map(|_| ())
                .unwrap_err()
        };
        assert!(matches!(open(&later, &scene.machine), ReleaseError::OtherAction { .. }));
        let thief = OpeningKey::new(&KemSeed::from_bytes(&[66; 64]));
        assert!(matches!(open(&scene.approved, &thief), ReleaseError::OtherRecipient { .. }));
        let rotate = Action { decision: Decision::RotateRoot, ..recover(&scene.machine, 1) };
        let rotate = approved(&rotate, &scene.officers);
        assert_eq!(open(&rotate, &scene.machine), ReleaseError::NotARecovery("rotate-root"));

        // Somebody else's share, released in one's own name.
        let mut stolen = scene.release(0);
        stolen.index = 2;
        assert!(matches!(scene.open(&stolen).unwrap_err(), ReleaseError::OtherOfficer { .. }));
        let mut stolen = scene.release(0);
        stolen.index = 9;
        let refused = scene.open(&stolen).unwrap_err();
        assert_eq!(refused, RecoveryError::NoSuchShare { index: 9, count: 5 }.into());
        // Signed rightly, and not the share that was given out.
        let mut wrong = scene.share(0);
        wrong.value[0] ^= 1;
        let wrong = release(&wrong, &scene.request, &*scene.officers[0].key).unwrap();
        let officer = scene.officers[0].holder().officer;
        let refused = scene.open(&wrong).unwrap_err();
        assert_eq!(refused, RecoveryError::WrongShare { index: 1, officer }.into());
    }

    #[test]
    fn no_secret_is_shown() {
        let scene = scene();
        let share = scene.share(0);
        let secret: String = share.value.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let decimal = format!("{}, {}, {}", share.value[0], share.value[1], share.value[2]);
        for text in [format!("{share:?}"), format!("{:?}", scene.recovery), format!("{:?}", scene.machine)] {
            assert!(text.contains("redacted"), "{text}");
            assert!(!text.contains(&secret) && !text.contains(&decimal), "{text}");
        }
        // What a wrong share makes: errors tell hashes and never values.
        let mut wrong = scene.share(0);
        wrong.value[0] ^= 1;
        let told = format!("{:?}", scene.record.combine(&[wrong]).unwrap_err());
        assert!(!told.contains(&secret) && !told.contains(&decimal), "{told}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_three_of_five_and_no_two(
            order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle(),
            count in 0usize..=5,
        ) {
            let scene = scene();
            let shares: Vec<Share> = order[..count].iter().map(|at| scene.share(*at)).collect();
            match scene.record.combine(&shares) {
                Ok(key) => prop_assert!(count >= 3 && key.id() == scene.recovery.id()),
                Err(error) => prop_assert_eq!(error, RecoveryError::TooFew { got: count, threshold: 3 }),
            }
        }

        #[test]
        fn a_flipped_bit_in_a_sealed_share_is_refused(at: prop::sample::Index, bit in 0u8..8) {
            let scene = scene();
            let mut bytes = scene.sealed(0).to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let opened = SealedShare::parse(&bytes).map(|share| share.open(&scene.officers[0].kem).map(|_| ()));
            prop_assert!(!matches!(opened, Ok(Ok(()))));
        }

        #[test]
        fn a_flipped_bit_in_a_release_is_refused(at: prop::sample::Index, bit in 0u8..8) {
            let scene = scene();
            let mut bytes = scene.release(0).to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let opened = ShareRelease::parse(&bytes).map(|release| scene.open(&release).map(|_| ()));
            prop_assert!(!matches!(opened, Ok(Ok(()))));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = SealedShare::parse(&bytes);
            let _ = RecoveryRecord::parse(&bytes);
            let _ = RecoveryRequest::parse(&bytes);
            let _ = ShareRelease::parse(&bytes);
        }
    }
}
