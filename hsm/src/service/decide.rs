//! What officers decided, carried out: custody checks M of N itself, so that nobody between them and it can leave that
//! out.

use super::root::Rotated;
use super::{Service, now, storage};
use crate::backend::{NewKey, StoredKey};
use crate::state::{Custody, CustodyRecord, EnrolledProtector, Folder as _, Held, mode, store_guard};
use zixt_ceremony::OfficerRule;
use zixt_hsm_protocol::{Card, CustodyError, KeyInfo, KeyPurpose, KeyStatus, NamedPin, TakenDecision};
use zixt_types::{Action, CustodyMode, Decision, Hash, ProtectorId, SuiteId, Timestamp, limits};

/// How long officers have, in milliseconds: two weeks, so that one of them may be away.
pub(super) const DECISION_LIFE_MS: u64 = 14 * 86_400_000;

/// Decisions in one answer: of a frame's size whatever the number of officers.
pub(super) const DECISIONS_PAGE: usize = 2;

/// Numbers that a decision may leave out in quarantine: far more than a network decides, and few enough to look for all.
const AHEAD_MAX: u64 = 10_000;

/// The file of a decision that was taken.
pub(super) fn decision_file(sequence: u64) -> String {
    format!("decision-{sequence}")
}

/// What a decision to activate a key says.
struct Activation {
    purpose: KeyPurpose,
    retires: Hash,
    activates: Hash,
    suite: SuiteId,
    custody: CustodyMode,
}

impl Service {
    /// The action of a transcript that enough officers of this network approved, for this appliance, now.
    pub(super) fn judge(
        &self,
        record: &CustodyRecord,
        transcript: &[u8],
        now: Timestamp,
    ) -> Result<Action, CustodyError> {
        let not_approved =
            |error: zixt_ceremony::CeremonyError| CustodyError::NotApproved { why: error.to_string() };
        let pinned = record.pinned.as_ref().ok_or(CustodyError::Unprovisioned)?;
        let rule = OfficerRule { officers: pinned.officers.clone(), required: pinned.required };
        let approved = zixt_ceremony::judge(transcript, &rule, pinned.genesis, &*self.devices.crypto)
            .map_err(not_approved)?;
        let due = due(record, approved.action());
        approved.check_due(record.appliance()?, due, now).map_err(not_approved)?;
        Ok(approved.action().clone())
    }

    /// Carries out a decision. Returns what was done, for people.
    pub(super) fn decide(
        &self,
        transcript: &[u8],
        pins: &[NamedPin],
        cards: &[Card],
    ) -> Result<Vec<String>, CustodyError> {
        let _change = self.changing();
        self.before_change();
        let mut custody = self.write();
        let action = self.judge(&custody.open()?.record, transcript, now())?;
        self.write_quarantine(&mut custody)?;
        let record = custody.open()?.record.clone();
        let sequence = action.sequence;
        let done = match action.decision {
            Decision::RotateRoot => {
                self.with_decision(&mut custody, transcript, pins, |_, _| Ok(())).map(in_words)
            }
            Decision::RemoveProtector { protector } => {
                self.remove_protector(&mut custody, transcript, pins, protector)
            }
            Decision::SetRecovery { threshold, holders } => {
                let recovery = super::recover::new(&record, threshold, &holders, cards)?;
                if super::recover::shares(&record).is_none() {
                    return self.first_recovery(&mut custody, transcript, sequence, recovery);
                }
                self.with_decision(&mut custody, transcript, pins, move |record, _| {
                    super::recover::put(record, recovery)
                })
                .map(in_words)
            }
            Decision::ActivateKey { purpose, retires, activates, suite, custody: mode } => {
                let activation = Activation { purpose, retires, activates, suite, custody: mode };
                self.activate(&mut custody, transcript, sequence, &activation)
            }
            Decision::DestroyKey { purpose, key } => {
                self.destroy_key(&mut custody, transcript, pins, purpose, key)
            }
            Decision::SetRoles { .. } => self.count_only(&mut custody, transcript),
            Decision::AddProtector { .. } => Err(CustodyError::WrongState {
                why: "a protector is added together with its PIN: `zixt-hsm add-protector`".to_owned(),
            }),
            Decision::Recover { .. } => Err(CustodyError::WrongState {
                why: "recovery is for a machine without keys: `zixt-hsm recover`".to_owned(),
            }),
        }?;
        log::info!("decision {sequence} of the officers: {}", done.join("; "));
        self.complete(&mut custody)?;
        Ok(done)
    }

