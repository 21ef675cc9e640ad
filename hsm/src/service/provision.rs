//! First keys, the genesis, and further protectors.

use super::{Service, now};
use crate::protector::{Auths, PinChange, Protector};
use crate::state::{Custody, CustodyRecord, EnrolledProtector, Held, Open, protector_id, store_guard};
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, KeyInfo, Pin};
use zixt_measured::PcrValues;
use zixt_types::{Canonical, Decision, Genesis, Hash, ProtectorId, SuiteId};

impl Service {
    pub(super) fn provision(&self, suite: SuiteId, lab: bool) -> Result<Vec<KeyInfo>, CustodyError> {
        let _change = self.changing();
        match &*self.read() {
            Custody::Unprovisioned(Held::Nothing) => {}
            Custody::Unprovisioned(_) | Custody::Locked(_) | Custody::Operational(_) => {
                return Err(CustodyError::AlreadyProvisioned);
            }
            broken => return broken.keys().map(|_| Vec::new()),
        }
        let mut open = self.devices.protectors.iter().filter(|protector| protector.is_open());
        let protector = &**open.next().ok_or(CustodyError::TokenLocked)?;
        self.lab_only(protector.describe()?.software && !lab)?;
        let (record, root) = CustodyRecord::generate(protector, &*self.devices.keys, suite, lab)?;
        // First the guard, so that there are never keys without one.
        let guarded = record.open_guard_key(&root).and_then(|key| store_guard(&self.folder, &key));
        // The point of no return: from here on the appliance has these keys.
        let enrolled = record.protectors.clone();
        let committed = guarded.and_then(|()| self.commit(&root, record));
        let record = committed.inspect_err(|_| self.take_back(&enrolled, &root))?;
        let keys = record.public_keys();
        log::info!("made {} keys of the suite {suite}{}", keys.len(), if lab { " for a lab" } else { "" });
        *self.write() = Custody::Unprovisioned(Held::Open(Box::new(Open { record, root })));
        Ok(keys)
    }

    pub(super) fn bind_genesis(&self, bytes: &[u8]) -> Result<Hash, CustodyError> {
        let _change = self.changing();
        let genesis =
            Genesis::parse(bytes).map_err(|error| CustodyError::GenesisRefused { why: error.to_string() })?;
        let hash = zixt_crypto::digest::genesis_hash(&genesis);
        let mut custody = self.write();
        match &*custody {
            Custody::Unprovisioned(Held::Nothing) => return Err(CustodyError::Unprovisioned),
            Custody::Unprovisioned(Held::Sealed(record)) => {
                record.check_genesis(&genesis)?;
                return Err(CustodyError::TokenLocked);
            }
            // While it waits for another protector, its network stands already.
            Custody::Unprovisioned(Held::Open(open)) if open.record.pinned.is_some() => {
                return same_genesis(&open.record, hash);
            }
            Custody::Unprovisioned(Held::Open(_)) => {}
            Custody::Locked(record) => return same_genesis(record, hash),
            Custody::Operational(keys) => return same_genesis(&keys.open().record, hash),
            broken => return broken.keys().map(|_| hash),
        }
        let Open { record, root } = custody.open()?;
        let pinned = record.check_genesis(&genesis)?;
        // The point of no return: from here on these keys serve this network only.
        let bound = self.commit(root, CustodyRecord { pinned: Some(pinned), ..record.clone() })?;
        log::info!("pinned the genesis {hash}");
        custody.open_mut()?.record = bound;
        self.complete(&mut custody)?;
        Ok(hash)
    }

