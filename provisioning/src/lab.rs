//! A lab network on one appliance. Every step can be run again: what exists is kept, what is missing is made.

use crate::officer::{KeyFile, KeyFileError, OfficerKey};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_ceremony::OfficerCard;
use zixt_ceremony::file::{Filed as _, to_file};
use zixt_crypto::password::Params;
use zixt_crypto::selftest::{GenerateError, generate_signing_key};
use zixt_crypto::{
    Backend as _, KeyError, Keyring, RandomError, Reference, SigningSeed, digest, fill_random,
};
use zixt_hsm_protocol::{BlockingHsmClient, ClientError, KeyInfo, KeyPurpose, StateKind};
use zixt_types::{
    Canonical as _, Genesis, Hash, Officer, ParseError, RotationPolicy, SuiteId, Timestamp, UnlockMode,
    Validator,
};

/// In a lab's folder: the passphrase of all officers' key files.
pub const PASSPHRASE_FILE: &str = "officers.passphrase";

/// What a lab network is made with.
#[derive(Debug, Clone)]
pub struct LabPlan {
    /// The appliance's state folder.
    pub state: PathBuf,
    /// The suite of all keys.
    pub suite: SuiteId,
    /// The network's name.
    pub network: String,
    /// How many officers there are, and how many of them a decision needs.
    pub officers: (u8, u8),
    /// Shards.
    pub shard_count: u16,
    /// When conversations rotate their keys.
    pub rotation: RotationPolicy,
}

/// The network that the appliance is bound to.
#[derive(Debug, Clone)]
pub struct LabNetwork {
    /// Its genesis.
    pub genesis: Genesis,
    /// Its hash.
    pub hash: Hash,
    /// Whether this run made it.
    pub created: bool,
}

/// Why there is no lab network.
#[derive(Debug, Error)]
pub enum LabError {
    /// The custody daemon refused or cannot be reached.
    #[error("custody: {0}")]
    Custody(#[from] ClientError),
    /// The custody daemon is in a state in which nothing can be made.
    #[error("custody is {state}: {reason}")]
    CustodyState {
        /// Its state.
        state: StateKind,
        /// Why, and what to do.
        reason: String,
    },
    /// Custody has no key for a purpose that the genesis needs.
    #[error("custody has no {0:?} key; its state is from another version")]
    KeyMissing(KeyPurpose),
    /// Custody belongs to a network whose genesis is not in the state folder.
    #[error(
        "custody is bound to network {0}, whose genesis is not in the state folder; restore `server/genesis.cbor` or \
         start over with an empty state folder"
    )]
    GenesisLost(Hash),
    /// The genesis in the state folder is another network's than the one custody is bound to.
    #[error("the state folder holds network {on_disk}, but custody is bound to network {bound}")]
    OtherNetwork {
        /// Hash of the genesis on disk.
        on_disk: Hash,
        /// Hash that custody pinned.
        bound: Hash,
    },
    /// The genesis in the state folder is no lab's.
    #[error("the network in the state folder is not a lab; this command never touches another")]
    NotALab,
    /// The plan breaks a rule of the genesis.
    #[error("this plan makes no valid genesis: {0}")]
    Plan(&'static str),
    /// A file is not what it should be.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: ParseError,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: io::Error,
    },
    /// An officer's key file cannot be made or opened.
    #[error("{}: {source}", path.display())]
    OfficerKey {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: KeyFileError,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key could not be made.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// Makes the lab network, or finds the one that is there.
///
/// The genesis is written and synced before custody pins it: after a crash in between, the next run binds the same
/// one.
///
/// # Errors
/// See [`LabError`]. Nothing that exists is ever replaced.
pub fn ensure(plan: &LabPlan, custody: &BlockingHsmClient) -> Result<LabNetwork, LabError> {
    let server = plan.state.join("server");
    let genesis_path = server.join("genesis.cbor");
    let status = custody.status()?;
    if let Some(genesis) = read_genesis(&genesis_path)? {
        if !genesis.lab {
            return Err(LabError::NotALab);
        }
        let hash = digest::genesis_hash(&genesis);
        match status.genesis {
            Some(bound) if bound != hash => return Err(LabError::OtherNetwork { on_disk: hash, bound }),
            Some(_) => {}
            None => {
                custody.bind_genesis(&genesis.to_bytes())?;
            }
        }
        return Ok(LabNetwork { genesis, hash, created: false });
    }
    if let Some(bound) = status.genesis {
        return Err(LabError::GenesisLost(bound));
    }
    if status.state != StateKind::Unprovisioned {
        let reason = format!("{} {}", status.reason, status.advice);
        return Err(LabError::CustodyState { state: status.state, reason });
    }
    let keys = if status.keys.is_empty() { custody.provision(plan.suite, true)? } else { status.keys };

    for folder in [&plan.state, &server, &plan.state.join("lab")] {
        make_folder(folder)?;
    }
    let (genesis, keyring) = make_genesis(plan, &keys, status.unlock)?;
    genesis.check().map_err(LabError::Plan)?;
    write_new(&server.join("keyring.cbor"), &keyring.to_bytes())?;
    write_new(&genesis_path, &genesis.to_bytes())?;
    let hash = custody.bind_genesis(&genesis.to_bytes())?;
    Ok(LabNetwork { genesis, hash, created: true })
}

fn make_genesis(
    plan: &LabPlan,
    keys: &[KeyInfo],
    unlock: UnlockMode,
) -> Result<(Genesis, Keyring), LabError> {
    let key = |purpose| keys.iter().find(|key| key.purpose == purpose).ok_or(LabError::KeyMissing(purpose));
    let mut keyring = Keyring::default();
    let mut named = |purpose| {
        let key: &KeyInfo = key(purpose)?;
        Ok::<_, LabError>((keyring.insert(key.suite, &key.public_key), key.custody))
    };
    let (identity, _) = named(KeyPurpose::Identity)?;
    let (consensus, custody) = named(KeyPurpose::Consensus)?;
    let (tls, _) = named(KeyPurpose::Tls)?;
    let (enroller, _) = named(KeyPurpose::Enroller)?;

    let lab = plan.state.join("lab");
    let passphrase = lab_passphrase(&lab.join(PASSPHRASE_FILE))?;
    let organisation = make_lab_key(&lab.join("organisation.seed"), plan.suite)?;
    let officers = (1..=plan.officers.0)
        .map(|number| {
            let path = lab.join(format!("officer-{number}")).with_extension(KeyFile::EXTENSION);
            make_officer(&path, &format!("lab officer {number}"), plan.suite, &passphrase)
        })
        .collect::<Result<_, LabError>>()?;
    let mut nonce = [0; 32];
    fill_random(&mut nonce)?;
    let genesis = Genesis {
        version: Genesis::VERSION,
        suites: vec![plan.suite],
        network: plan.network.clone(),
        organisation,
        officers,
        officers_required: plan.officers.1,
        enrollers: vec![enroller],
        validators: vec![Validator {
            appliance: digest::appliance_id(identity),
            consensus,
            tls,
            stake: 1,
            custody,
        }],
        shard_count: plan.shard_count,
        unlock,
        lab: true,
        rotation: plan.rotation,
        created_at: now(),
        nonce,
    };
    Ok((genesis, keyring))
}

/// The passphrase of all officers of a lab, in a plain file. An existing one is kept.
fn lab_passphrase(path: &Path) -> Result<Zeroizing<String>, LabError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Zeroizing::new(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = Zeroizing::new([0; 16]);
            fill_random(bytes.as_mut_slice())?;
            let text: Zeroizing<String> =
                Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
            write_new(path, text.as_bytes())?;
            Ok(text)
        }
        Err(error) => Err(file(path, error)),
    }
}

