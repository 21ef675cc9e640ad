//! What everybody who may ask is told.

use super::Service;
use crate::protector::Protector;
use crate::state::{Custody, Keys, PinTries, protector_id};
use zixt_hsm_protocol::{CustodyError, ProtectorInfo, Status, TokenInfo};
use zixt_types::{ProtectorKind, limits};

/// A device in the words that officers approve.
#[must_use]
pub fn description(info: &TokenInfo) -> String {
    let software = if info.software { ", SOFTWARE" } else { "" };
    let words = format!("{} (serial {}, {}{software})", info.label, info.serial, info.model);
    let plain: String = words.chars().filter(|c| !c.is_control()).collect();
    let mut end = plain.len().min(limits::DESCRIPTION_BYTES_MAX);
    while !plain.is_char_boundary(end) {
        end -= 1;
    }
    plain[..end].to_owned()
}

impl Service {
    /// State, keys and advice.
    #[must_use]
    pub fn status(&self) -> Status {
        let devices = self.look_at_devices();
        let custody = self.read();
        let protectors = self.protectors(&custody, devices);
        let (reason, advice) = self.reason(&custody, &protectors);
        let record = custody.record();
        Status {
            state: custody.kind(),
            reason,
            advice,
            keys: record.map(|record| record.public_keys()).unwrap_or_default(),
            genesis: record.and_then(|record| record.pinned.as_ref()).map(|pinned| pinned.genesis),
            lab: record.map(|record| record.lab),
            unlock: self.unlock_mode(&custody),
            last_vote: custody.keys().ok().and_then(Keys::last_vote),
            protectors,
            last_precommit: custody.keys().ok().and_then(Keys::last_precommit),
            sequence: record.map_or(0, |record| record.sequence),
            appliance: record.and_then(|record| record.appliance().ok()),
            recovery: record.and_then(super::recover::shares),
        }
    }

    fn reason(&self, custody: &Custody, protectors: &[ProtectorInfo]) -> (String, String) {
        let advice = |error: &CustodyError| error.advice().to_owned();
        match custody {
            Custody::Operational(_) => (String::new(), String::new()),
            Custody::Quarantined(reason, _) if self.is_unvouched() => (
                reason.clone(),
                "Switch the device on, or put it back into hsmd.toml. If it is lost, let the officers activate a new consensus \
                 key, and remove it."
                    .to_owned(),
            ),
            Custody::Quarantined(reason, _) => {
                (reason.clone(), advice(&CustodyError::Quarantined { reason: String::new() }))
            }
            Custody::Failed(reason) => {
                (reason.clone(), advice(&CustodyError::Failed { reason: String::new() }))
            }
            Custody::Unprovisioned(_) | Custody::Locked(_) => {
                let usable = |protector: &&ProtectorInfo| protector.token.is_some();
                let open = protectors.iter().any(|protector| protector.open);
                match (protectors.iter().find(usable), protectors.first()) {
                    (None, Some(unseen)) => (
                        format!("the token is absent: {}", unseen.problem),
                        advice(&CustodyError::TokenAbsent { detail: String::new() }),
                    ),
                    _ if matches!(custody, Custody::Locked(_)) || !open => match self.last_failure() {
                        Some(error) => (format!("the last unlock failed: {error}"), advice(&error)),
                        None => (self.last_try_text(), advice(&CustodyError::Locked)),
                    },
                    _ if custody.record().is_some_and(|record| record.pinned.is_some()) => (
                        "one protector wraps the root: when it is lost, the keys are".to_owned(),
                        "Let the officers add a second protector or set recovery; then it goes on by itself."
                            .to_owned(),
                    ),
                    _ => (String::new(), advice(&CustodyError::Unprovisioned)),
                }
            }
        }
    }

    /// What every configured device says of itself. Asked before the state is looked at: a device that hangs must not
    /// hold up who signs.
    pub(super) fn look_at_devices(&self) -> Vec<ProtectorInfo> {
        self.devices.protectors.iter().map(|device| look_at(&**device)).collect()
    }

    /// Enrolled protectors first, then what the configuration offers besides.
    pub(super) fn protectors(
        &self,
        custody: &Custody,
        mut devices: Vec<ProtectorInfo>,
    ) -> Vec<ProtectorInfo> {
        let record = custody.record();
        let enrolled = record.map(|record| record.protectors.as_slice()).unwrap_or_default();
        let mut infos = Vec::new();
        for enrolled in enrolled {
            let of = |info: &ProtectorInfo| info.name == enrolled.name && info.kind == enrolled.kind;
            let mut info = match devices.iter().position(of) {
                Some(at) => devices.remove(at),
                None => unconfigured(&enrolled.name, enrolled.kind),
            };
            info.id = Some(enrolled.id);
            info.enrolled = true;
            info.anchored = enrolled.anchored.is_some();
            info.anchored_closed = enrolled.counter_auth.is_some();
            infos.push(info);
        }
        for mut info in devices {
            info.id = record
                .zip(info.token.as_ref())
                .map(|(record, token)| protector_id(record.custody, info.kind, token));
            infos.push(info);
        }
        infos
    }

    pub(super) fn last_try_text(&self) -> String {
        match PinTries::peek(&self.folder) {
            Ok(tries) => {
                let wrong = tries.wrong().map(|tries| {
                    format!("{} wrong PINs of {} since the last right one", tries.wrong, tries.protector)
                });
                wrong.collect::<Vec<_>>().join(", ")
            }
            Err(_) => String::new(),
        }
    }
}

fn look_at(device: &dyn Protector) -> ProtectorInfo {
    let (token, problem) = match device.describe() {
        Ok(token) => (Some(token), String::new()),
        Err(error) => (None, error.to_string()),
    };
    ProtectorInfo {
        name: device.name().to_owned(),
        kind: device.kind(),
        id: None,
        enrolled: false,
        configured: true,
        open: device.is_open(),
        token,
        problem,
        anchored: false,
        anchored_closed: false,
    }
}

fn unconfigured(name: &str, kind: ProtectorKind) -> ProtectorInfo {
    let problem = match kind {
        ProtectorKind::Recovery => "officers hold it in shares",
        _ => "it is not in the configuration",
    };
    ProtectorInfo {
        name: name.to_owned(),
        kind,
        id: None,
        enrolled: true,
        configured: false,
        open: false,
        token: None,
        problem: problem.to_owned(),
        anchored: false,
        anchored_closed: false,
    }
}
