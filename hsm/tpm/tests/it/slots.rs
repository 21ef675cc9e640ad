//! Slots for sessions and objects are few, and nobody may keep one.

use crate::common::{PIN, Ready, SECRET, foreign_client};
use crate::proxy::{Action, Proxy};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::Duration;
use tss_esapi::constants::CapabilityType;
use tss_esapi::structures::CapabilityData;
use zixt_tpm::{Binding, PcrSelection, PinTry, Sealed, Srk, Tpm, TpmError};

const CHILD: &str = "ZIXT_TEST_TPM_CHILD";

/// Sessions and transient objects in the TPM.
fn taken(tcti: &str) -> usize {
    let mut client = foreign_client(tcti);
    let first = [0x8000_0000, 0x0200_0000, 0x0300_0000];
    let handles = |client: &mut tss_esapi::Context, first| match client
        .get_capability(CapabilityType::Handles, first, 64)
        .unwrap()
        .0
    {
        CapabilityData::Handles(list) => list.into_inner().len(),
        other => panic!("{other:?}"),
    };
    first.into_iter().map(|first| handles(&mut client, first)).sum()
}

#[test]
fn ten_clients_one_after_another_leave_nothing() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let values = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(values));
    for round in 0..10 {
        let tpm = ready.swtpm.tpm();
        assert_eq!(*tpm.unseal(srk, &sealed, &[], PIN, PinTry::Attended).unwrap(), SECRET);
        // Failures give everything back, too.
        if round < 3 {
            assert!(tpm.unseal(srk, &sealed, &[], b"wrong", PinTry::Attended).is_err());
        }
        drop(tpm);
        assert_eq!(taken(&ready.swtpm.tcti()), 0, "round {round}");
    }
}

#[test]
fn a_client_that_is_killed_halfway_does_not_stop_the_next() {
    if let Ok(arguments) = std::env::var(CHILD) {
        return unseal_as_child(&arguments);
    }
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let values = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(values));
    let mut left_behind = 0;
    let mut stalled_rounds = 0;
    for stall_at in (2..40).step_by(3) {
        let (reached, stalled) = channel();
        let mut seen = 0;
        let proxy = Proxy::start(
            ready.swtpm.port(),
            Box::new(move |is_command, _, _| {
                seen += usize::from(is_command);
                // Commands of the child end here; the next client goes around.
                if is_command && seen >= stall_at {
                    let _ = reached.send(());
                    return Action::Stall;
                }
                Action::Pass
            }),
        );
        let arguments = hex(&minicbor::to_vec((proxy.tcti(), srk, &sealed)).unwrap());
        let mut child = crate::swtpm::program(std::env::current_exe().unwrap().to_str().unwrap())
            .args(["--exact", "slots::a_client_that_is_killed_halfway_does_not_stop_the_next"])
            .env(CHILD, arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let halfway = loop {
            if stalled.recv_timeout(Duration::from_millis(20)).is_ok() {
                break true;
            }
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break false;
            }
        };
        if halfway {
            stalled_rounds += 1;
            child.kill().unwrap();
            child.wait().unwrap();
            left_behind = left_behind.max(taken(&ready.swtpm.tcti()));
        }
        let opened = ready.tpm.unseal(srk, &sealed, &[], PIN, PinTry::Attended);
        assert_eq!(opened.map(|opened| opened.to_vec()), Ok(SECRET.to_vec()), "stalled at {stall_at}");
        assert_eq!(taken(&ready.swtpm.tcti()), 0, "stalled at {stall_at}");
        if !halfway {
            break;
        }
    }
    // The test shows something: killed clients did leave sessions and objects in the TPM.
    assert!(stalled_rounds > 4 && left_behind >= 3, "{stalled_rounds} {left_behind}");
}

fn unseal_as_child(arguments: &str) {
    let bytes: Vec<u8> = (0..arguments.len() / 2)
        .map(|at| u8::from_str_radix(&arguments[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let (tcti, srk, sealed): (String, Srk, Sealed) = minicbor::decode(&bytes).unwrap();
    let tpm = Tpm::new(&tcti).unwrap();
    assert_eq!(*tpm.unseal(&srk, &sealed, &[], PIN, PinTry::Attended).unwrap(), SECRET);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A TPM that has no slot says so; the wire stands in for the other program that holds them.
#[test]
fn slots_that_are_taken_are_named() {
    let ready = Ready::new();
    for (command, warning, expected) in [
        (0x0176, 0x0903_u32, TpmError::NoSessionSlots),
        (0x0176, 0x0905, TpmError::NoSessionSlots),
        (0x0157, 0x0902, TpmError::NoObjectSlots),
    ] {
        let values = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
        let sealed = ready.seal(Binding::Fixed(values));
        let mut hit = false;
        let proxy = Proxy::start(
            ready.swtpm.port(),
            Box::new(move |is_command, _, frame| {
                if is_command {
                    hit = crate::proxy::code(frame) == command;
                } else if hit {
                    *frame = [&[0x80, 0x01][..], &10_u32.to_be_bytes(), &warning.to_be_bytes()].concat();
                }
                Action::Pass
            }),
        );
        let tpm = Tpm::new(&proxy.tcti()).unwrap();
        let refused = tpm.unseal(&ready.provisioned.srk, &sealed, &[], PIN, PinTry::Attended);
        assert_eq!(refused, Err(expected));
    }
}

#[test]
fn a_tpm_that_hangs_is_not_waited_for() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let mut seen = 0;
    let proxy = Proxy::start(
        ready.swtpm.port(),
        Box::new(move |_, number, _| {
            seen = number.max(seen);
            // Past what connecting asks, in the middle of the job.
            if seen > 6 { Action::Stall } else { Action::Pass }
        }),
    );
    let tpm = Tpm::with_patience(&proxy.tcti(), Duration::from_secs(1)).unwrap();
    assert_eq!(tpm.dictionary(srk), Err(TpmError::NoAnswer { seconds: 1 }));
    // And dropping it does not hang either.
    drop(tpm);
}