/// An officer's key file and card, as `zixt-officer keygen` makes them. An existing key file is kept; its card is
/// written again if a crash came between the two.
fn make_officer(path: &Path, name: &str, suite: SuiteId, passphrase: &str) -> Result<Officer, LabError> {
    let officer_key = |source| LabError::OfficerKey { path: path.to_owned(), source };
    let card = match fs::read(path) {
        // Opened, so that a passphrase that does not fit is found now and not in the rehearsal.
        Ok(bytes) => KeyFile::read(&bytes)
            .and_then(|key_file| key_file.open(passphrase))
            .map_err(officer_key)?
            .card()
            .clone(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = OfficerKey::generate(name, suite).map_err(officer_key)?;
            // The passphrase lies beside it, so a higher cost would only make labs slower.
            write_new(path, &key.seal(passphrase, Params::MIN).map_err(officer_key)?)?;
            key.card().clone()
        }
        Err(error) => return Err(file(path, error)),
    };
    write_new(&path.with_extension(OfficerCard::EXTENSION), &to_file(&card))?;
    Ok(card.to_officer())
}

/// A signing key in a plain file: what only a lab may have. An existing one is kept.
fn make_lab_key(path: &Path, suite: SuiteId) -> Result<Hash, LabError> {
    let seed = match fs::read(path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            SigningSeed::from_slice(&bytes).map_err(|error| file(path, io::Error::other(error)))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (seed, _) = generate_signing_key(&Reference, suite)?;
            write_new(path, seed.as_bytes())?;
            seed
        }
        Err(error) => return Err(file(path, error)),
    };
    let key = Reference.signing_key(suite, &seed)?;
    Ok(digest::key_hash(suite, key.public_key()))
}

/// Reads a genesis file; `None` if there is none.
///
/// # Errors
/// The file cannot be read or is no genesis.
pub fn read_genesis(path: &Path) -> Result<Option<Genesis>, LabError> {
    match fs::read(path) {
        Ok(bytes) => Genesis::parse(&bytes)
            .map(Some)
            .map_err(|source| LabError::Parse { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file(path, error)),
    }
}

fn make_folder(path: &Path) -> Result<(), LabError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| file(path, error))
}

/// Writes a file that is not there yet, so that after a power cut it is there completely or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), LabError> {
    let fresh = path.with_extension("new");
    let write = || {
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|error| file(path, error))
}

