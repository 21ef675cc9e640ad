//! The counter that only goes up.

use crate::common::{Ready, foreign_client};
use tss_esapi::interface_types::resource_handles::NvAuth;
use tss_esapi::interface_types::session_handles::AuthSession;
use zixt_tpm::{COUNTER_INDEX_DEFAULT, Counter, Freshness, TpmError, judge_state};

const AUTH: [u8; 32] = [0x3C; 32];

#[test]
fn it_goes_up_and_judges_states() {
    let mut ready = Ready::new();
    let (srk, owner) = (ready.provisioned.srk.clone(), ready.provisioned.owner.clone());
    let (counter, first) = ready.tpm.create_counter(&srk, &owner, COUNTER_INDEX_DEFAULT, &AUTH).unwrap();
    assert_eq!(ready.tpm.read_counter(&srk, &counter, &AUTH), Ok(first));
    for step in 1..=5 {
        assert_eq!(ready.tpm.advance_counter(&srk, &counter, &AUTH), Ok(first + step));
    }
    // Survives the power switch, pulled without a warning.
    ready.swtpm.kill();
    ready.swtpm.power_on();
    let tpm = ready.swtpm.tpm();
    let now = tpm.read_counter(&srk, &counter, &AUTH).unwrap();
    assert_eq!(now, first + 5);
    assert_eq!(judge_state(now, now), Ok(Freshness::Current));
    assert_eq!(judge_state(now + 1, now), Ok(Freshness::Ahead));
    assert_eq!(
        judge_state(now - 1, now),
        Err(TpmError::CounterRollback { recorded: now - 1, anchored: now })
    );
}

#[test]
fn removing_it_hides_no_rollback() {
    let ready = Ready::new();
    let (srk, owner) = (&ready.provisioned.srk, &ready.provisioned.owner);
    let (counter, _) = ready.tpm.create_counter(srk, owner, COUNTER_INDEX_DEFAULT, &AUTH).unwrap();
    let mut last = 0;
    for _ in 0..10 {
        last = ready.tpm.advance_counter(srk, &counter, &AUTH).unwrap();
    }
    ready.tpm.remove_counter(srk, owner, COUNTER_INDEX_DEFAULT).unwrap();
    let missing = Err(TpmError::CounterMissing { index: COUNTER_INDEX_DEFAULT });
    assert_eq!(ready.tpm.read_counter(srk, &counter, &AUTH), missing);
    let (again, value) = ready.tpm.create_counter(srk, owner, COUNTER_INDEX_DEFAULT, &AUTH).unwrap();
    assert_eq!(again, counter);
    assert!(value > last, "{value} after {last}");
    assert_eq!(judge_state(last, value), Err(TpmError::CounterRollback { recorded: last, anchored: value }));
    let taken = ready.tpm.create_counter(srk, owner, COUNTER_INDEX_DEFAULT, &AUTH);
    assert!(matches!(taken, Err(TpmError::AlreadyOwned { .. })), "{taken:?}");
}

#[test]
fn nobody_else_reads_advances_or_makes_it() {
    let ready = Ready::new();
    let (srk, owner) = (&ready.provisioned.srk, &ready.provisioned.owner);
    let wrong_owner = ready.tpm.create_counter(srk, &ready.provisioned.lockout, COUNTER_INDEX_DEFAULT, &AUTH);
    assert_eq!(wrong_owner, Err(TpmError::AuthIncorrect { call: "NV_DefineSpace" }));
    let (counter, first) = ready.tpm.create_counter(srk, owner, COUNTER_INDEX_DEFAULT, &AUTH).unwrap();
    let wrong = [0x3D; 32];
    for refused in
        [ready.tpm.read_counter(srk, &counter, &wrong), ready.tpm.advance_counter(srk, &counter, &wrong)]
    {
        assert!(matches!(refused, Err(TpmError::AuthIncorrect { .. })), "{refused:?}");
    }
    {
        let mut client = foreign_client(&ready.swtpm.tcti());
        client.set_sessions((Some(AuthSession::Password), None, None));
        let index = COUNTER_INDEX_DEFAULT.try_into().unwrap();
        let object = client.execute_without_session(|client| client.tr_from_tpm_public(index)).unwrap();
        for auth in [NvAuth::Owner, NvAuth::NvIndex(object.into())] {
            assert!(client.nv_increment(auth, object.into()).is_err());
        }
    }
    assert_eq!(ready.tpm.read_counter(srk, &counter, &AUTH), Ok(first));
    assert_eq!(ready.tries_left(), 5, "a lockout must not come from here");
    let other = Counter { name: vec![0; 50], ..counter };
    let index = COUNTER_INDEX_DEFAULT;
    assert_eq!(ready.tpm.read_counter(srk, &other, &AUTH), Err(TpmError::CounterMissing { index }));
    assert!(ready.tpm.create_counter(srk, owner, index + 1, &[0; 32]).is_err());
}
