//! The state file `custody.cbor`: protectors, sealed keys, and what they are bound to.

use crate::backend::{KeyBackend, NewKey, StoredKey};
use crate::protector::{Enrolled, Protector};
use crate::root::{CHECK_BYTES, Class, CustodyId, Root, RootName};
use crate::vote_guard::{GuardKey, MAC_KEY_BYTES, Quorum};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;
use zixt_crypto::{AeadKey, digest, hash, labels};
use zixt_hsm_protocol::{CustodyError, KeyInfo, KeyPurpose, KeyStatus, TokenInfo};
use zixt_types::{
    ApplianceId, Canonical, CustodyMode, Genesis, Hash, ProtectorId, ProtectorKind, SuiteId, UnlockMode,
    limits,
};

/// Protectors of one root.
const PROTECTORS_MAX: usize = 8;
/// Keys that are kept, retired ones included. The oldest retired one has to be destroyed before the next is made.
const KEYS_MAX: usize = 32;
/// Enrolments, and keys, that wait to be destroyed. The oldest are given up where a device never comes back.
const LEFTOVERS_MAX: usize = 16;
/// Bytes of what a device remembers.
const ENROLMENT_BYTES_MAX: usize = 16 * 1024;

/// The state file. Everything in it is bound by the MAC, whose key is derived from the root.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct CustodyRecord {
    /// Format version: 4.
    #[n(0)]
    pub version: u64,
    /// Names this custody for ever.
    #[n(1)]
    pub custody: CustodyId,
    /// Whether the keys were made for a lab.
    #[n(2)]
    pub lab: bool,
    /// Officers' decisions that were taken so far.
    #[n(3)]
    pub sequence: u64,
    /// The root's version.
    #[n(4)]
    pub root_version: u32,
    /// The root's key-check value.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub check: [u8; CHECK_BYTES],
    /// What wraps the root.
    #[n(6)]
    pub protectors: Vec<EnrolledProtector>,
    /// The signing keys: one active of each purpose, in the order of [`KeyPurpose::ALL`], then pending and retired ones.
    #[n(7)]
    pub keys: Vec<StoredKey>,
    /// The sealed row data key.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub row_key: Vec<u8>,
    /// The sealed key of the vote guard's MAC. Not derived from the row data key, which leaves this process.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub guard_key: Vec<u8>,
    /// The vote guard's random name: its file is bound to this custody, whatever its consensus keys.
    #[n(10)]
    pub guard: Hash,
    /// Votes that were signed when this was written, at least.
    #[n(11)]
    pub votes: u64,
    /// The network, once known.
    #[n(12)]
    pub pinned: Option<Pinned>,
    /// Why the keys must not be used until officers activate a new consensus key.
    #[n(13)]
    pub quarantine: Option<String>,
    /// Enrolments whose wrapping keys no state needs any more, and which may still exist: to be destroyed. They wrap
    /// nothing. An authorisation is there where the device is to be given up as a whole.
    #[n(14)]
    pub to_erase: Vec<EnrolledProtector>,
    /// The same of keys that live in a token.
    #[n(15)]
    pub to_destroy: Vec<StoredKey>,
    /// A recovered backup whose files are not unpacked yet.
    #[n(16)]
    pub unpacking: Option<Unpacking>,
    /// MAC of everything above under the root: whoever merely writes the disk cannot make it.
    #[n(17)]
    pub mac: Hash,
}

/// The key of a recovered backup's rest: nobody but the officers could give it again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Unpacking {
    /// Hash of custody's part of the backup.
    #[n(0)]
    pub backup: Hash,
    /// The key, sealed under the root.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: Vec<u8>,
}

impl Unpacking {
    /// Seals the key of a backup's rest.
    ///
    /// # Errors
    /// `Internal` without random numbers.
    pub fn seal(backup: Hash, key: &AeadKey, root: &Root) -> Result<Self, CustodyError> {
        let key = root.seal(Class::Backup, &Self::aad(backup), key.as_bytes())?;
        Ok(Self { backup, key })
    }

    /// The key.
    ///
    /// # Errors
    /// `UnsealFailed`.
    pub fn open(&self, root: &Root) -> Result<AeadKey, CustodyError> {
        let opened = root.unseal(Class::Backup, &Self::aad(self.backup), &self.key)?;
        AeadKey::from_slice(&opened).map_err(|_| CustodyError::UnsealFailed)
    }

