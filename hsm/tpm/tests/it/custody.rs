//! Provisioning, sealing and everything that stands in the way.

use crate::common::{PIN, REFERENCE, Ready, SECRET, foreign_client, measure};
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::handles::AuthHandle;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use zixt_tpm::{
    Approval, ApprovalError, Binding, DictionaryParameters, Pcr, PcrSelection, PcrValues, PinTry, PolicyRef,
    PolicySigner, Profile, ProvisionOptions, Sealed, TpmError, predict,
};

#[test]
fn a_secret_is_sealed_and_opened_again() {
    for profile in [Profile::P384, Profile::P256] {
        let ready = Ready::with(ProvisionOptions { profile: Some(profile), ..ProvisionOptions::default() });
        let srk = &ready.provisioned.srk;
        let info = ready.tpm.describe().unwrap();
        assert!(info.software && info.owned, "{info:?}");

        let now = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
        let fixed = ready.seal(Binding::Fixed(now.clone()));
        let opened = ready.tpm.unseal(srk, &fixed, &[], PIN, PinTry::Unattended).unwrap();
        assert_eq!(*opened, SECRET, "{profile}");

        let approved = ready.seal(ready.binding());
        let approval = ready.signer.approve(now, REFERENCE).unwrap();
        let opened = ready.tpm.unseal(srk, &approved, &[approval], PIN, PinTry::Attended).unwrap();
        assert_eq!(*opened, SECRET, "{profile}");
    }
}

#[test]
fn the_strongest_algorithms_are_taken_and_all_authorisations_set() {
    let ready = Ready::new();
    assert_eq!(ready.provisioned.srk.profile, Profile::P384);
    let state = ready.tpm.dictionary(&ready.provisioned.srk).unwrap();
    assert_eq!((state.failed, state.parameters.tries_max, state.lockout_auth_set), (0, 5, true));
    // The empty authorisations that a TPM comes with do nothing any more.
    let mut client = foreign_client(&ready.swtpm.tcti());
    for hierarchy in [AuthHandle::Owner, AuthHandle::Endorsement] {
        let refused = client.execute_with_session(Some(AuthSession::Password), |client| {
            client.hierarchy_change_auth(hierarchy, Default::default())
        });
        let Err(tss_esapi::Error::Tss2Error(code)) = refused else { panic!("{refused:?}") };
        assert_eq!(code.kind(), Some(Kind::BadAuth), "{hierarchy:?}");
    }
}

#[test]
fn a_tpm_in_use_is_not_taken_over() {
    let ready = Ready::new();
    let again = ready.tpm.provision(ProvisionOptions::default());
    assert!(matches!(again, Err(TpmError::AlreadyOwned { .. })), "{again:?}");
    let wrong = ready.tpm.release(&ready.provisioned.srk, &ready.provisioned.owner);
    assert_eq!(wrong, Err(TpmError::AuthIncorrect { call: "Clear" }));
}

#[test]
fn a_released_tpm_opens_nothing_any_more() {
    let ready = Ready::new();
    let now = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(now));
    ready.tpm.release(&ready.provisioned.srk, &ready.provisioned.lockout).unwrap();
    let gone = ready.tpm.unseal(&ready.provisioned.srk, &sealed, &[], PIN, PinTry::Attended);
    assert_eq!(gone, Err(TpmError::SrkMissing { handle: ready.provisioned.srk.handle }));
    let fresh = ready.tpm.provision(ProvisionOptions::default()).unwrap();
    assert_ne!(fresh.srk, ready.provisioned.srk);
    let old = ready.tpm.unseal(&ready.provisioned.srk, &sealed, &[], PIN, PinTry::Attended);
    assert!(matches!(old, Err(TpmError::SrkChanged { .. })), "{old:?}");
    let moved = ready.tpm.unseal(&fresh.srk, &sealed, &[], PIN, PinTry::Attended);
    assert!(matches!(moved, Err(TpmError::CorruptBlob { .. })), "{moved:?}");
}