    pub(super) fn add_protector(
        &self,
        name: &str,
        pin: &Pin,
        transcript: Option<&[u8]>,
    ) -> Result<ProtectorId, CustodyError> {
        let _change = self.changing();
        let protector = self.protector(Some(name))?;
        self.before_change();
        let mut custody = self.write();
        let record = &custody.open()?.record;
        let wrong = |why: &str| CustodyError::WrongProtector { name: name.to_owned(), why: why.to_owned() };
        if record.protectors.iter().any(|enrolled| self.is_of(enrolled, protector)) {
            return Err(wrong("it wraps the root already"));
        }
        let info = protector.describe()?;
        self.lab_only(info.software && !record.lab)?;
        let id = protector_id(record.custody, protector.kind(), &info);
        let approved = match (&record.pinned, transcript) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(CustodyError::NotApproved { why: "a protector needs a transcript".to_owned() });
            }
            (Some(_), Some(transcript)) => {
                let action = self.judge(record, transcript, now())?;
                let wanted = Decision::AddProtector {
                    protector: id,
                    kind: protector.kind(),
                    description: super::status::description(&info),
                };
                if action.decision != wanted {
                    return Err(CustodyError::NotApproved {
                        why: format!(
                            "they approved something else than adding {}",
                            super::status::description(&info)
                        ),
                    });
                }
                Some(transcript)
            }
        };
        self.write_quarantine(&mut custody)?;
        // What it still has of an earlier time: a TPM has to be given back before it can be taken into use again.
        drop(self.tidy(custody.open_mut()?));
        // Also where it is open: a TPM that an earlier try failed to enrol still has that try's PIN.
        self.try_pin(protector, PinTry::Attended, || protector.open(None, pin, PinTry::Attended))?;
        let open = custody.open_mut()?;
        let enrolled = EnrolledProtector::enrol(protector, &open.root)?;
        let mut next = open.record.clone();
        next.protectors.push(enrolled.clone());
        let kept = match approved {
            Some(transcript) => {
                next.sequence += 1;
                self.keep_decision(open.record.sequence, transcript)
            }
            None => Ok(()),
        };
        match kept.and_then(|()| self.commit(&open.root, next)) {
            Ok(record) => {
                open.record = record;
                drop(self.tidy(open));
            }
            Err(error) => {
                self.take_back(std::slice::from_ref(&enrolled), &open.root);
                return Err(error);
            }
        }
        log::info!("{name} protects the root");
        self.complete(&mut custody)?;
        Ok(id)
    }

    /// Puts keys to use once nothing is missing any more.
    pub(super) fn complete(&self, custody: &mut Custody) -> Result<(), CustodyError> {
        if !matches!(custody, Custody::Unprovisioned(Held::Open(open)) if open.record.is_complete()) {
            return Ok(());
        }
        match std::mem::replace(custody, super::in_between()) {
            Custody::Unprovisioned(Held::Open(open)) => self.load(custody, *open),
            other => {
                *custody = other;
                Ok(())
            }
        }
    }

    pub(super) fn change_pin(&self, name: &str, old: &Pin, new: &Pin) -> Result<(), CustodyError> {
        self.enrol_anew(name, |protector, enrolment| protector.change_pin(enrolment, old, new))?;
        log::info!("{name} has another PIN");
        Ok(())
    }

    pub(super) fn reseal(&self, name: &str, pin: &Pin, values: Option<&[u8]>) -> Result<(), CustodyError> {
        let malformed = |why: String| CustodyError::Malformed { why };
        let values: Option<PcrValues> = values
            .map(|bytes| PcrValues::parse(bytes).map_err(|error| malformed(error.to_string())))
            .transpose()?;
        self.enrol_anew(name, |protector, enrolment| protector.reseal(enrolment, pin, values.as_ref()))?;
        log::info!("{name} is sealed to other values of its registers");
        Ok(())
    }

    /// Lets a protector change what it remembers, with its PIN, and keeps that.
    fn enrol_anew(
        &self,
        name: &str,
        change: impl FnOnce(&dyn Protector, &[u8]) -> Result<PinChange, CustodyError>,
    ) -> Result<(), CustodyError> {
        let _change = self.changing();
        self.before_change();
        let mut custody = self.write();
        self.write_quarantine(&mut custody)?;
        let open = custody.open_mut()?;
        // As before a rotation: the device may forget a wrapping key.
        open.record = self.commit(&open.root, open.record.clone())?;
        let (protector, enrolled) = self.enrolled(Some(name), &open.record)?;
        let (id, before) = (enrolled.id, enrolled.clone());
        same_device(&open.record, enrolled, protector)?;
        let changed = self.try_pin(protector, PinTry::Attended, || change(protector, &enrolled.enrolment))?;
        if let PinChange::Enrolment(enrolment) = changed {
            // Its wrapping key is another one now: what is stored opens with the old PIN until this is durable.
            let mut next = open.record.clone();
            for enrolled in next.protectors.iter_mut().filter(|enrolled| enrolled.id == id) {
                enrolled.enrolment.clone_from(&enrolment);
                enrolled.wrap(protector, &open.root)?;
            }
            // So that nobody comes back with the old PIN, or the old image, and a copy of the old state.
            if enrolment != before.enrolment {
                next.erase_later(&before, false);
            }
            open.record = self.commit(&open.root, next)?;
            if let Some(Err(why)) = self.tidy(open).of(&before) {
                log::warn!("a copy of the state of before still opens as it did then: {why}");
            }
        }
        Ok(())
    }

    /// Undoes enrolments that did not become part of the state: a TPM's authorisations would be lost with them.
    pub(super) fn take_back(&self, enrolled: &[EnrolledProtector], root: &crate::root::Root) {
        for enrolled in enrolled {
            let Some(device) = self.device(enrolled) else { continue };
            let erased = enrolled.authorisation(root).and_then(|authorisation| {
                let auths = Auths { device: authorisation.as_deref().map(Vec::as_slice), ..Auths::default() };
                device.erase(&enrolled.enrolment, auths)
            });
            log::error!("{} was not enrolled; taken back: {erased:?}", enrolled.name);
        }
    }

    fn is_of(&self, enrolled: &EnrolledProtector, protector: &dyn Protector) -> bool {
        enrolled.name == protector.name() && enrolled.kind == protector.kind()
    }

    pub(super) fn lab_only(&self, software_in_production: bool) -> Result<(), CustodyError> {
        if software_in_production {
            Err(CustodyError::LabOnly { what: "a software token, TPM or key file".to_owned() })
        } else {
            Ok(())
        }
    }
}

/// Whether a device is the one that was enrolled, and not another one with its name: before it is given a PIN.
pub(super) fn same_device(
    record: &CustodyRecord,
    enrolled: &EnrolledProtector,
    device: &dyn crate::protector::Protector,
) -> Result<(), CustodyError> {
    let info = device.describe()?;
    if protector_id(record.custody, device.kind(), &info) == enrolled.id {
        return Ok(());
    }
    Err(CustodyError::WrongProtector {
        name: enrolled.name.clone(),
        why: format!(
            "it has the serial {}, which is not the enrolled one's; it was given no PIN",
            info.serial
        ),
    })
}

/// Pinned once and for ever; the same one again is what a repeated call sends.
fn same_genesis(record: &CustodyRecord, hash: Hash) -> Result<Hash, CustodyError> {
    let pinned = record.pinned.as_ref().ok_or(CustodyError::Unprovisioned)?.genesis;
    if pinned == hash { Ok(hash) } else { Err(CustodyError::WrongGenesis { pinned }) }
}
