//! Secrets that officers can open, and the search for them in memory. Used by the server's test as well.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use zixt_ceremony::RecoveryRecord;
use zixt_crypto::labels;
use zixt_hsm::root::{Class, Root};
use zixt_hsm::state::CustodyRecord;
use zixt_types::{Canonical as _, ProtectorKind};

/// Bytes of a secret's beginning or end that are looked for.
const NEEDLE_BYTES: usize = 16;

/// The officers' recovery record in a state file.
pub fn recovery_record(state: &[u8]) -> RecoveryRecord {
    let record = CustodyRecord::parse(state).unwrap();
    let of_officers = record.protectors.iter().find(|enrolled| enrolled.kind == ProtectorKind::Recovery);
    RecoveryRecord::parse(&of_officers.unwrap().enrolment).unwrap()
}

/// The root and the seeds of a custody whose keys are the four first ones, by name, opened by officers' shares.
pub fn secrets(state: &[u8], shares: &[zixt_ceremony::Share]) -> Vec<(String, Vec<u8>)> {
    let secrets = opened_by(state, shares);
    assert_eq!(secrets.len(), 5);
    secrets
}

/// The root and the seed of every key of a state file, by name, opened by officers' shares.
pub fn opened_by(state: &[u8], shares: &[zixt_ceremony::Share]) -> Vec<(String, Vec<u8>)> {
    let record = CustodyRecord::parse(state).unwrap();
    let key = recovery_record(state).combine(shares).unwrap();
    let enrolled =
        record.protectors.iter().find(|enrolled| enrolled.kind == ProtectorKind::Recovery).unwrap();
    let (custody, version) = (record.custody.0, record.root_version.to_be_bytes());
    let aad = [labels::CUSTODY_ROOT, &custody, &version, enrolled.id.as_bytes()].concat();
    let root = key.open(labels::HPKE_RECOVERY_ROOT, &aad, &enrolled.wrapped).unwrap();
    let root = Root::from_slice(record.root_name(), &root).unwrap();
    record.check_mac(&root).unwrap();
    let mut secrets = vec![("root".to_owned(), root.expose().to_vec())];
    for stored in &record.keys {
        let mut aad = labels::SEED_WRAP.to_vec();
        let algorithm = zixt_crypto::suite_params(stored.suite).signature_algorithm;
        let bound = (2u64, stored.hash(), stored.version, algorithm, stored.purpose.name());
        minicbor::encode(bound, &mut aad).unwrap();
        let seed = root.unseal(Class::Seeds, &aad, &stored.blob).unwrap();
        secrets.push((format!("{} seed", stored.purpose.name()), seed.to_vec()));
    }
    secrets
}

/// Everything that a process can write to, if we may read it.
pub fn memory(pid: u32) -> std::io::Result<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let from = u64::from_str_radix(from, 16).unwrap();
        let to = u64::from_str_radix(to, 16).unwrap();
        memory.seek(SeekFrom::Start(from))?;
        // A region that goes away meanwhile ends early.
        let _ = (&mut memory).take(to - from).read_to_end(&mut all);
    }
    Ok(all)
}

/// Names of the secrets that are in it.
pub fn found(haystack: &[u8], secrets: &[(String, Vec<u8>)]) -> Vec<String> {
    let holds = |secret: &[u8]| {
        let (first, last) = (&secret[..NEEDLE_BYTES], &secret[secret.len() - NEEDLE_BYTES..]);
        haystack.windows(NEEDLE_BYTES).any(|window| window == first || window == last)
    };
    secrets.iter().filter(|(_, secret)| holds(secret)).map(|(name, _)| name.clone()).collect()
}