#[test]
fn provisioning_that_fails_is_taken_back() {
    let ready = Ready::new();
    ready.tpm.release(&ready.provisioned.srk, &ready.provisioned.lockout).unwrap();
    // No tries at all: the check at the end of provisioning refuses to hand over a TPM in lockout.
    let dictionary = DictionaryParameters { tries_max: 1, interval_s: 1_000, recovery_s: 1_000 };
    let refused = ready.tpm.provision(ProvisionOptions { dictionary, ..ProvisionOptions::default() });
    assert!(matches!(refused, Err(TpmError::LastTry { .. })), "{refused:?}");
    ready.tpm.provision(ProvisionOptions::default()).unwrap();
}

#[test]
fn wrong_pins_are_counted_and_the_last_try_is_kept() {
    let ready = Ready::new();
    let (srk, lockout) = (&ready.provisioned.srk, &ready.provisioned.lockout);
    let now = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(now));
    let attempt = |pin: &[u8], pin_try| ready.tpm.unseal(srk, &sealed, &[], pin, pin_try).map(|_| ());

    assert_eq!(attempt(b"wrong", PinTry::Attended), Err(TpmError::PinIncorrect { tries_left: 4 }));
    assert_eq!(attempt(PIN, PinTry::Unattended), Ok(()));
    assert_eq!(attempt(b"wrong", PinTry::Attended), Err(TpmError::PinIncorrect { tries_left: 3 }));
    assert_eq!(attempt(b"wrong", PinTry::Attended), Err(TpmError::PinIncorrect { tries_left: 2 }));
    // Less than half are left: they are for people.
    assert_eq!(attempt(PIN, PinTry::Unattended), Err(TpmError::KeptForPeople { left: 2, max: 5 }));
    assert_eq!(attempt(b"wrong", PinTry::Attended), Err(TpmError::PinIncorrect { tries_left: 1 }));
    // Not even the right one is tried, and nothing is spent.
    for pin in [b"wrong", PIN] {
        assert_eq!(attempt(pin, PinTry::Attended), Err(TpmError::LastTry { wait_s: 1_000 }));
    }
    assert_eq!(ready.tries_left(), 1);

    ready.tpm.end_lockout(srk, lockout).unwrap();
    assert_eq!(ready.tries_left(), 5);
    assert_eq!(attempt(PIN, PinTry::Attended), Ok(()));
    assert_eq!(attempt(b"", PinTry::Attended), Err(TpmError::PinUnusable { got: 0, max: 128 }));
    assert_eq!(attempt(&[b'x'; 129], PinTry::Attended), Err(TpmError::PinUnusable { got: 129, max: 128 }));
    assert_eq!(ready.tries_left(), 5);
}

#[test]
fn lockout_is_said_with_its_time_and_ended_by_its_authorisation() {
    let ready = Ready::new();
    let (srk, lockout) = (&ready.provisioned.srk, &ready.provisioned.lockout);
    let now = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(now));
    // Other software spends all tries on a key of its own; this crate never would.
    burn_all_tries(&ready);
    for pin in [PIN, b"wrong"] {
        let refused = ready.tpm.unseal(srk, &sealed, &[], pin, PinTry::Attended);
        assert_eq!(refused, Err(TpmError::Lockout { wait_s: 1_000 }));
    }
    let wrong = ready.tpm.end_lockout(srk, &ready.provisioned.owner);
    assert!(matches!(wrong, Err(TpmError::AuthIncorrect { .. })), "{wrong:?}");
    // A wrong lockout authorisation locks its own use for the recovery time.
    assert!(matches!(ready.tpm.end_lockout(srk, lockout), Err(TpmError::Lockout { .. })));
}

#[test]
fn lockout_ends_by_its_authorisation() {
    let ready = Ready::new();
    let (srk, lockout) = (&ready.provisioned.srk, &ready.provisioned.lockout);
    let now = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(now));
    burn_all_tries(&ready);
    assert_eq!(ready.tries_left(), 0);
    ready.tpm.end_lockout(srk, lockout).unwrap();
    assert_eq!(*ready.tpm.unseal(srk, &sealed, &[], PIN, PinTry::Attended).unwrap(), SECRET);
}

