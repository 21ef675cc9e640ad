//! What is where: secrets that officers can open are looked for on the disk and in memory.
//!
//! The test is all three officers at once: from the state file and their shares it opens the root and every seed, as a
//! recovery does, on its own and without asking the daemon. So it knows what to look for, and nothing was built into
//! the daemon to tell it. That looking works is shown where the secret has to be: the unlocked daemon holds the root.

use crate::common::{Lab, Officers, files_below, pin, tls_content};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use zixt_ceremony::RecoveryRecord;
use zixt_crypto::{digest, labels};
use zixt_hsm::root::{Class, Root};
use zixt_hsm::state::CustodyRecord;
use zixt_hsm_protocol::StateKind;
use zixt_types::{Canonical as _, ProtectorKind, SuiteId, UnlockMode};

/// Bytes of a secret's beginning or end that are looked for.
const NEEDLE_BYTES: usize = 16;

/// The root and the seed of every key, by name.
fn secrets(lab: &Lab, officers: &Officers) -> Vec<(String, Vec<u8>)> {
    let record = CustodyRecord::parse(&fs::read(lab.state("custody.cbor")).unwrap()).unwrap();
    let of_officers = |kind| kind == ProtectorKind::Recovery;
    let enrolled = record.protectors.iter().find(|enrolled| of_officers(enrolled.kind)).unwrap();
    let shared = RecoveryRecord::parse(&enrolled.enrolment).unwrap();
    let shares: Vec<_> = (0..2)
        .map(|n| {
            let officer = digest::key_hash(SuiteId::Standard, officers.signing(n).public_key());
            shared.share_of(&officer).unwrap().open(officers.opening(n)).unwrap()
        })
        .collect();
    let key = shared.combine(&shares).unwrap();
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
    assert_eq!(secrets.len(), 5);
    secrets
}

/// Everything that a process can write to, if we may read it.
fn memory(pid: u32) -> std::io::Result<Vec<u8>> {
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

fn found(haystack: &[u8], secrets: &[(String, Vec<u8>)]) -> Vec<String> {
    let holds = |secret: &[u8]| {
        let (first, last) = (&secret[..NEEDLE_BYTES], &secret[secret.len() - NEEDLE_BYTES..]);
        haystack.windows(NEEDLE_BYTES).any(|window| window == first || window == last)
    };
    secrets.iter().filter(|(_, secret)| holds(secret)).map(|(name, _)| name.clone()).collect()
}

#[test]
fn secrets_are_in_the_unlocked_daemon_and_nowhere_else() {
    let (officers, lab) = (Officers::three(), Lab::new());
    let (daemon, ..) = lab.operational_by(&officers, UnlockMode::Attended);
    officers.set_recovery(&lab, &[]);
    let content = tls_content("TLS 1.3, server CertificateVerify", &[1; 48]);
    let use_it = || (0..20).for_each(|_| drop(daemon.client.sign_tls(&content).unwrap()));
    use_it();
    let secrets = secrets(&lab, &officers);
    let on_disk = |when: &str| {
        for file in files_below(lab.folder.path()) {
            let Ok(bytes) = fs::read(&file) else { continue };
            assert_eq!(found(&bytes, &secrets), [""; 0], "{when}: {}", file.display());
        }
    };
    on_disk("unlocked");
    let pid = daemon.child.id();
    if nix::unistd::geteuid().is_root() {
        assert!(
            found(&memory(pid).unwrap(), &secrets).contains(&"root".to_owned()),
            "the search finds nothing"
        );
        daemon.client.lock().unwrap();
        assert_eq!(found(&memory(pid).unwrap(), &secrets), [""; 0], "locked");
        assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
        use_it();
        daemon.client.lock().unwrap();
        assert_eq!(found(&memory(pid).unwrap(), &secrets), [""; 0], "locked again");
    } else {
        // Not even its own user may look into it.
        assert!(memory(pid).is_err());
    }
    on_disk("locked");
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
}

#[test]
fn a_crash_leaves_no_core_and_the_process_has_given_up_what_it_does_not_need() {
    let lab = Lab::new();
    let (mut daemon, ..) = lab.operational(SuiteId::Standard, UnlockMode::Unattended);
    let pid = daemon.child.id();
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let status = of("status");
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!((value("NoNewPrivs"), value("Seccomp")), ("1".to_owned(), "2".to_owned()));
    assert_ne!(value("VmLck"), "0 kB", "memory is locked");
    let core = of("limits").lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let process = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGABRT).unwrap();
    let ended = daemon.child.wait().unwrap();
    assert!(ended.signal().is_some() && !ended.core_dumped(), "{ended:?}");
}