    fn aad(backup: Hash) -> Vec<u8> {
        [labels::CUSTODY_BACKUP, b"unpacking/", backup.as_bytes()].concat()
    }
}

/// A protector as the state file holds it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct EnrolledProtector {
    /// Its id.
    #[n(0)]
    pub id: ProtectorId,
    /// Its name in the configuration.
    #[n(1)]
    pub name: String,
    /// Its kind.
    #[n(2)]
    pub kind: ProtectorKind,
    /// A software token or TPM.
    #[n(3)]
    pub software: bool,
    /// What it has to remember; only the protector reads it.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub enrolment: Vec<u8>,
    /// The wrapped root.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub wrapped: Vec<u8>,
    /// The anchor's number that belongs to this state.
    #[n(6)]
    pub anchored: Option<u64>,
    /// The device's authorisations, sealed under the root.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub authorisation: Option<Vec<u8>>,
    /// What lets the device's anchor be asked and advanced without its PIN, sealed under the root.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub counter_auth: Option<Vec<u8>>,
    /// It could not be reached when officers or a quarantine set this state apart from others: what its anchor says is not
    /// about this state, until it is reached together with one that is.
    #[n(9)]
    pub unseen: bool,
}

/// The network that the keys serve, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Pinned {
    /// Hash of its genesis.
    #[n(0)]
    pub genesis: Hash,
    /// What the genesis says about unlocking.
    #[n(1)]
    pub unlock: UnlockMode,
    /// Whether the genesis gives this appliance more than two thirds of all stake. Stake that is given to others later
    /// does not change it: what it forbids then is a second header at a height, which needs a lock to be given up.
    #[n(2)]
    pub alone: bool,
    /// The officers, by the hashes of their keys.
    #[n(3)]
    pub officers: Vec<Hash>,
    /// How many of them have to approve.
    #[n(4)]
    pub required: u8,
}

impl Pinned {
    /// How much our own vote weighs.
    #[must_use]
    pub const fn quorum(&self) -> Quorum {
        if self.alone { Quorum::Alone } else { Quorum::Shared }
    }
}

impl Canonical for CustodyRecord {
    const WHAT: &'static str = "custody state";
    /// The sealed shares of as many officers as a network may have, all keys, and all that waits to be destroyed.
    const BYTES_MAX: usize = limits::RECOVERY_RECORD_BYTES_MAX + 768 * 1024;
    const VERSION: Option<u64> = Some(4);

    fn check(&self) -> Result<(), &'static str> {
        if self.keys.len() > KEYS_MAX {
            return Err("it holds too many keys");
        }
        let active = self.keys.iter().filter(|key| key.status == KeyStatus::Active);
        if !active.map(|key| key.purpose).eq(KeyPurpose::ALL) {
            return Err("it does not hold one active key of each purpose in order");
        }
        let pending = |purpose| {
            let of_purpose = self.keys.iter().filter(|key| key.purpose == purpose);
            of_purpose.filter(|key| key.status == KeyStatus::Pending).count()
        };
        if KeyPurpose::ALL.into_iter().any(|purpose| pending(purpose) > 1) {
            return Err("it holds two pending keys of one purpose");
        }
        if self.protectors.is_empty() || self.protectors.len() > PROTECTORS_MAX {
            return Err("it holds no protector, or too many");
        }
        if self.to_erase.len() > LEFTOVERS_MAX || self.to_destroy.len() > LEFTOVERS_MAX {
            return Err("too much of it waits to be destroyed");
        }
        let mut enrolled = self.protectors.iter().chain(&self.to_erase);
        if enrolled.any(|protector| protector.enrolment.len() > enrolment_bytes_max(protector.kind)) {
            return Err("what a protector remembers is too long");
        }
        let ids: std::collections::BTreeSet<_> =
            self.protectors.iter().map(|protector| protector.id).collect();
        if ids.len() != self.protectors.len() {
            return Err("it holds a protector twice");
        }
        Ok(())
    }
}

/// What the officers hold grows with them.
const fn enrolment_bytes_max(kind: ProtectorKind) -> usize {
    match kind {
        ProtectorKind::Recovery => limits::RECOVERY_RECORD_BYTES_MAX,
        _ => ENROLMENT_BYTES_MAX,
    }
}