/// Wrong passwords for an object of its own, under a storage key of its own in the null hierarchy.
fn burn_all_tries(ready: &Ready) {
    use tss_esapi::structures::{
        Auth, KeyedHashScheme, PublicBuilder, PublicKeyedHashParameters, SensitiveData,
        SymmetricDefinitionObject,
    };
    let mut client = foreign_client(&ready.swtpm.tcti());
    client.set_sessions((Some(AuthSession::Password), None, None));
    let parent = tss_esapi::utils::create_restricted_decryption_rsa_public(
        SymmetricDefinitionObject::AES_128_CFB,
        tss_esapi::interface_types::key_bits::RsaKeyBits::Rsa2048,
        Default::default(),
    );
    let parent =
        client.create_primary(Hierarchy::Null, parent.unwrap(), None, None, None, None).unwrap().key_handle;
    let attributes = tss_esapi::attributes::ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(true)
        .build()
        .unwrap();
    let public = PublicBuilder::new()
        .with_public_algorithm(tss_esapi::interface_types::algorithm::PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(tss_esapi::interface_types::algorithm::HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Default::default())
        .build()
        .unwrap();
    let auth = Auth::try_from(&b"right"[..]).unwrap();
    let data = SensitiveData::try_from(&b"data"[..]).unwrap();
    let made = client.create(parent, public, Some(auth), Some(data), None, None).unwrap();
    let object = client.load(parent, made.out_private, made.out_public).unwrap();
    client.tr_set_auth(object.into(), Auth::try_from(&b"wrong"[..]).unwrap()).unwrap();
    for _ in 0..6 {
        assert!(client.unseal(object.into()).is_err());
    }
}

#[test]
fn another_boot_does_not_open_it_and_spends_no_try() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let before = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let fixed = ready.seal(Binding::Fixed(before.clone()));
    let approved = ready.seal(ready.binding());
    let approvals = [ready.signer.approve(before, REFERENCE).unwrap()];
    ready.tpm.extend(11, [1; 32]).unwrap();
    for (sealed, approvals) in [(&fixed, &[][..]), (&approved, &approvals[..])] {
        let refused = ready.tpm.unseal(srk, sealed, approvals, PIN, PinTry::Attended);
        assert_eq!(refused, Err(TpmError::PcrMismatch { changed: vec![11] }));
    }
    let none = ready.tpm.unseal(srk, &approved, &[], PIN, PinTry::Attended);
    assert_eq!(none, Err(TpmError::PcrMismatch { changed: vec![7, 11] }));
    assert_eq!(ready.tries_left(), 5);
}

#[test]
fn an_approved_update_opens_and_so_does_a_predicted_one() {
    let mut ready = Ready::new();
    let srk = ready.provisioned.srk.clone();
    let now = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let approved = ready.seal(ready.binding());
    // What the next image will measure, computed by those who sign it: register 7 stays, 11 starts from zero.
    let next = [[0xA1; 32], [0xA2; 32]];
    let predicted =
        PcrValues::new(vec![now.pcrs()[0].clone(), Pcr { index: 11, value: predict([0; 32], &next) }])
            .unwrap();
    let approvals = [
        ready.signer.approve(now, REFERENCE).unwrap(),
        ready.signer.approve(predicted.clone(), REFERENCE).unwrap(),
    ];
    // The same without a policy key: sealed again before the restart.
    let resealed = ready.seal(Binding::Fixed(predicted.clone()));
    assert_eq!(
        ready.tpm.unseal(&srk, &resealed, &[], PIN, PinTry::Attended),
        Err(TpmError::PcrMismatch { changed: vec![11] })
    );

    let tpm = std::mem::replace(&mut ready.tpm, zixt_tpm::Tpm::new("device:/nowhere").unwrap());
    drop(tpm);
    ready.swtpm.kill();
    ready.swtpm.power_on();
    let tpm = ready.swtpm.tpm();
    tpm.extend(7, [7; 32]).unwrap();
    next.iter().for_each(|digest| tpm.extend(11, *digest).unwrap());
    assert_eq!(tpm.pcrs(PcrSelection::DEFAULT).unwrap(), predicted);
    for (sealed, approvals) in [(&approved, &approvals[..]), (&resealed, &[][..])] {
        assert_eq!(*tpm.unseal(&srk, sealed, approvals, PIN, PinTry::Attended).unwrap(), SECRET);
    }
}

