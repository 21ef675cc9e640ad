//! The root's rotation, and what becomes of the wrapping keys of before.

use super::anchors::Verdict;
use super::leftovers::Tried;
use super::{Service, storage};
use crate::protector::{Auths, Protector};
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
    /// What became of what was to be destroyed.
    pub(super) tried: Tried,
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
                    self.try_pin(device, PinTry::Attended, || {
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
    /// Until the new state is durable the old one is whole; from then on the new one is, and names what is to be destroyed. A
    /// crash between that and the last step leaves it to the next unlock.
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
        let before = record.protectors.clone();
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
        for old in &before {
            match record.protectors.iter().find(|enrolled| enrolled.id == old.id) {
                Some(kept) if kept.enrolment == old.enrolment => {}
                kept => {
                    let whole = kept.is_none();
                    record.erase_later(old, whole);
                }
            }
        }
        let committed = rewrapped.and_then(|()| self.commit(&new, record));
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => {
                // A write whose outcome nobody knows may have stored the new state: then its keys must stay.
                if !matches!(error, CustodyError::Storage { .. }) {
                    for enrolled in &made {
                        let device = self.device(enrolled);
                        drop(device.map(|device| device.erase(&enrolled.enrolment, Auths::default())));
                    }
                }
                return Err(error);
            }
        };
        *open = Open { record: committed, root: new };
        let tried = self.tidy(open);
        let mut done = vec![format!("the root has version {version}")];
        let mut still_opens = Vec::new();
        for old in &before {
            let shares = super::recover::shares_of(old);
            let became = match (tried.of(old), shares) {
                (Some(became), _) => became.clone(),
                (None, Some(_)) => {
                    Err(format!("{}: their shares of before exist until they have destroyed them", old.name))
                }
                (None, None) => Err(format!("{}: its wrapping key is the same as before", old.name)),
            };
            match became {
                Ok(said) => done.push(said),
                Err(why) => {
                    done.push(why);
                    still_opens.push(match shares {
                        Some((threshold, shares)) => {
                            format!("{threshold} of the officers' {shares} shares of before")
                        }
                        None => old.name.clone(),
                    });
                }
            }
        }
        Ok(Rotated { done, still_opens, tried })
    }

    /// Keeps a decision that was taken, so that the ledger can record it. Durable before the state that counts it.
    pub(super) fn keep_decision(&self, sequence: u64, transcript: &[u8]) -> Result<(), CustodyError> {
        self.folder
            .replace(&super::decide::decision_file(sequence), transcript)
            .map_err(|error| storage(&error))
    }
}