/// The id of a protector of a custody: from what the device says it is, so that officers can approve one that is not
/// enrolled yet.
#[must_use]
pub fn protector_id(custody: CustodyId, kind: ProtectorKind, info: &TokenInfo) -> ProtectorId {
    let parts = [&custody.0[..], &[kind as u8], info.label.as_bytes(), &[0], info.serial.as_bytes()];
    let hash = hash::sha384(labels::PROTECTOR_ID, &parts);
    let mut id = [0; ProtectorId::LEN];
    id.copy_from_slice(&hash.as_bytes()[..ProtectorId::LEN]);
    ProtectorId(id)
}

/// Where keys live that are made now: what is true whichever protector opens them. A software protector makes all of
/// them software keys; beside a token a TPM is said where it stands alone.
#[must_use]
pub fn mode(protectors: &[EnrolledProtector]) -> CustodyMode {
    let has = |kind| protectors.iter().any(|protector| protector.kind == kind);
    if has(ProtectorKind::Software) {
        CustodyMode::Software
    } else if has(ProtectorKind::Pkcs11) {
        CustodyMode::WrappedByToken
    } else {
        CustodyMode::SealedByTpm
    }
}

impl EnrolledProtector {
    /// Enrols an open protector and lets it wrap the root.
    ///
    /// # Errors
    /// As the protector's `enrol` and `wrap`.
    pub fn enrol(protector: &dyn Protector, root: &Root) -> Result<Self, CustodyError> {
        let info = protector.describe()?;
        let id = protector_id(root.name().custody, protector.kind(), &info);
        let Enrolled { enrolment, anchor, authorisation, counter_auth } = protector.enrol(None)?;
        let sealed = |aad: Vec<u8>, secret: Option<Zeroizing<Vec<u8>>>| {
            secret.map(|secret| root.seal(Class::Data, &aad, &secret)).transpose()
        };
        let authorisation = sealed(authorisation_aad(id), authorisation)?;
        let counter_auth = sealed(counter_auth_aad(id), counter_auth)?;
        let mut enrolled = Self {
            id,
            name: protector.name().to_owned(),
            kind: protector.kind(),
            software: info.software,
            enrolment,
            wrapped: Vec::new(),
            anchored: anchor,
            authorisation,
            counter_auth,
            unseen: false,
        };
        enrolled.wrap(protector, root)?;
        Ok(enrolled)
    }

    /// Wraps a root, and tries that it opens.
    ///
    /// # Errors
    /// As the protector's `wrap` and `unwrap`.
    pub fn wrap(&mut self, protector: &dyn Protector, root: &Root) -> Result<(), CustodyError> {
        let aad = root_aad(root.name(), self.id);
        self.wrapped = protector.wrap(&self.enrolment, &aad, root.expose())?;
        // A blob that does not open is found now and not at the next power-on.
        let opened = protector.unwrap(&self.enrolment, &aad, &self.wrapped)?;
        if opened.as_slice() == root.expose() { Ok(()) } else { Err(CustodyError::UnsealFailed) }
    }

    /// The device's authorisations.
    ///
    /// # Errors
    /// `UnsealFailed`.
    pub fn authorisation(&self, root: &Root) -> Result<Option<Zeroizing<Vec<u8>>>, CustodyError> {
        let sealed = self.authorisation.as_ref();
        sealed.map(|sealed| root.unseal(Class::Data, &authorisation_aad(self.id), sealed)).transpose()
    }

    /// What lets its anchor be asked without its PIN, if the device can do that.
    ///
    /// # Errors
    /// `UnsealFailed`.
    pub fn counter_auth(&self, root: &Root) -> Result<Option<Zeroizing<Vec<u8>>>, CustodyError> {
        let sealed = self.counter_auth.as_ref();
        sealed.map(|sealed| root.unseal(Class::Data, &counter_auth_aad(self.id), sealed)).transpose()
    }
}