fn file(path: &Path, source: io::Error) -> LabError {
    LabError::File { path: path.to_owned(), source }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_hsm_protocol::KeyStatus;
    use zixt_types::CustodyMode;

    fn plan(state: &Path) -> LabPlan {
        LabPlan {
            state: state.to_owned(),
            suite: SuiteId::Standard,
            network: "lab".to_owned(),
            officers: (3, 2),
            shard_count: 4,
            rotation: RotationPolicy { messages_max: 100, age_ms_max: 86_400_000 },
        }
    }

    fn keys() -> Vec<KeyInfo> {
        let mut keys = Vec::new();
        for (purpose, number) in KeyPurpose::ALL.into_iter().zip(1u8..) {
            let key = Reference
                .signing_key(SuiteId::Standard, &SigningSeed::from_bytes(&[number; 32]))
                .expect("a key from a seed");
            keys.push(KeyInfo {
                purpose,
                hash: digest::key_hash(SuiteId::Standard, key.public_key()),
                suite: SuiteId::Standard,
                public_key: key.public_key().to_vec(),
                custody: CustodyMode::WrappedByToken,
                version: 1,
                status: KeyStatus::Active,
            });
        }
        keys
    }

    #[test]
    fn the_genesis_states_custodys_keys_and_the_truth_about_them() {
        let folder = tempfile::tempdir().expect("a folder");
        make_folder(&folder.path().join("lab")).expect("a folder");
        let keys = keys();
        let (genesis, keyring) =
            make_genesis(&plan(folder.path()), &keys, UnlockMode::Unattended).expect("a genesis");
        assert_eq!(genesis.check(), Ok(()));
        assert!(genesis.lab);
        assert_eq!(genesis.officers.len(), 3);
        for key in &keys {
            assert!(keyring.get(&key.hash).is_some(), "{:?}", key.purpose);
        }
        assert_eq!(genesis.validators[0].custody, CustodyMode::WrappedByToken);
        let parsed = Genesis::parse(&genesis.to_bytes());
        assert_eq!(parsed, Ok(genesis));
    }

    #[test]
    fn officers_have_the_keys_that_the_genesis_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let lab = folder.path().join("lab");
        make_folder(&lab).expect("a folder");
        let plan = plan(folder.path());
        let (genesis, _) = make_genesis(&plan, &keys(), UnlockMode::Unattended).expect("a genesis");
        let passphrase = fs::read_to_string(lab.join(PASSPHRASE_FILE)).expect("a passphrase");
        let mut kems = std::collections::BTreeSet::new();
        for (officer, number) in genesis.officers.iter().zip(1..) {
            let path = lab.join(format!("officer-{number}.zixt-key"));
            let key = KeyFile::read(&fs::read(&path).expect("a key file")).expect("a key file");
            assert_eq!(&key.open(&passphrase).expect("the passphrase").card().to_officer(), officer);
            let card = fs::read(path.with_extension("zixt-officer")).expect("a card");
            let card: OfficerCard = zixt_ceremony::file::from_file(&card).expect("a card");
            assert_eq!(&card.to_officer(), officer);
            kems.insert(card.holder().kem);
        }
        assert_eq!(kems.len(), 3);
        // A second run names the same officers, and makes a card again that a crash took.
        fs::remove_file(lab.join("officer-2.zixt-officer")).expect("a card");
        let (again, _) = make_genesis(&plan, &keys(), UnlockMode::Unattended).expect("a genesis");
        assert_eq!(again.officers, genesis.officers);
        assert!(lab.join("officer-2.zixt-officer").exists());
        fs::write(lab.join(PASSPHRASE_FILE), "another one").expect("a write");
        let refused = make_genesis(&plan, &keys(), UnlockMode::Unattended);
        assert!(matches!(refused, Err(LabError::OfficerKey { source: KeyFileError::Rejected, .. })));
    }

    #[test]
    fn lab_keys_survive_a_second_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("officer.seed");
        let first = make_lab_key(&path, SuiteId::Standard).expect("a key");
        assert_eq!(make_lab_key(&path, SuiteId::Standard).expect("the same key"), first);
        fs::write(&path, b"short").expect("a write");
        assert!(matches!(make_lab_key(&path, SuiteId::Standard), Err(LabError::File { .. })));
    }

    #[test]
    fn a_missing_key_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut keys = keys();
        keys.retain(|key| key.purpose != KeyPurpose::Tls);
        let refused = make_genesis(&plan(folder.path()), &keys, UnlockMode::Attended);
        assert!(matches!(refused, Err(LabError::KeyMissing(KeyPurpose::Tls))));
    }

    #[test]
    fn a_plan_with_more_required_officers_than_officers_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        make_folder(&folder.path().join("lab")).expect("a folder");
        let plan = LabPlan { officers: (2, 3), ..plan(folder.path()) };
        let (genesis, _) = make_genesis(&plan, &keys(), UnlockMode::Attended).expect("a genesis");
        assert!(genesis.check().is_err());
    }
}
