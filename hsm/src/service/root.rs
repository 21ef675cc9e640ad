//! The root's rotation, and what becomes of the wrapping keys of before.

use super::anchors::Verdict;
use super::{Service, storage};
use crate::protector::{Erased, Protector};
use crate::root::{Root, RootName};
use crate::state::{CustodyRecord, EnrolledProtector, Folder as _, Open};
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, NamedPin};
use zixt_types::ProtectorKind;

/// What a rotation did.
pub(super) struct Rotated {
    /// In words.
    pub(super) done: Vec<String>,
    /// What still opens a copy of the state of before; empty if nothing does.
    pub(super) still_opens: Vec<String>,
}

impl Service {
    /// Opens every protector of a state by the PINs that were given.
    pub(super) fn open_all(&self, record: &CustodyRecord, pins: &[NamedPin]) -> Result<(), CustodyError> {
        let mut missing = Vec::new();
        for enrolled in record.protectors.iter().filter(|enrolled| enrolled.kind != ProtectorKind::Recovery) {
            let device = self.device(enrolled);
            if device.is_some_and(Protector::is_open) {
                continue;
            }
            match (device, pins.iter().find(|named| named.protector == enrolled.name)) {
                (Some(device), Some(named)) => {
                    super::provision::same_device(record, enrolled, device)?;
                    self.try_pin(PinTry::Attended, || {
                        device.open(Some(&enrolled.enrolment), &named.pin, PinTry::Attended)
                    })?;
                }
                _ => missing.push(enrolled.name.as_str()),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(CustodyError::PinsMissing { names: missing.join(", ") }) }
    }

    /// Replaces the root: everything is sealed anew, every protector makes a new wrapping key where it can, and what the
    /// old ones were made of is destroyed. `change` says what else is different afterwards.
    ///
    /// Until the new state is durable the old one is whole; from then on the new one is. A crash between that and the last
    /// step leaves the old wrapping keys where they are.
    pub(super) fn rotate_root(
        &self,
        open: &mut Open,
        pins: &[NamedPin],
        change: impl FnOnce(&mut CustodyRecord, &Root) -> Result<(), CustodyError>,
    ) -> Result<Rotated, CustodyError> {
        let version =
            open.record.root_version.checked_add(1).ok_or_else(|| CustodyError::Internal {
                detail: "the root was rotated too often".to_owned(),
            })?;
        let new = Root::generate(RootName { custody: open.record.custody, version })?;
        let mut record = open.record.resealed(&open.root, &new, &*self.devices.keys)?;
        change(&mut record, &new)?;
        self.open_all(&record, pins)?;
        if matches!(self.verdict(open)?, Verdict::Newest) {
            self.correct_unseen(open)?;
        }
        // A write that failed before may have stored its state all the same. No device forgets a key while it is not
        // certain which state the disk holds.
        open.record = self.commit(&open.root, open.record.clone())?;
        for enrolled in &mut record.protectors {
            if let Some(present) = open.record.protectors.iter().find(|present| present.id == enrolled.id) {
                (enrolled.anchored, enrolled.unseen) = (present.anchored, present.unseen);
            }
        }

        let before = open.record.protectors.clone();
        let mut made: Vec<EnrolledProtector> = Vec::new();
        let rewrapped = record.protectors.iter_mut().try_for_each(|enrolled| match self.device(enrolled) {
            Some(device) => {
                let old = enrolled.enrolment.clone();
                enrolled.enrolment = device.enrol(Some(&old))?.enrolment;
                if enrolled.enrolment != old {
                    made.push(enrolled.clone());
                }
                enrolled.wrap(device, &new)
            }
            // The officers' public key; what else is not configured was refused by `open_all`.
            None => super::recover::wrap(enrolled, &new),
        });
        let committed = rewrapped.and_then(|()| self.commit(&new, record));
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => {
                // A write whose outcome nobody knows may have stored the new state: then its keys must stay.
                if !matches!(error, CustodyError::Storage { .. }) {
                    made.iter().for_each(|enrolled| drop(self.erase(enrolled, None)));
                }
                return Err(error);
            }
        };
        let mut rotated =
            Rotated { done: vec![format!("the root has version {version}")], still_opens: Vec::new() };
        for old in &before {
            let kept = committed.protectors.iter().find(|enrolled| enrolled.id == old.id);
            let erased = if kept.is_some_and(|kept| kept.enrolment == old.enrolment) {
                Err(format!("{}: its wrapping key is the same as before", old.name))
            } else {
                // Sealed under the old root, which is still there; a kept device's authorisations stay in use.
                let authorisation = if kept.is_none() { old.authorisation(&open.root)? } else { None };
                self.erase(old, authorisation.as_deref().map(Vec::as_slice))
            };
            match erased {
                Ok(done) => rotated.done.push(done),
                Err(why) => {
                    rotated.done.push(why);
                    rotated.still_opens.push(match super::recover::shares_of(old) {
                        Some((threshold, shares)) => {
                            format!("{threshold} of the officers' {shares} shares of before")
                        }
                        None => old.name.clone(),
                    });
                }
            }
        }
        *open = Open { record: committed, root: new };
        Ok(rotated)
    }

    /// Destroys what an enrolment was made of, and says in words that it did, or why what it was made of may still exist.
    pub(super) fn erase(
        &self,
        enrolled: &EnrolledProtector,
        authorisation: Option<&[u8]>,
    ) -> Result<String, String> {
        let name = &enrolled.name;
        if enrolled.kind == ProtectorKind::Recovery {
            return Err(format!("{name}: their shares of before exist until they have destroyed them"));
        }
        let Some(device) = self.device(enrolled) else {
            return Err(format!("{name}: it is not configured, so its old wrapping key was left as it is"));
        };
        match device.erase(&enrolled.enrolment, authorisation) {
            Ok(Erased::Destroyed) => Ok(format!("{name}: its old wrapping key is destroyed")),
            Ok(Erased::Kept(why)) => Err(format!("{name}: its old wrapping key may still exist: {why}")),
            Err(error) => Err(format!("{name}: its old wrapping key could not be destroyed: {error}")),
        }
    }

    /// Keeps a decision that was taken, so that the ledger can record it. Durable before the state that counts it.
    pub(super) fn keep_decision(&self, sequence: u64, transcript: &[u8]) -> Result<(), CustodyError> {
        self.folder
            .replace(&super::decide::decision_file(sequence), transcript)
            .map_err(|error| storage(&error))
    }
}