    /// Seals the present root to the first recovery key. There are no earlier shares to withdraw, so nothing is rotated, and
    /// no other protector is needed: one of two may be lost, and without shares or a third it could not be removed.
    fn first_recovery(
        &self,
        custody: &mut Custody,
        transcript: &[u8],
        sequence: u64,
        mut recovery: EnrolledProtector,
    ) -> Result<Vec<String>, CustodyError> {
        let open = custody.open_mut()?;
        super::recover::wrap(&mut recovery, &open.root)?;
        let mut next = open.record.clone();
        super::recover::put(&mut next, recovery)?;
        next.sequence += 1;
        self.keep_decision(open.record.sequence, transcript)?;
        open.record = self.commit(&open.root, next)?;
        let done = vec!["the officers' shares open the root, which stays the same".to_owned()];
        log::info!("decision {sequence} of the officers: {}", done.join("; "));
        self.complete(custody)?;
        Ok(done)
    }

    /// Keeps and counts a decision that changes nothing here: the server brings it into the ledger and carries it out.
    fn count_only(&self, custody: &mut Custody, transcript: &[u8]) -> Result<Vec<String>, CustodyError> {
        if matches!(custody, Custody::Quarantined(..)) {
            return Err(CustodyError::WrongState {
                why: "custody is in quarantine: a new consensus key comes first".to_owned(),
            });
        }
        let open = custody.open_mut()?;
        let mut next = open.record.clone();
        next.sequence += 1;
        self.keep_decision(open.record.sequence, transcript)?;
        open.record = self.commit(&open.root, next)?;
        Ok(vec!["the decision is kept for the ledger; nothing changes in custody".to_owned()])
    }

    /// Rotates the root, as most decisions do, and counts the decision.
    fn with_decision(
        &self,
        custody: &mut Custody,
        transcript: &[u8],
        pins: &[NamedPin],
        change: impl FnOnce(&mut CustodyRecord, &crate::root::Root) -> Result<(), CustodyError>,
    ) -> Result<Rotated, CustodyError> {
        let open = custody.open_mut()?;
        self.keep_decision(open.record.sequence, transcript)?;
        self.rotate_root(open, pins, |record, root| {
            record.sequence += 1;
            change(record, root)
        })
    }

    fn remove_protector(
        &self,
        custody: &mut Custody,
        transcript: &[u8],
        pins: &[NamedPin],
        id: ProtectorId,
    ) -> Result<Vec<String>, CustodyError> {
        let record = &custody.open()?.record;
        let Some(removed) = record.protectors.iter().find(|enrolled| enrolled.id == id).cloned() else {
            return Err(CustodyError::NoSuchProtector { name: id.to_string(), known: self.names() });
        };
        let left = record.protectors.iter().filter(|enrolled| enrolled.id != id);
        // Officers' shares open no daily unlock.
        let devices = left.clone().filter(|enrolled| self.device(enrolled).is_some()).count();
        if devices == 0 || (!record.lab && left.count() < 2) {
            return Err(CustodyError::WrongProtector {
                name: removed.name,
                why: "too few would be left; add another one first".to_owned(),
            });
        }
        // So that it can destroy its key, if it is still there; that it is not is no reason to keep it.
        if let (Some(device), Some(named)) =
            (self.device(&removed), pins.iter().find(|named| named.protector == removed.name))
            && !device.is_open()
            && super::provision::same_device(record, &removed, device).is_ok()
        {
            self.try_pin(device, zixt_hsm_pkcs11::PinTry::Attended, || {
                device.open(Some(&removed.enrolment), &named.pin, zixt_hsm_pkcs11::PinTry::Attended)
            })?;
        }
        let rotated = self.with_decision(custody, transcript, pins, |record, _| {
            record.protectors.retain(|enrolled| enrolled.id != id);
            Ok(())
        })?;
        let mut done = in_words(rotated);
        if let Some(device) = self.device(&removed) {
            device.close();
        }
        done.push(format!("{} protects nothing any more", removed.name));
        Ok(done)
    }