#[test]
fn approvals_of_another_key_or_for_another_purpose_are_refused() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let now = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(ready.binding());
    let key = ready.signer.public().unwrap();
    let stranger = PolicySigner::generate(srk.profile).unwrap();
    let refused = [
        stranger.approve(now.clone(), REFERENCE).unwrap(),
        ready.signer.approve(now.clone(), PolicyRef([1; 32])).unwrap(),
    ];
    for approval in refused {
        assert_eq!(approval.verify(&key, &REFERENCE, PcrSelection::DEFAULT), Err(ApprovalError::Signature));
        // The TPM comes to the same conclusion by itself: whoever writes into the state wins nothing.
        assert_eq!(
            ready.tpm.unseal(srk, &sealed, &[approval], PIN, PinTry::Attended),
            Err(TpmError::ApprovalRefused(ApprovalError::Signature))
        );
    }
    // A stranger's key written into the state does not fit the object.
    let Binding::Approved { reference, .. } = ready.binding() else { panic!() };
    let theirs = Binding::Approved { key: stranger.public().unwrap(), reference };
    let mut altered: Sealed = sealed;
    altered.binding = theirs;
    let approval = stranger.approve(now, REFERENCE).unwrap();
    let refused = ready.tpm.unseal(srk, &altered, &[approval], PIN, PinTry::Attended);
    assert!(matches!(refused, Err(TpmError::CorruptBlob { .. })), "{refused:?}");
    assert_eq!(ready.tries_left(), 5);
}

#[test]
fn approvals_are_checked_before_they_are_kept() {
    let signer = PolicySigner::generate(Profile::P384).unwrap();
    let key = signer.public().unwrap();
    let values = |byte| {
        let pcr = |index| Pcr { index, value: [byte; 32] };
        PcrValues::new(vec![pcr(7), pcr(11)]).unwrap()
    };
    assert_eq!(signer.approve(values(0), REFERENCE), Err(ApprovalError::Unmeasured));
    let approval = signer.approve(values(3), REFERENCE).unwrap();
    assert_eq!(approval.verify(&key, &REFERENCE, PcrSelection::DEFAULT), Ok(()));
    let wanted = PcrSelection::new(&[7]).unwrap();
    assert_eq!(
        approval.verify(&key, &REFERENCE, wanted),
        Err(ApprovalError::Registers { approved: PcrSelection::DEFAULT, wanted })
    );
    use zixt_types::Canonical;
    let bytes = approval.to_bytes();
    assert_eq!(Approval::parse(&bytes), Ok(approval));
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let accepted = Approval::parse(&bad)
            .is_ok_and(|approval| approval.verify(&key, &REFERENCE, PcrSelection::DEFAULT).is_ok());
        assert!(!accepted, "byte {at}");
    }
}

#[test]
fn sealing_to_registers_that_nothing_measured_is_refused() {
    let ready = Ready::new();
    let selection = PcrSelection::new(&[13, 14]).unwrap();
    let values = ready.tpm.pcrs(selection).unwrap();
    let srk = &ready.provisioned.srk;
    let refused = ready.tpm.seal(srk, &SECRET, PIN, selection, Binding::Fixed(values));
    assert_eq!(refused, Err(TpmError::PcrsUnmeasured { pcrs: "sha256:13,14".to_owned() }));
}

#[test]
fn many_registers_are_read_and_sealed_to() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let selection = PcrSelection::new(&(0..24).collect::<Vec<_>>()).unwrap();
    let values = ready.tpm.pcrs(selection).unwrap();
    let sealed = ready.tpm.seal(srk, &SECRET, PIN, selection, Binding::Fixed(values)).unwrap();
    assert_eq!(*ready.tpm.unseal(srk, &sealed, &[], PIN, PinTry::Attended).unwrap(), SECRET);
    measure(&ready.tpm);
    assert_eq!(
        ready.tpm.unseal(srk, &sealed, &[], PIN, PinTry::Attended),
        Err(TpmError::PcrMismatch { changed: vec![7, 11] })
    );
}

#[test]
fn the_most_that_a_tpm_seals() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let secret: Vec<u8> = (0..128).collect();
    let seal = |secret: &[u8]| ready.tpm.seal(srk, secret, PIN, PcrSelection::DEFAULT, ready.binding());
    let sealed = seal(&secret).unwrap();
    let now = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let approval = ready.signer.approve(now, REFERENCE).unwrap();
    let opened = ready.tpm.unseal(srk, &sealed, &[approval], PIN, PinTry::Attended).unwrap();
    assert_eq!(*opened, secret);
    assert!(seal(&[0; 129]).is_err());
}
