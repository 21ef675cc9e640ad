//! The counter that only goes up.

use crate::common::{Ready, foreign_client};
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::nv_index_type::NvIndexType;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::handles::NvIndexTpmHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{MaxNvBuffer, NvPublicBuilder};
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

/// What our code has no way to do. A client of its own tries: on a counter that was never advanced, and past the advance.
#[test]
fn a_counter_is_not_read_before_its_first_step_and_never_written() {
    let ready = Ready::new();
    let mut client = foreign_client(&ready.swtpm.tcti());
    // The owner's authorisation is set, so that no foreign client defines an index; the platform's is not, in a simulator.
    let index = NvIndexTpmHandle::new(0x0140_0001).unwrap();
    let attributes = NvIndexAttributesBuilder::new()
        .with_nv_index_type(NvIndexType::Counter)
        .with_auth_read(true)
        .with_auth_write(true)
        .with_platform_create(true)
        .build()
        .unwrap();
    let public = NvPublicBuilder::new()
        .with_nv_index(index)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(8)
        .build()
        .unwrap();
    client.set_sessions((Some(AuthSession::Password), None, None));
    let owner = client.nv_define_space(Provision::Owner, None, public.clone());
    assert!(owner.is_err(), "the owner's authorisation is not the empty one");
    let counter = client.nv_define_space(Provision::Platform, None, public).unwrap();
    let auth = NvAuth::NvIndex(counter);
    let kind = |error| match error {
        tss_esapi::Error::Tss2Error(code) => code.kind(),
        other => panic!("{other}"),
    };
    assert_eq!(client.nv_read(auth, counter, 8, 0).map_err(kind), Err(Some(Kind::NvUninitialized)));
    let forged = MaxNvBuffer::try_from(1u64.to_be_bytes().to_vec()).unwrap();
    assert_eq!(client.nv_write(auth, counter, forged.clone(), 0).map_err(kind), Err(Some(Kind::Attributes)));
    client.nv_increment(auth, counter).unwrap();
    let first = client.nv_read(auth, counter, 8, 0).unwrap();
    assert_eq!(client.nv_write(auth, counter, forged, 0).map_err(kind), Err(Some(Kind::Attributes)));
    assert_eq!(client.nv_read(auth, counter, 8, 0).unwrap(), first);
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
