//! Two certified histories of one network are proof of a fork; one history never is.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use zixt_crypto::{Reference, digest};
use zixt_ledger::evidence::{CertifiedHeader, Contradiction, ForkError, ForkProof, verify_fork};
use zixt_ledger::testing::{SampleNetwork, places_to_change};
use zixt_ledger::tree::{MemoryTree, history_leaf};
use zixt_ledger::{ProposedBlock, TreeId};
use zixt_types::{Canonical, Certificate, Hash, SuiteId};

fn certified((block, certificate): &(ProposedBlock, Certificate)) -> CertifiedHeader {
    CertifiedHeader { header: block.header().clone(), certificate: certificate.clone() }
}

/// One network whose validators certify two histories: the same two heights, then different ones.
fn forked() -> (SampleNetwork, SampleNetwork) {
    let network = |people: &[&str]| {
        let mut network = SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[2, 1]);
        for name in people {
            network.enrol(name);
        }
        network
    };
    (network(&["alice", "bob", "carol"]), network(&["mallory", "bob", "carol"]))
}

fn proof(
    one: &SampleNetwork,
    a: usize,
    other: &SampleNetwork,
    b: usize,
    contradiction: Contradiction,
) -> ForkProof {
    let mut keyring = one.keyring.clone();
    let enroller = digest::key_hash(one.suite, one.enroller.public_key());
    keyring = keyring.iter().filter(|(hash, _)| **hash != enroller).fold(
        zixt_ledger::Keyring::default(),
        |mut keyring, (_, entry)| {
            keyring.insert(entry.suite, &entry.key);
            keyring
        },
    );
    ForkProof {
        genesis: (*one.state.genesis).clone(),
        keyring,
        first: certified(&one.blocks[a]),
        second: certified(&other.blocks[b]),
        contradiction,
        activations: Vec::new(),
    }
}

#[test]
fn two_headers_of_one_height_prove_a_fork() {
    let (one, other) = forked();
    let genesis = one.state.genesis_hash;
    assert_eq!(genesis, other.state.genesis_hash);
    let fork = proof(&one, 2, &other, 2, Contradiction::SameHeight);
    let parsed = ForkProof::parse(&fork.to_bytes()).unwrap();
    assert_eq!(parsed, fork);
    let report = verify_fork(&parsed, genesis, &Reference).unwrap();
    assert_eq!(report.height.0, 3);
    assert_eq!(report.signed_both.len(), 2);
    assert_eq!(report.first, one.blocks[2].0.header_hash);
    // One and the same header is no fork, nor are two heights of one history.
    let same = proof(&one, 2, &one, 2, Contradiction::SameHeight);
    assert_eq!(verify_fork(&same, genesis, &Reference), Err(ForkError::NoContradiction));
    let next = proof(&one, 1, &one, 2, Contradiction::Previous);
    assert_eq!(verify_fork(&next, genesis, &Reference), Err(ForkError::NoContradiction));
    assert!(matches!(verify_fork(&fork, Hash::ZERO, &Reference), Err(ForkError::OtherGenesis(_))));
}

#[test]
fn a_later_header_with_another_past_proves_a_fork() {
    let (one, other) = forked();
    let genesis = one.state.genesis_hash;
    let fork = proof(&one, 1, &other, 2, Contradiction::Previous);
    assert_eq!(verify_fork(&fork, genesis, &Reference).unwrap().height.0, 2);

    let plan = zixt_ledger::tree::inclusion_plan(1, 5).unwrap();
    let path = other.build(&plan, TreeId::History);
    let history: MemoryTree =
        other.blocks.iter().map(|(block, _)| history_leaf(&block.header_hash)).collect();
    assert_eq!(Some(&path), history.prove_inclusion(1, 5).as_ref());
    let recorded = other.blocks[1].0.header_hash;
    let fork = proof(&one, 1, &other, 5, Contradiction::History { recorded, path: path.clone() });
    let report = verify_fork(&fork, genesis, &Reference).unwrap();
    assert_eq!((report.height.0, report.second), (2, recorded));
    // The honest history contradicts nothing, and a made-up one is not proven.
    let honest = proof(&other, 1, &other, 5, Contradiction::History { recorded, path: path.clone() });
    assert_eq!(verify_fork(&honest, genesis, &Reference), Err(ForkError::NoContradiction));
    let made_up = proof(&one, 1, &other, 5, Contradiction::History { recorded: Hash([1; 48]), path });
    assert_eq!(verify_fork(&made_up, genesis, &Reference), Err(ForkError::NoContradiction));
}