    pub(super) fn generate_key(&self, purpose: KeyPurpose) -> Result<KeyInfo, CustodyError> {
        let _change = self.changing();
        rotates(purpose)?;
        self.before_change();
        let mut custody = self.write();
        if custody.open()?.record.pinned.is_none() {
            return Err(CustodyError::Unprovisioned);
        }
        self.write_quarantine(&mut custody)?;
        let quarantined = matches!(&*custody, Custody::Quarantined(..));
        let open = custody.open_mut()?;
        let mut next = open.record.clone();
        if quarantined {
            // What is away now must not vouch for a copy of a state with this key in it, once the key was put to use.
            self.set_apart(&mut next, &open.root)?;
        }
        let of_purpose = next.keys.iter().filter(|key| key.purpose == purpose);
        let version = of_purpose.map(|key| key.version).max().unwrap_or(0) + 1;
        next.take_out(|key| key.purpose == purpose && key.status == KeyStatus::Pending);
        let new = NewKey {
            purpose,
            version,
            suite: next.suite(),
            mode: mode(&next.protectors),
            status: KeyStatus::Pending,
        };
        let recovery = super::recover::public_key(&next)?;
        let key = self.devices.keys.generate(&open.root, new, recovery.as_deref())?;
        let info = key.info();
        next.keys.push(key);
        open.record = self.commit(&open.root, next)?;
        drop(self.tidy(open));
        log::info!("made the {} key {} for officers to activate", purpose.name(), info.hash);
        Ok(info)
    }

    /// Puts a pending key in the place of the active one. In quarantine this is what ends it: a consensus key that no
    /// other machine has, with a vote guard of its own. State that is older than the ledger does not know the key that the
    /// ledger retires; officers do.
    fn activate(
        &self,
        custody: &mut Custody,
        transcript: &[u8],
        sequence: u64,
        activation: &Activation,
    ) -> Result<Vec<String>, CustodyError> {
        let Activation { purpose, .. } = *activation;
        rotates(purpose)?;
        let open = custody.open_mut()?;
        let mut next = open.record.clone();
        let active = next.key(purpose)?.hash();
        if active != activation.retires && next.quarantine.is_none() {
            return Err(CustodyError::NoSuchKey {
                why: format!("the active {} key is {active}", purpose.name()),
            });
        }
        let is_new = |key: &StoredKey| {
            key.purpose == purpose && key.status == KeyStatus::Pending && key.hash() == activation.activates
        };
        let Some(new) = next.keys.iter().find(|key| is_new(key)) else {
            return Err(CustodyError::NoSuchKey {
                why: format!("no pending {} key is {}", purpose.name(), activation.activates),
            });
        };
        if new.suite != activation.suite || new.mode != activation.custody {
            return Err(CustodyError::NotApproved {
                why: format!(
                    "they approved a key of {} that {}; it is of {} and {}",
                    activation.suite,
                    activation.custody.describe(),
                    new.suite,
                    new.mode.describe()
                ),
            });
        }
        for key in next.keys.iter_mut().filter(|key| key.purpose == purpose) {
            key.status = match key.status {
                KeyStatus::Pending => KeyStatus::Active,
                _ => KeyStatus::Retired,
            };
        }
        // Active ones first, in the order of all purposes.
        next.keys.sort_by_key(|key| (key.status != KeyStatus::Active, key.purpose, key.version));
        next.sequence = sequence + 1;
        let ends_quarantine = purpose == KeyPurpose::Consensus
            && (next.quarantine.is_some() || matches!(custody, Custody::Quarantined(..)));
        let open = custody.open_mut()?;
        if purpose == KeyPurpose::Consensus && !ends_quarantine {
            // Whoever lets a whole rotation pass does not unpack it any more.
            next.unpacking = None;
        }
        if ends_quarantine {
            next.quarantine = None;
            self.set_apart(&mut next, &open.root)?;
            next.renew_guard(&open.root)?;
            // Before the state that names it: until that is durable, the quarantine stands.
            store_guard(&self.folder, &next.open_guard_key(&open.root)?)?;
        }
        self.keep_decision(sequence, transcript)?;
        // The point of no return: from here on the old key signs nothing.
        open.record = self.commit(&open.root, next)?;
        let before = std::mem::replace(custody, super::in_between());
        *custody = match before {
            Custody::Operational(keys) => {
                let open = keys.unload();
                self.load(custody, open)?;
                return Ok(done(activation));
            }
            Custody::Quarantined(_, Held::Open(open)) if ends_quarantine => {
                self.load(custody, *open)?;
                return Ok(done(activation));
            }
            other => other,
        };
        Ok(done(activation))
    }

