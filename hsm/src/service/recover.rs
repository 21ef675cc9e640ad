//! Recovery: the officers' shares of the root, backups, and a fresh machine that opens one.

use super::decide::DECISION_LIFE_MS;
use super::{Service, now};
use crate::root::{Class, Root, RootName};
use crate::state::{
    Custody, CustodyRecord, EnrolledProtector, Held, Open, Unpacking, mode, protector_id, root_aad,
    store_guard,
};
use minicbor::{Decode, Encode};
use std::sync::PoisonError;
use zixt_ceremony::{OfficerRule, RecoveryKey, RecoveryRecord, RecoveryRequest, ShareRelease};
use zixt_crypto::hpke::{self, OpeningKey};
use zixt_crypto::selftest::generate_decapsulation_key;
use zixt_crypto::{AeadKey, Reference, digest, hash, labels};
use zixt_hsm_protocol::{BackupHead, Blob, Card, CustodyError, KeyStatus, RowKey, StateKind, TokenInfo};
use zixt_types::{Action, Canonical, Decision, Hash, ProtectorKind, ShareHolder};

/// The name of the officers' shares among the protectors.
const NAME: &str = "officers";

/// Custody's part of a backup. It holds no secret in clear; what opens it is the root, and what opens that is a protector
/// or the officers' shares.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct CustodyBackup {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The state file as it was. Its votes are not in the backup: they belong to one machine.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub record: Vec<u8>,
    /// The key of the backup's rest, sealed under the root.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub key: Vec<u8>,
}

impl Canonical for CustodyBackup {
    const WHAT: &'static str = "custody's part of a backup";
    const BYTES_MAX: usize = CustodyRecord::BYTES_MAX + 1024;
    const VERSION: Option<u64> = Some(1);
}

impl CustodyBackup {
    /// The hash that officers approve a recovery of.
    #[must_use]
    pub fn hash(bytes: &[u8]) -> Hash {
        hash::sha384(labels::CUSTODY_BACKUP, &[bytes])
    }
}

/// A recovery that waits for the officers. Lost with the process: then it is begun again.
pub(crate) struct Begun {
    backup: CustodyBackup,
    action: Action,
    machine: OpeningKey,
}

/// A new recovery key for these officers, whose shares are sealed to them. It wraps nothing yet.
pub(super) fn new(
    record: &CustodyRecord,
    threshold: u8,
    holders: &[ShareHolder],
    cards: &[Card],
) -> Result<EnrolledProtector, CustodyError> {
    let refused = |why: String| CustodyError::RecoveryRefused { why };
    let pinned = record.pinned.as_ref().ok_or(CustodyError::Unprovisioned)?;
    if let Some(stranger) = holders.iter().find(|holder| !pinned.officers.contains(&holder.officer)) {
        return Err(refused(format!("{} is no officer of this network", stranger.officer)));
    }
    let key = RecoveryKey::generate().map_err(internal)?;
    let kems: Vec<_> = cards.iter().map(|card| card.kem.clone()).collect();
    let shared = key
        .share(pinned.genesis, record.appliance()?, threshold, holders, &kems)
        .map_err(|error| refused(error.to_string()))?;
    let info = TokenInfo {
        label: NAME.to_owned(),
        serial: key.id().to_hex(),
        model: String::new(),
        software: false,
    };
    Ok(EnrolledProtector {
        id: protector_id(record.custody, ProtectorKind::Recovery, &info),
        name: NAME.to_owned(),
        kind: ProtectorKind::Recovery,
        software: false,
        enrolment: shared.to_bytes(),
        wrapped: Vec::new(),
        anchored: None,
        authorisation: None,
        counter_auth: None,
        unseen: false,
    })
}

/// Puts a recovery key in the place of an earlier one.
pub(super) fn put(record: &mut CustodyRecord, recovery: EnrolledProtector) -> Result<(), CustodyError> {
    record.protectors.retain(|enrolled| enrolled.kind != ProtectorKind::Recovery);
    record.protectors.push(recovery);
    Ok(())
}

/// Seals a root to the recovery key's public half: no officer is needed for that.
pub(super) fn wrap(enrolled: &mut EnrolledProtector, root: &Root) -> Result<(), CustodyError> {
    let shared = parse(&enrolled.enrolment)?;
    let aad = root_aad(root.name(), enrolled.id);
    enrolled.wrapped = hpke::seal(&shared.encapsulation_key, labels::HPKE_RECOVERY_ROOT, &aad, root.expose())
        .map_err(internal)?;
    Ok(())
}

/// The public half of the officers' recovery key.
pub(super) fn public_key(record: &CustodyRecord) -> Result<Option<Vec<u8>>, CustodyError> {
    enrolled(record).map(|enrolled| Ok(parse(&enrolled.enrolment)?.encapsulation_key)).transpose()
}

/// How many of how many officers recover the root.
pub(super) fn shares(record: &CustodyRecord) -> Option<(u8, u8)> {
    shares_of(enrolled(record)?)
}

