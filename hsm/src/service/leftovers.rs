//! What no state needs any more, and devices may still hold: wrapping keys of before, keys that were taken out.
//!
//! The change that makes it so notes it in the same commit. It is destroyed after that, and where a crash came in between, or
//! the device was away, at the next unlock that reaches it.

use super::{Service, provision};
use crate::protector::{Auths, Erased};
use crate::root::Root;
use crate::state::{CustodyRecord, EnrolledProtector, Open};
use zixt_hsm_protocol::{CustodyError, Finding};
use zixt_types::{Hash, ProtectorId};

/// What became of each leftover, in words: `Err` of what may still exist.
#[derive(Default)]
pub(super) struct Tried {
    enrolments: Vec<(ProtectorId, Vec<u8>, Result<String, String>)>,
    keys: Vec<(Hash, Result<(), String>)>,
    /// Why nobody knows what became of any of them.
    unknown: Option<String>,
}

impl Tried {
    /// What became of an enrolment that was on the list.
    pub(super) fn of(&self, enrolled: &EnrolledProtector) -> Option<&Result<String, String>> {
        let is = |id: &ProtectorId, enrolment: &[u8]| *id == enrolled.id && enrolment == enrolled.enrolment;
        self.enrolments.iter().find(|(id, enrolment, _)| is(id, enrolment)).map(|(.., became)| became)
    }

    /// Why a key that was on the list may still exist.
    pub(super) fn still_there(&self, key: Hash) -> Option<&str> {
        let tried = self.keys.iter().find(|(hash, _)| *hash == key);
        let became = tried.and_then(|(_, became)| became.as_ref().err());
        self.unknown.as_ref().or(became).map(String::as_str)
    }
}

impl Service {
    /// Destroys what a durable state says is to be destroyed, as far as its device is there, and takes off the list what is
    /// gone or never will be.
    pub(super) fn destroy_leftovers(
        &self,
        record: &mut CustodyRecord,
        root: &Root,
    ) -> Result<Tried, CustodyError> {
        let mut tried = Tried::default();
        let mut to_erase = Vec::new();
        for left in &record.to_erase {
            // A key in a file is the same one when it is used again.
            let same = |used: &EnrolledProtector| used.name == left.name && used.enrolment == left.enrolment;
            if record.protectors.iter().any(same) {
                continue;
            }
            let (name, erased) = (&left.name, self.erase(record, left, root)?);
            let became = match erased {
                Ok(Erased::Destroyed) => Ok(format!("{name}: its old wrapping key is destroyed")),
                Ok(Erased::Kept(why)) => Err(format!("{name}: its old wrapping key may still exist: {why}")),
                Err(why) => {
                    to_erase.push(left.clone());
                    Err(format!("{name}: its old wrapping key is not destroyed yet: {why}"))
                }
            };
            tried.enrolments.push((left.id, left.enrolment.clone(), became));
        }
        let mut to_destroy = Vec::new();
        for left in &record.to_destroy {
            if record.quarantine.is_some() {
                // A state that was set back may name a key that the newest one uses.
                to_destroy.push(left.clone());
                tried.keys.push((
                    left.hash(),
                    Err("custody is quarantined; it is tried again after that".to_owned()),
                ));
                continue;
            }
            let became = match self.devices.keys.destroy(left) {
                Ok(Erased::Destroyed) => Ok(()),
                Ok(Erased::Kept(why)) => Err(why),
                Err(error) => {
                    to_destroy.push(left.clone());
                    Err(format!("{error}. It is tried again when custody is unlocked by that token"))
                }
            };
            tried.keys.push((left.hash(), became));
        }
        (record.to_erase, record.to_destroy) = (to_erase, to_destroy);
        Ok(tried)
    }

    /// The same after a commit, whose list becomes shorter by it.
    pub(super) fn tidy(&self, open: &mut Open) -> Tried {
        let mut next = open.record.clone();
        let tried = self.destroy_leftovers(&mut next, &open.root).and_then(|tried| {
            if next != open.record {
                open.record = self.commit(&open.root, next)?;
            }
            Ok(tried)
        });
        tried.unwrap_or_else(|error| {
            // It is found to be gone at the next unlock.
            log::warn!("what was to be destroyed stays on the list: {error}");
            Tried { unknown: Some(error.to_string()), ..Tried::default() }
        })
    }

    fn erase(
        &self,
        record: &CustodyRecord,
        left: &EnrolledProtector,
        root: &Root,
    ) -> Result<Result<Erased, String>, CustodyError> {
        let Some(device) = self.device(left) else { return Ok(Err("it is not configured".to_owned())) };
        let (whole, counter) = (left.authorisation(root)?, left.counter_auth(root)?);
        let auths = Auths {
            device: whole.as_deref().map(Vec::as_slice),
            counter: counter.as_deref().map(Vec::as_slice),
        };
        // Another token of its name does not have the key, which is no proof that it is gone.
        let erase = || {
            provision::same_device(record, left, device)?;
            device.erase(&left.enrolment, auths)
        };
        // One that hangs is not waited for again.
        let asked_closed = counter.is_some() && !device.is_open();
        let erased = if asked_closed { self.ask_closed(&left.name, erase) } else { erase() };
        Ok(erased.map_err(|error| error.to_string()))
    }

    /// What waits to be destroyed, and, if they are to be searched, what devices hold that no state knows.
    pub(super) fn look_for_leftovers(&self, record: &CustodyRecord, search: bool) -> Vec<Finding> {
        let finding = |what: String, good, found: String, advice: &str| Finding {
            what,
            good,
            found,
            advice: advice.to_owned(),
        };
        let mut findings = Vec::new();
        for left in &record.to_erase {
            // Of a protector that was removed because it is lost nothing better can be said.
            let in_use = record.protectors.iter().any(|enrolled| enrolled.id == left.id);
            findings.push(finding(
                format!("leftover {}", left.name),
                !in_use,
                "a wrapping key of before is still to be destroyed: the device was not there".to_owned(),
                if in_use { "Unlock by it once." } else { "" },
            ));
        }
        for left in &record.to_destroy {
            findings.push(finding(
                "leftover key".to_owned(),
                false,
                format!("the {} key {} is still in its token", left.purpose.name(), left.hash()),
                "Unlock by that token once. If it is lost, nothing is to be done.",
            ));
        }
        if !search {
            return findings;
        }
        let mut strays = Vec::new();
        for enrolled in &record.protectors {
            let Some(device) = self.device(enrolled).filter(|device| device.is_open()) else { continue };
            let of_device = |other: &&EnrolledProtector| other.id == enrolled.id;
            let known: Vec<_> = record.protectors.iter().chain(&record.to_erase).filter(of_device).collect();
            let known: Vec<&[u8]> = known.iter().map(|known| known.enrolment.as_slice()).collect();
            let found = device.strays(&known).unwrap_or_default();
            strays.extend(found.into_iter().map(|what| format!("{} holds the {what}", enrolled.name)));
        }
        let keys: Vec<_> = record.keys.iter().chain(&record.to_destroy).collect();
        // Where the token is not open, the next look finds them.
        let found = self.devices.keys.strays(&keys).unwrap_or_default();
        strays.extend(found.into_iter().map(|what| format!("the token of native keys holds the {what}")));
        findings.extend(strays.into_iter().map(|found| {
            finding(
                "stray".to_owned(),
                false,
                format!("{found}, which this state does not know"),
                "A change that was cut off left it, or another custody uses this token. If none does, delete it with the \
                 token's own tool (`pkcs11-tool --login --delete-object`).",
            )
        }));
        findings
    }
}
