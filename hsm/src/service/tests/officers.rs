//! As many officers as a network may have.

use super::*;
use zixt_ceremony::ShareRelease;
use zixt_hsm_protocol::{FRAME_BYTES_MAX, decode, encode, read_frame_blocking, write_frame_blocking};
use zixt_types::{Approval, Transcript, limits};

const MANY: u8 = 128;

fn holders(of: std::ops::RangeInclusive<u8>) -> (Vec<ShareHolder>, Vec<Card>) {
    let cards: Vec<_> =
        of.map(|n| Card { officer: officer_hash(n), kem: officer_kem(n).encapsulation_key() }).collect();
    let holder = |card: &Card| ShareHolder { officer: card.officer, kem: digest::kem_key_hash(&card.kem) };
    let mut holders: Vec<_> = cards.iter().map(holder).collect();
    holders.sort();
    (holders, cards)
}

/// Asks as a client does: through a frame, and back through one.
fn ask(service: &Service, request: &Request) -> Response {
    let mut wire = Vec::new();
    write_frame_blocking(&mut wire, &encode(request)).unwrap();
    let request = decode(&read_frame_blocking(&mut wire.as_slice()).unwrap()).unwrap();
    let mut wire = Vec::new();
    write_frame_blocking(&mut wire, &encode(&service.answer(&request))).unwrap();
    decode(&read_frame_blocking(&mut wire.as_slice()).unwrap()).unwrap()
}

/// Every one of them approves, holds a share, and is needed for the recovery.
#[test]
fn a_hundred_and_twenty_eight_officers_decide_back_up_and_recover() {
    assert_eq!(usize::from(MANY), limits::GENESIS_KEYS_MAX);
    let all: Vec<u8> = (1..=MANY).collect();
    let of = Box_::new();
    let service = of.start();
    unlock(&service);
    let mut genesis = genesis(&service.provision(SuiteId::Standard, true).unwrap(), true);
    let officer = |n: &u8| Officer { name: format!("officer {n}"), key: officer_hash(*n) };
    (genesis.officers, genesis.officers_required) = (all.iter().map(officer).collect(), MANY);
    let bound = ask(&service, &Request::BindGenesis { genesis: genesis.to_bytes() });
    assert!(matches!(bound, Response::Bound(_)), "{bound:?}");
    let (holders, cards) = holders(1..=MANY);
    let set = Decision::SetRecovery { threshold: MANY, holders };
    for _ in 0..2 {
        let transcript = approved(&service, set.clone(), &all);
        let decide = Request::Decide { transcript, pins: pins(), cards: cards.clone() };
        let decided = ask(&service, &decide);
        assert!(matches!(decided, Response::Decided(_)), "{decided:?}");
    }
    let Response::Decisions(taken) = ask(&service, &Request::Decisions { from: 0 }) else { panic!() };
    assert_eq!(taken.len(), 2);
    let Response::Recovery(Some(_)) = ask(&service, &Request::Recovery) else { panic!() };
    let Response::Backup(backup) = ask(&service, &Request::Backup) else { panic!() };
    service.shut_down();
    assert_eq!(unlock(&of.start()), StateKind::Operational);

    let fresh = Box_::new();
    let service = fresh.start();
    unlock(&service);
    let begun = ask(&service, &Request::BeginRecovery { backup: backup.custody });
    let Response::RecoveryBegun(request) = begun else { panic!("{begun:?}") };
    let request = RecoveryRequest::parse(&request).unwrap();
    let transcript = signed(&request.action().unwrap(), &all);
    let released = releases(&request, &all);
    let finished = ask(&service, &Request::FinishRecovery { transcript, releases: released });
    assert!(matches!(finished, Response::Recovered { .. }), "{finished:?}");
}

proptest! {
    /// Whatever suites they have: what they send fits.
    #[test]
    fn what_officers_send_fits_a_frame(suites in prop::collection::vec(any::<bool>(), 1..=128), action in 1usize..=limits::ACTION_BYTES_MAX) {
        let approval = |cnsa: &bool| {
            let suite = if *cnsa { SuiteId::Cnsa } else { SuiteId::Standard };
            let params = zixt_crypto::suite_params(suite);
            Approval {
                suite,
                public_key: vec![1; params.public_key_bytes],
                signature: vec![2; params.signature_bytes],
            }
        };
        let approvals: Vec<_> = suites.iter().map(approval).collect();
        let transcript = Transcript { version: 1, action: vec![3; action], approvals };
        let transcript = transcript.to_bytes();
        prop_assert!(transcript.len() <= Transcript::BYTES_MAX);
        let named = |n| NamedPin { protector: "x".repeat(32), pin: Pin::new(format!("{n:064}")).unwrap() };
        let card = |_: &bool| Card { officer: Hash([4; 48]), kem: vec![5; 1568] };
        let decide = Request::Decide {
            transcript: transcript.clone(),
            pins: (0..8).map(named).collect(),
            cards: suites.iter().map(card).collect(),
        };
        prop_assert!(encode(&decide).len() <= FRAME_BYTES_MAX);
        let release = |_: &bool| Blob(vec![6; ShareRelease::BYTES_MAX]);
        let finish = Request::FinishRecovery { transcript, releases: suites.iter().map(release).collect() };
        prop_assert!(encode(&finish).len() <= FRAME_BYTES_MAX);
    }
}

/// No message of a part that has a bound of its own is longer than a frame.
#[test]
fn every_bound_of_a_part_is_below_a_frames() {
    let parts = [
        recover::CustodyBackup::BYTES_MAX,
        RecoveryRequest::BYTES_MAX,
        limits::RECOVERY_RECORD_BYTES_MAX,
        limits::GENESIS_BYTES_MAX,
        decide::DECISIONS_PAGE * (Transcript::BYTES_MAX + 64),
    ];
    assert!(parts.iter().all(|part| part + 1024 <= FRAME_BYTES_MAX), "{parts:?}, {FRAME_BYTES_MAX}");
}
