//! The root's life: whether its state is the newest, and its rotation.

use super::{Service, storage};
use crate::protector::{Erased, Protector};
use crate::root::{Root, RootName};
use crate::state::{CustodyRecord, EnrolledProtector, Folder as _, Open};
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, NamedPin};
use zixt_tpm::Freshness;
use zixt_types::ProtectorKind;

/// Compares a state with a device's anchor, and advances an anchor that a crash left one behind. `Some` says that the
/// state is not the newest.
pub(super) fn settle(
    protector: &dyn Protector,
    enrolled: &EnrolledProtector,
) -> Result<Option<String>, CustodyError> {
    match compare(protector, enrolled)? {
        Some((_, Ok(Freshness::Current))) | None => Ok(None),
        Some((recorded, Ok(Freshness::Ahead))) => {
            protector.advance(&enrolled.enrolment, recorded).map(|()| None)
        }
        Some((_, Err(why))) => Ok(Some(why)),
    }
}

/// As [`settle`], without a change.
pub(super) fn judge(
    protector: &dyn Protector,
    enrolled: &EnrolledProtector,
) -> Result<Option<String>, CustodyError> {
    Ok(compare(protector, enrolled)?.and_then(|(_, judged)| judged.err()))
}

/// The number in the state, and what the device's says about it; nothing if the device has none.
#[expect(clippy::type_complexity, reason = "two callers, both above")]
fn compare(
    protector: &dyn Protector,
    enrolled: &EnrolledProtector,
) -> Result<Option<(u64, Result<Freshness, String>)>, CustodyError> {
    let Some(recorded) = enrolled.anchored else { return Ok(None) };
    let judged = match protector.anchor(&enrolled.enrolment) {
        Ok(Some(anchored)) => zixt_tpm::judge_state(recorded, anchored).map_err(|error| error.to_string()),
        Ok(None) => Err(format!("{} has no anchor any more", enrolled.name)),
        Err(CustodyError::AnchorMissing { detail }) => Err(detail),
        Err(error) => return Err(error),
    };
    Ok(Some((recorded, judged)))
}

impl Service {
    /// Why a state is not the newest, by every anchor that is open.
    pub(super) fn set_back(&self, record: &CustodyRecord) -> Result<Option<String>, CustodyError> {
        for enrolled in &record.protectors {
            let open = self.device(enrolled).filter(|protector| protector.is_open());
            if let Some(why) = open.map(|protector| settle(protector, enrolled)).transpose()?.flatten() {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

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
    /// old ones were made of is destroyed. `change` says what else is different afterwards. Returns what was done.
    ///
    /// Until the new state is durable the old one is whole; from then on the new one is.
    pub(super) fn rotate_root(
        &self,
        open: &mut Open,
        pins: &[NamedPin],
        change: impl FnOnce(&mut CustodyRecord, &Root) -> Result<(), CustodyError>,
    ) -> Result<Vec<String>, CustodyError> {
        let version =
            open.record.root_version.checked_add(1).ok_or_else(|| CustodyError::Internal {
                detail: "the root was rotated too often".to_owned(),
            })?;
        let new = Root::generate(RootName { custody: open.record.custody, version })?;
        let mut record = open.record.resealed(&open.root, &new, &*self.devices.keys)?;
        change(&mut record, &new)?;
        self.open_all(&record, pins)?;

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
        let mut done = vec![format!("the root has version {version}")];
        for old in &before {
            let kept = committed.protectors.iter().find(|enrolled| enrolled.id == old.id);
            if kept.is_some_and(|kept| kept.enrolment == old.enrolment) {
                continue;
            }
            // Sealed under the old root, which is still there; a kept device's authorisations stay in use.
            let authorisation = if kept.is_none() { old.authorisation(&open.root)? } else { None };
            done.push(self.erase(old, authorisation.as_deref().map(Vec::as_slice)));
        }
        *open = Open { record: committed, root: new };
        Ok(done)
    }

    /// Destroys what an enrolment was made of, and says in words whether that worked.
    fn erase(&self, enrolled: &EnrolledProtector, authorisation: Option<&[u8]>) -> String {
        let name = &enrolled.name;
        let Some(device) = self.device(enrolled) else {
            return format!("{name}: it is not configured, so its old wrapping key was left as it is");
        };
        match device.erase(&enrolled.enrolment, authorisation) {
            Ok(Erased::Destroyed) => format!("{name}: its old wrapping key is destroyed"),
            Ok(Erased::Kept(why)) => format!("{name}: its old wrapping key may still exist: {why}"),
            Err(error) => format!("{name}: its old wrapping key could not be destroyed: {error}"),
        }
    }

    /// Keeps a decision that was taken, so that the ledger can record it. Durable before the state that counts it.
    pub(super) fn keep_decision(&self, sequence: u64, transcript: &[u8]) -> Result<(), CustodyError> {
        self.folder
            .replace(&super::decide::decision_file(sequence), transcript)
            .map_err(|error| storage(&error))
    }
}