#[test]
fn no_changed_byte_of_a_fork_proof_goes_unnoticed() {
    let (one, other) = forked();
    let fork = proof(&one, 0, &other, 0, Contradiction::SameHeight);
    let bytes = fork.to_bytes();
    assert!(verify_fork(&fork, one.state.genesis_hash, &Reference).is_ok());
    let signatures =
        [&fork.first, &fork.second].map(|part| &part.certificate.signatures).into_iter().flatten();
    let mut opaque: Vec<&[u8]> = signatures.map(|signature| signature.signature.as_slice()).collect();
    opaque.extend(fork.keyring.iter().map(|(_, entry)| entry.key.as_slice()));
    for at in places_to_change(&bytes, &opaque) {
        let mut forged = bytes.clone();
        forged[at] ^= 1 << (at % 8);
        let Ok(parsed) = ForkProof::parse(&forged) else { continue };
        assert!(verify_fork(&parsed, one.state.genesis_hash, &Reference).is_err(), "byte {at}");
    }
}

/// A thief certifies another history with the key that officers have retired.
#[test]
fn a_retired_key_that_goes_on_proves_a_fork() {
    let (mut one, mut other) = forked();
    let genesis = one.state.genesis_hash;
    let (key, transcript, submission) = one.activation(0);
    one.validators[0].1 = key;
    let (rotated, _) = one.seal(vec![submission]);
    other.enrol("somebody");
    let at = one.blocks.len() - 1;
    let activations = vec![transcript.to_bytes()];
    let fork = |activations: Vec<Vec<u8>>, keys: &[&SampleNetwork]| {
        let mut fork = proof(&one, at, &other, at, Contradiction::SameHeight);
        fork.keyring = zixt_ledger::Keyring::default();
        for (_, key) in keys.iter().flat_map(|network| &network.validators) {
            fork.keyring.insert(one.suite, key.public_key());
        }
        ForkProof { activations, ..fork }
    };
    let good = fork(activations.clone(), &[&one, &other]);
    let parsed = ForkProof::parse(&good.to_bytes()).unwrap();
    assert_eq!(parsed, good);
    let report = verify_fork(&parsed, genesis, &Reference).unwrap();
    assert_eq!((report.first, report.height), (rotated.header_hash, rotated.header().height));
    // Without the officers' word the new key is nobody's; a transcript that is not needed does not belong there.
    let bare = fork(Vec::new(), &[&one, &other]);
    assert!(matches!(verify_fork(&bare, genesis, &Reference), Err(ForkError::Certificate { .. })));
    let twice = fork([activations.clone(), activations.clone()].concat(), &[&one, &other]);
    assert!(matches!(verify_fork(&twice, genesis, &Reference), Err(ForkError::Activation { index: 1, .. })));
    let mut forged = activations.clone();
    let last = forged[0].len() - 1;
    forged[0][last] ^= 1;
    let forged = fork(forged, &[&one, &other]);
    assert!(matches!(verify_fork(&forged, genesis, &Reference), Err(ForkError::Activation { index: 0, .. })));
    let idle = ForkProof { activations, ..proof(&one, 2, &other, 2, Contradiction::SameHeight) };
    assert_eq!(verify_fork(&idle, genesis, &Reference), Err(ForkError::ActivationUnused));
}