impl CustodyRecord {
    /// Makes all keys of an appliance, and the root, wrapped by one open protector. The MAC is still missing.
    ///
    /// # Errors
    /// See [`KeyBackend::generate`] and [`EnrolledProtector::enrol`].
    pub fn generate(
        protector: &dyn Protector,
        backend: &dyn KeyBackend,
        suite: SuiteId,
        lab: bool,
    ) -> Result<(Self, Root), CustodyError> {
        let mut custody = CustodyId([0; 16]);
        zixt_crypto::fill_random(&mut custody.0).map_err(internal)?;
        let root = Root::generate(RootName { custody, version: 1 })?;
        let protectors = vec![EnrolledProtector::enrol(protector, &root)?];
        let mode = mode(&protectors);
        let status = KeyStatus::Active;
        let keys = KeyPurpose::ALL.iter().map(|purpose| {
            backend.generate(&root, NewKey { purpose: *purpose, version: 1, suite, mode, status }, None)
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let row_key = AeadKey::generate().map_err(internal)?;
        let mut record = Self {
            version: 4,
            custody,
            lab,
            sequence: 0,
            root_version: 1,
            check: root.check_value(),
            protectors,
            keys,
            row_key: root.seal(Class::Data, &data_aad("row-key"), row_key.as_bytes())?,
            guard_key: Vec::new(),
            guard: Hash::ZERO,
            votes: 0,
            pinned: None,
            quarantine: None,
            to_erase: Vec::new(),
            to_destroy: Vec::new(),
            unpacking: None,
            mac: Hash::ZERO,
        };
        record.renew_guard(&root)?;
        Ok((record, root))
    }

    /// Draws a new name and key for the vote guard: its old file is worthless then.
    ///
    /// # Errors
    /// `Internal` without random numbers.
    pub fn renew_guard(&mut self, root: &Root) -> Result<(), CustodyError> {
        let mut key = Zeroizing::new([0; MAC_KEY_BYTES]);
        zixt_crypto::fill_random(&mut *key).map_err(internal)?;
        let mut name = [0; Hash::LEN];
        zixt_crypto::fill_random(&mut name).map_err(internal)?;
        self.guard = hash::sha384(labels::VOTE_GUARD, &[&name]);
        self.guard_key = root.seal(Class::Data, &data_aad("guard-key"), &*key)?;
        self.votes = 0;
        Ok(())
    }

    /// The root's name.
    #[must_use]
    pub const fn root_name(&self) -> RootName {
        RootName { custody: self.custody, version: self.root_version }
    }

    /// Opens the root by an open protector, and checks that this root authenticated exactly this state.
    ///
    /// # Errors
    /// `UnsealFailed` if not; otherwise as the protector's `unwrap`.
    pub fn open_root(&self, by: &EnrolledProtector, protector: &dyn Protector) -> Result<Root, CustodyError> {
        let name = self.root_name();
        let opened = protector.unwrap(&by.enrolment, &root_aad(name, by.id), &by.wrapped)?;
        let root = Root::from_slice(name, &opened)?;
        if root.check_value() != self.check {
            return Err(CustodyError::UnsealFailed);
        }
        self.check_mac(&root)?;
        Ok(root)
    }

    /// Whether this root authenticated exactly this state.
    ///
    /// # Errors
    /// `UnsealFailed`.
    pub fn check_mac(&self, root: &Root) -> Result<(), CustodyError> {
        let good = hash::constant_time_eq(self.to_mac(root).as_bytes(), self.mac.as_bytes());
        if good { Ok(()) } else { Err(CustodyError::UnsealFailed) }
    }

    /// The same state with its MAC.
    #[must_use]
    pub fn authenticated(mut self, root: &Root) -> Self {
        self.mac = self.to_mac(root);
        self
    }

    fn to_mac(&self, root: &Root) -> Hash {
        root.mac(&Self { mac: Hash::ZERO, ..self.clone() }.to_bytes())
    }

    /// Everything that the old root sealed, sealed by a new one. The protectors still wrap the old one.
    ///
    /// # Errors
    /// `UnsealFailed`, `Internal`.
    pub fn resealed(&self, old: &Root, new: &Root, backend: &dyn KeyBackend) -> Result<Self, CustodyError> {
        let again =
            |aad: &[u8], sealed: &[u8]| new.seal(Class::Data, aad, &old.unseal(Class::Data, aad, sealed)?);
        let mut record = self.clone();
        for key in &mut record.keys {
            key.blob = backend.rewrap(old, new, key)?;
        }
        record.row_key = again(&data_aad("row-key"), &self.row_key)?;
        record.guard_key = again(&data_aad("guard-key"), &self.guard_key)?;
        for protector in record.protectors.iter_mut().chain(&mut record.to_erase) {
            if let Some(sealed) = &protector.authorisation {
                protector.authorisation = Some(again(&authorisation_aad(protector.id), sealed)?);
            }
            if let Some(sealed) = &protector.counter_auth {
                protector.counter_auth = Some(again(&counter_auth_aad(protector.id), sealed)?);
            }
        }
        record.unpacking = match &self.unpacking {
            Some(unpacking) => Some(Unpacking::seal(unpacking.backup, &unpacking.open(old)?, new)?),
            None => None,
        };
        record.root_version = new.name().version;
        record.check = new.check_value();
        Ok(record)
    }

    /// Notes an enrolment that is no longer used, so that its wrapping key is destroyed even after a crash. `whole` says
    /// that the protector is given up. What officers hold is theirs to destroy.
    pub fn erase_later(&mut self, enrolled: &EnrolledProtector, whole: bool) {
        if enrolled.kind == ProtectorKind::Recovery {
            return;
        }
        let mut left = EnrolledProtector { wrapped: Vec::new(), anchored: None, ..enrolled.clone() };
        left.authorisation = left.authorisation.filter(|_| whole);
        self.to_erase.push(left);
        if self.to_erase.len() > LEFTOVERS_MAX {
            // Nobody else has the authorisation of a TPM that was removed.
            let at = self.to_erase.iter().position(|left| left.authorisation.is_none()).unwrap_or(0);
            let given_up = self.to_erase.remove(at);
            log::warn!("an old wrapping key of {} is given up: it was never there again", given_up.name);
        }
    }

    /// Takes keys out. Those that live in a token are noted, so that they are destroyed there even after a crash.
    pub fn take_out(&mut self, gone: impl Fn(&StoredKey) -> bool) {
        let (out, kept) = std::mem::take(&mut self.keys).into_iter().partition(gone);
        self.keys = kept;
        let in_token = |key: &StoredKey| key.mode == CustodyMode::Token;
        self.to_destroy.extend(Vec::into_iter(out).filter(in_token));
        while self.to_destroy.len() > LEFTOVERS_MAX {
            let given_up = self.to_destroy.remove(0);
            log::warn!("the key {} is given up: its token was never there again", given_up.hash());
        }
    }

    /// The row data key.
    ///
    /// # Errors
    /// `UnsealFailed`.
    pub fn open_row_key(&self, root: &Root) -> Result<AeadKey, CustodyError> {
        let opened = root.unseal(Class::Data, &data_aad("row-key"), &self.row_key)?;
        AeadKey::from_slice(&opened).map_err(|_| CustodyError::UnsealFailed)
    }

    /// The vote guard's key.
    ///
    /// # Errors
    /// `UnsealFailed`.
    pub fn open_guard_key(&self, root: &Root) -> Result<GuardKey, CustodyError> {
        let opened = root.unseal(Class::Data, &data_aad("guard-key"), &self.guard_key)?;
        let mac = opened.as_slice().try_into().map_err(|_| CustodyError::UnsealFailed)?;
        Ok(GuardKey::new(self.guard, mac))
    }

    /// The suite of the identity key, which all first keys have.
    #[must_use]
    pub fn suite(&self) -> SuiteId {
        // `check` refuses a record without keys.
        self.keys.first().map_or(SuiteId::Standard, |key| key.suite)
    }

    /// The active key of a purpose.
    ///
    /// # Errors
    /// `Internal` if there is none, which `check` excludes.
    pub fn key(&self, purpose: KeyPurpose) -> Result<&StoredKey, CustodyError> {
        let found = self.keys.iter().find(|key| key.purpose == purpose && key.status == KeyStatus::Active);
        found.ok_or_else(|| CustodyError::Internal { detail: format!("no {} key", purpose.name()) })
    }

    /// The keys as everybody may know them.
    #[must_use]
    pub fn public_keys(&self) -> Vec<KeyInfo> {
        self.keys.iter().map(StoredKey::info).collect()
    }

    /// Whether it may be used: its network is known, and no single loss ends it (in a lab it may).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pinned.is_some() && (self.lab || self.protectors.len() >= 2)
    }

    /// This appliance.
    ///
    /// # Errors
    /// As [`Self::key`].
    pub fn appliance(&self) -> Result<ApplianceId, CustodyError> {
        Ok(digest::appliance_id(self.key(KeyPurpose::Identity)?.hash()))
    }

    /// Checks that a genesis tells the truth about these keys, and returns what to pin of it.
    ///
    /// # Errors
    /// `GenesisRefused` with the statement that is not true.
    pub fn check_genesis(&self, genesis: &Genesis) -> Result<Pinned, CustodyError> {
        let refused = |why: String| Err(CustodyError::GenesisRefused { why });
        let hash = |purpose| self.key(purpose).map(|key| (key.hash(), key.mode));
        let (identity, _) = hash(KeyPurpose::Identity)?;
        let (consensus, mode) = hash(KeyPurpose::Consensus)?;
        let (tls, _) = hash(KeyPurpose::Tls)?;
        let (enroller, _) = hash(KeyPurpose::Enroller)?;
        let appliance = digest::appliance_id(identity);
        let Some(validator) = genesis.validators.iter().find(|v| v.appliance == appliance) else {
            return refused(format!("no validator is this appliance ({appliance})"));
        };
        if validator.consensus != consensus {
            return refused("the validator's consensus key is another one".to_owned());
        }
        if validator.tls != tls {
            return refused("the validator's TLS key is another one".to_owned());
        }
        if validator.custody != mode {
            return refused(format!(
                "it says of the consensus key '{}'; the truth is '{}'",
                validator.custody.describe(),
                mode.describe()
            ));
        }
        if !genesis.enrollers.contains(&enroller) {
            return refused("this appliance's enroller key is not among the enrollers".to_owned());
        }
        if !genesis.suites.contains(&self.suite()) {
            return refused(format!("it does not allow the suite of the keys ({})", self.suite()));
        }
        if genesis.lab != self.lab {
            let made_for = if self.lab { "a lab" } else { "production" };
            return refused(format!("the keys were made for {made_for}, the genesis says otherwise"));
        }
        Ok(Pinned {
            genesis: digest::genesis_hash(genesis),
            unlock: genesis.unlock,
            alone: u128::from(validator.stake) * 3 > u128::from(genesis.stake_total()) * 2,
            officers: genesis.officers.iter().map(|officer| officer.key).collect(),
            required: genesis.officers_required,
        })
    }
}

pub(crate) fn root_aad(root: RootName, protector: ProtectorId) -> Vec<u8> {
    [labels::CUSTODY_ROOT, &root.custody.0, &root.version.to_be_bytes(), protector.as_bytes()].concat()
}

fn data_aad(what: &str) -> Vec<u8> {
    [labels::CUSTODY_DATA, what.as_bytes()].concat()
}

fn authorisation_aad(protector: ProtectorId) -> Vec<u8> {
    [labels::CUSTODY_DATA, b"authorisation/", protector.as_bytes()].concat()
}

fn counter_auth_aad(protector: ProtectorId) -> Vec<u8> {
    [labels::CUSTODY_DATA, b"counter/", protector.as_bytes()].concat()
}

fn internal(error: impl std::fmt::Display) -> CustodyError {
    CustodyError::Internal { detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::WrappedSeed;
    use crate::protector::testing::TestProtector;
    use proptest::prelude::*;
    use zixt_crypto::Reference;

    /// Nobody else could give a removed TPM back.
    #[test]
    fn what_is_given_up_first_is_what_has_no_authorisation() {
        let (_, mut record, _) = made();
        let mut left = record.protectors[0].clone();
        left.authorisation = Some(vec![1]);
        record.erase_later(&left, true);
        for n in 0..=u8::try_from(LEFTOVERS_MAX).unwrap() {
            record.erase_later(&EnrolledProtector { enrolment: vec![n], ..left.clone() }, false);
        }
        assert_eq!(record.to_erase.len(), LEFTOVERS_MAX);
        assert!(record.to_erase[0].authorisation.is_some());
    }

    #[test]
    fn what_a_device_gave_is_not_printed() {
        let enrolled = Enrolled {
            enrolment: Vec::new(),
            anchor: Some(7),
            authorisation: Some(Zeroizing::new(vec![201; 3])),
            counter_auth: Some(Zeroizing::new(vec![202; 3])),
        };
        let printed = format!("{enrolled:?}");
        assert!(printed.contains('7') && !printed.contains("201") && !printed.contains("202"), "{printed}");
    }

    fn made() -> (TestProtector, CustodyRecord, Root) {
        let protector = TestProtector::open_one();
        let (record, root) =
            CustodyRecord::generate(&protector, &backend(), SuiteId::Standard, true).unwrap();
        let record = record.authenticated(&root);
        (protector, record, root)
    }

    fn backend() -> WrappedSeed {
        WrappedSeed::new(Box::new(Reference))
    }

    fn pinned() -> Pinned {
        let officers = vec![Hash([2; 48])];
        Pinned { genesis: Hash([1; 48]), unlock: UnlockMode::Attended, alone: true, officers, required: 1 }
    }

    #[test]
    fn the_state_round_trips_and_every_edit_is_found() {
        let (protector, record, root) = made();
        assert_eq!(CustodyRecord::parse(&record.to_bytes()).as_ref(), Ok(&record));
        assert_eq!(*record.open_root(&record.protectors[0], &protector).unwrap().expose(), *root.expose());
        let bound = CustodyRecord { pinned: Some(pinned()), ..record.clone() }.authenticated(&root);
        bound.check_mac(&root).unwrap();
        let officer = Pinned { officers: vec![Hash([3; 48])], ..pinned() };
        let mut moved = bound.protectors.clone();
        moved[0].anchored = Some(1);
        let edits: [CustodyRecord; 9] = [
            CustodyRecord { pinned: Some(Pinned { alone: false, ..pinned() }), ..bound.clone() },
            CustodyRecord { pinned: Some(officer), ..bound.clone() },
            CustodyRecord { guard_key: record.guard_key[..20].to_vec(), ..bound.clone() },
            CustodyRecord { lab: false, ..bound.clone() },
            CustodyRecord { pinned: None, ..bound.clone() },
            CustodyRecord { sequence: 1, ..bound.clone() },
            CustodyRecord { quarantine: Some(String::new()), ..bound.clone() },
            CustodyRecord { protectors: moved, ..bound.clone() },
            CustodyRecord { row_key: record.row_key[..20].to_vec(), ..bound },
        ];
        for edit in edits {
            assert_eq!(edit.check_mac(&root), Err(CustodyError::UnsealFailed));
            assert!(edit.open_root(&edit.protectors[0], &protector).is_err());
        }
    }

    #[test]
    fn data_keys_come_back_and_are_nowhere_in_clear() {
        let (_, record, root) = made();
        let key = record.open_row_key(&root).unwrap();
        let bytes = record.to_bytes();
        for secret in [key.as_bytes(), root.expose()] {
            for part in secret.windows(8) {
                assert!(!bytes.windows(8).any(|window| window == part));
            }
        }
        let (_, other, other_root) = made();
        assert!(other.open_row_key(&other_root).unwrap() != key);
        assert!(record.open_row_key(&other_root).is_err());
    }

    #[test]
    fn a_new_root_opens_all_and_the_old_one_nothing() {
        let (protector, record, old) = made();
        let name = RootName { version: 2, ..old.name() };
        let new = Root::generate(name).unwrap();
        let mut moved = record.resealed(&old, &new, &backend()).unwrap();
        moved.protectors[0].wrap(&protector, &new).unwrap();
        let moved = moved.authenticated(&new);
        assert_eq!(*moved.open_root(&moved.protectors[0], &protector).unwrap().expose(), *new.expose());
        assert!(moved.open_row_key(&new).unwrap() == record.open_row_key(&old).unwrap());
        for key in &moved.keys {
            assert!(backend().load(&new, key).is_ok() && backend().load(&old, key).is_err());
        }
        assert!(moved.open_row_key(&old).is_err() && moved.check_mac(&old).is_err());
    }

    #[test]
    fn one_active_key_of_each_purpose_and_one_pending_at_most() {
        let (_, record, root) = made();
        let pending = backend()
            .generate(
                &root,
                NewKey {
                    purpose: KeyPurpose::Consensus,
                    version: 2,
                    suite: SuiteId::Standard,
                    mode: CustodyMode::WrappedByToken,
                    status: KeyStatus::Pending,
                },
                None,
            )
            .unwrap();
        let with = |keys: Vec<StoredKey>| CustodyRecord { keys, ..record.clone() }.check();
        assert_eq!(with([record.keys.clone(), vec![pending.clone()]].concat()), Ok(()));
        assert!(with([record.keys.clone(), vec![pending.clone(), pending.clone()]].concat()).is_err());
        let second = StoredKey { status: KeyStatus::Active, ..pending };
        assert!(with([record.keys.clone(), vec![second]].concat()).is_err());
        assert!(with(record.keys[1..].to_vec()).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_an_error_not_a_panic(bytes: Vec<u8>) {
            let _ = CustodyRecord::parse(&bytes);
        }
    }
}