    /// Takes a retired key out and rotates the root, so that no copy of the old state opens it any more; where one still
    /// does, the answer says by what.
    fn destroy_key(
        &self,
        custody: &mut Custody,
        transcript: &[u8],
        pins: &[NamedPin],
        purpose: KeyPurpose,
        hash: Hash,
    ) -> Result<Vec<String>, CustodyError> {
        let record = &custody.open()?.record;
        let found = record.keys.iter().find(|key| key.purpose == purpose && key.hash() == hash).cloned();
        let Some(key) = found.filter(|key| key.status == KeyStatus::Retired) else {
            return Err(CustodyError::NoSuchKey {
                why: format!("no retired {} key is {hash}", purpose.name()),
            });
        };
        let rotated = self.with_decision(custody, transcript, pins, |record, _| {
            record.take_out(|kept| kept.hash() == hash);
            Ok(())
        })?;
        let name = purpose.name();
        // Of a consensus key inside a token there never was a copy.
        let inside = key.mode == CustodyMode::Token && purpose == KeyPurpose::Consensus;
        let said = if let Some(why) = rotated.tried.still_there(hash) {
            format!(
                "the {name} key {hash} is taken out, but not destroyed: its token may still hold it ({why})"
            )
        } else if inside || rotated.still_opens.is_empty() {
            format!("the {name} key {hash} is destroyed")
        } else {
            format!(
                "the {name} key {hash} is taken out, but not destroyed where a copy of the state of before exists, a \
                 backup too: {} opens it",
                rotated.still_opens.join(", or ")
            )
        };
        Ok(rotated.done.into_iter().chain([said]).collect())
    }

    pub(super) fn decisions(&self, from: u64) -> Result<Vec<TakenDecision>, CustodyError> {
        let taken = self.read().record().map_or(0, |record| record.sequence);
        let mut decisions = Vec::new();
        for sequence in from..taken {
            let read = self.folder.read(&decision_file(sequence), limits::TRANSCRIPT_BYTES_MAX);
            if decisions.len() == DECISIONS_PAGE {
                break;
            }
            // Those from before a recovery are not on this machine; the ledger has them.
            if let Some(transcript) = read.map_err(|error| storage(&error))? {
                decisions.push(TakenDecision { sequence, transcript });
            }
        }
        Ok(decisions)
    }
}

/// What a rotation did, and what it did not.
fn in_words(rotated: Rotated) -> Vec<String> {
    let Rotated { mut done, still_opens, .. } = rotated;
    done.push(match still_opens.is_empty() {
        true => "no copy of the state of before opens any more".to_owned(),
        false => format!("a copy of the state of before still opens with {}", still_opens.join(", or ")),
    });
    done
}

fn done(activation: &Activation) -> Vec<String> {
    let name = activation.purpose.name();
    vec![
        format!("the {name} key {} signs", activation.activates),
        format!("the {name} key {} is retired and signs nothing any more", activation.retires),
    ]
}

/// The number of the next decision. State in quarantine may be older than the ledger, which takes only higher numbers than
/// it has: then custody goes on from where officers say that the ledger is.
fn due(record: &CustodyRecord, action: &Action) -> u64 {
    let ahead = action.sequence.checked_sub(record.sequence).is_some_and(|ahead| ahead <= AHEAD_MAX);
    let activates = matches!(action.decision, Decision::ActivateKey { .. });
    if record.quarantine.is_some() && activates && ahead { action.sequence } else { record.sequence }
}

/// The ledger follows these two; the others stand in the genesis for ever.
fn rotates(purpose: KeyPurpose) -> Result<(), CustodyError> {
    match purpose {
        KeyPurpose::Consensus | KeyPurpose::Enroller => Ok(()),
        KeyPurpose::Identity | KeyPurpose::Tls => Err(CustodyError::WrongState {
            why: format!(
                "the {} key is what everybody knows this appliance by; it is not rotated",
                purpose.name()
            ),
        }),
    }
}