/// The same of the officers' recovery key; none of another protector.
pub(super) fn shares_of(enrolled: &EnrolledProtector) -> Option<(u8, u8)> {
    let shared = parse(&enrolled.enrolment).ok().filter(|_| enrolled.kind == ProtectorKind::Recovery)?;
    Some((shared.threshold(), u8::try_from(shared.shares.len()).unwrap_or(u8::MAX)))
}

fn enrolled(record: &CustodyRecord) -> Option<&EnrolledProtector> {
    record.protectors.iter().find(|enrolled| enrolled.kind == ProtectorKind::Recovery)
}

fn parse(enrolment: &[u8]) -> Result<RecoveryRecord, CustodyError> {
    RecoveryRecord::parse(enrolment).map_err(|error| CustodyError::RecoveryRefused { why: error.to_string() })
}

fn internal(error: impl std::fmt::Display) -> CustodyError {
    CustodyError::Internal { detail: error.to_string() }
}

impl Service {
    pub(super) fn recovery_record(&self) -> Result<Option<Vec<u8>>, CustodyError> {
        let custody = self.read();
        Ok(custody.record().and_then(enrolled).map(|enrolled| enrolled.enrolment.clone()))
    }

    /// Begins a backup: custody's part, and a fresh key for the rest.
    pub(super) fn backup(&self) -> Result<BackupHead, CustodyError> {
        let custody = self.read();
        let Open { record, root } = custody.open()?;
        if enrolled(record).is_none() {
            return Err(CustodyError::RecoveryRefused {
                why: "no officer holds a share, so nobody could open the backup; set recovery first"
                    .to_owned(),
            });
        }
        let key = AeadKey::generate().map_err(internal)?;
        let backup = CustodyBackup {
            version: 1,
            record: record.to_bytes(),
            key: root.seal(Class::Backup, labels::CUSTODY_BACKUP, key.as_bytes())?,
        };
        Ok(BackupHead { custody: backup.to_bytes(), key: RowKey(key) })
    }

    /// Begins to recover a backup on a machine without keys, one of whose protectors is open.
    pub(super) fn begin_recovery(&self, bytes: &[u8]) -> Result<Vec<u8>, CustodyError> {
        let _change = self.changing();
        self.fresh()?;
        let refused = |why: String| CustodyError::RecoveryRefused { why };
        let backup = CustodyBackup::parse(bytes).map_err(|error| refused(error.to_string()))?;
        let record = CustodyRecord::parse(&backup.record).map_err(|error| refused(error.to_string()))?;
        let Some(enrolled) = enrolled(&record) else {
            return Err(refused("no officer holds a share of it".to_owned()));
        };
        let shared = parse(&enrolled.enrolment)?;
        let pinned = record.pinned.as_ref().ok_or_else(|| refused("it is of no network".to_owned()))?;
        let (seed, _) = generate_decapsulation_key(&Reference).map_err(internal)?;
        let machine = OpeningKey::new(&seed);
        let recipient = machine.encapsulation_key();
        let action = Action {
            version: Action::VERSION,
            genesis: pinned.genesis,
            appliance: record.appliance()?,
            sequence: record.sequence,
            expires_at: zixt_types::Timestamp(now().0.saturating_add(DECISION_LIFE_MS)),
            decision: Decision::Recover {
                backup: CustodyBackup::hash(bytes),
                recipient: digest::kem_key_hash(&recipient),
            },
        };
        let request =
            RecoveryRequest::new(&action, &recipient, &shared).map_err(|why| refused(why.to_owned()))?;
        *self.recovery.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Begun { backup, action, machine });
        log::info!("a recovery waits for the officers");
        Ok(request.to_bytes())
    }

    /// Recovers: opens the root by the officers' shares, seals everything anew for this machine's protector, and stays
    /// quarantined, because the machine that was lost may still sign somewhere.
    pub(super) fn finish_recovery(
        &self,
        transcript: &[u8],
        releases: &[Blob],
    ) -> Result<(StateKind, AeadKey), CustodyError> {
        let _change = self.changing();
        let protector = self.fresh()?;
        let refused = |why: String| CustodyError::RecoveryRefused { why };
        let mut waiting = self.recovery.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(begun) = &*waiting else {
            return Err(refused("no recovery was begun since zixt-hsmd was started".to_owned()));
        };
        // Nobody vouches for the record yet. Once its root is open, its MAC does: a record with other officers is then
        // another custody, and nothing of this one is opened by it.
        let record =
            CustodyRecord::parse(&begun.backup.record).map_err(|error| refused(error.to_string()))?;
        let pinned = record.pinned.as_ref().ok_or_else(|| refused("it is of no network".to_owned()))?;
        let rule = OfficerRule { officers: pinned.officers.clone(), required: pinned.required };
        let not_approved =
            |error: zixt_ceremony::CeremonyError| CustodyError::NotApproved { why: error.to_string() };
        let approved = zixt_ceremony::judge(transcript, &rule, pinned.genesis, &*self.devices.crypto)
            .map_err(not_approved)?;
        approved.check_due(record.appliance()?, record.sequence, now()).map_err(not_approved)?;
        if approved.action() != &begun.action {
            return Err(CustodyError::NotApproved {
                why: "they approved another recovery than this one".to_owned(),
            });
        }
        let enrolled =
            enrolled(&record).ok_or_else(|| refused("no officer holds a share of it".to_owned()))?;
        let shared = parse(&enrolled.enrolment)?;
        let mut shares = Vec::with_capacity(releases.len());
        for Blob(bytes) in releases {
            let release = ShareRelease::parse(bytes).map_err(|error| refused(error.to_string()))?;
            let share = zixt_ceremony::open_release(
                &shared,
                &approved,
                &release,
                &begun.machine,
                &*self.devices.crypto,
            );
            shares.push(share.map_err(|error| refused(error.to_string()))?);
        }
        let key = shared.combine(&shares).map_err(|error| refused(error.to_string()))?;
        let name = record.root_name();
        let opened = key
            .open(labels::HPKE_RECOVERY_ROOT, &root_aad(name, enrolled.id), &enrolled.wrapped)
            .map_err(|error| refused(error.to_string()))?;
        let old = Root::from_slice(name, &opened)?;
        if old.check_value() != record.check {
            return Err(CustodyError::UnsealFailed);
        }
        record.check_mac(&old)?;
        let rest = old.unseal(Class::Backup, labels::CUSTODY_BACKUP, &begun.backup.key)?;
        let rest = AeadKey::from_slice(&rest).map_err(|_| CustodyError::UnsealFailed)?;

        self.lab_only(protector.describe()?.software && !record.lab)?;
        let version = name
            .version
            .checked_add(1)
            .ok_or_else(|| refused("its root was rotated too often".to_owned()))?;
        let root = Root::generate(RootName { version, ..name })?;
        let mut next = record.resealed(&old, &root, &*self.devices.keys)?;
        // The machine that was lost may have put a pending key to use since: nobody's vote guard is here.
        next.keys.retain(|key| key.status != KeyStatus::Pending);
        (next.to_erase, next.to_destroy) = (Vec::new(), Vec::new());
        let open = |label: &[u8], aad: &[u8], sealed: &[u8]| key.open(label, aad, sealed).ok();
        // The other machine's devices stay there.
        next.protectors.retain(|kept| kept.kind == ProtectorKind::Recovery);
        next.protectors.iter_mut().try_for_each(|kept| wrap(kept, &root))?;
        let this = EnrolledProtector::enrol(protector, &root)?;
        next.protectors.insert(0, this.clone());
        let mode = mode(&next.protectors);
        let reason =
            format!("recovered at {} from a backup: the machine that was lost may still vote", now().utc());
        next.sequence += 1;
        next.quarantine = Some(reason.clone());
        // Whoever unpacks it may fail, and no second recovery would give it again.
        next.unpacking = Some(Unpacking::seal(CustodyBackup::hash(&begun.backup.to_bytes()), &rest, &root)?);
        let committed = (|| {
            for kept in &mut next.keys {
                *kept = self.devices.keys.recover(&root, kept, mode, &open)?;
            }
            next.renew_guard(&root)?;
            store_guard(&self.folder, &next.open_guard_key(&root)?)?;
            self.keep_decision(record.sequence, transcript)?;
            // The point of no return: from here on this machine holds the keys.
            self.commit(&root, next)
        })();
        let next = committed.inspect_err(|_| self.take_back(std::slice::from_ref(&this), &root))?;
        *waiting = None;
        log::info!("{reason}");
        *self.write() = Custody::Quarantined(reason, Held::Open(Box::new(Open { record: next, root })));
        Ok((StateKind::Quarantined, rest))
    }

    /// The key of a recovered backup's rest, until its files are unpacked.
    pub(super) fn backup_key(&self, backup: Hash) -> Result<AeadKey, CustodyError> {
        let custody = self.read();
        let Open { record, root } = custody.open()?;
        match &record.unpacking {
            Some(unpacking) if unpacking.backup == backup => unpacking.open(root),
            Some(_) => Err(CustodyError::RecoveryRefused {
                why: "this machine was recovered from another backup than that".to_owned(),
            }),
            None => Err(CustodyError::RecoveryRefused {
                why: "no backup waits to be unpacked: it was done, or this machine was never recovered"
                    .to_owned(),
            }),
        }
    }

    /// Forgets that key.
    pub(super) fn backup_unpacked(&self, backup: Hash) -> Result<(), CustodyError> {
        let _change = self.changing();
        drop(self.backup_key(backup)?);
        let mut custody = self.write();
        let open = custody.open_mut()?;
        let next = CustodyRecord { unpacking: None, ..open.record.clone() };
        open.record = self.commit(&open.root, next)?;
        log::info!("the recovered backup is unpacked");
        Ok(())
    }

    /// An open protector of a machine without keys.
    fn fresh(&self) -> Result<&dyn crate::protector::Protector, CustodyError> {
        if !matches!(&*self.read(), Custody::Unprovisioned(Held::Nothing)) {
            return Err(CustodyError::WrongState {
                why: "only a machine without keys recovers a backup; this one has some".to_owned(),
            });
        }
        let mut open = self.devices.protectors.iter().filter(|protector| protector.is_open());
        open.next().map(|protector| &**protector).ok_or(CustodyError::TokenLocked)
    }
}
