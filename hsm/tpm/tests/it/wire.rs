//! What somebody on the bus between processor and TPM sees and can do.

use crate::common::{PIN, REFERENCE, Ready, SECRET, contains, foreign_client};
use crate::proxy::{Action, Proxy, code};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, KeyedHashScheme, PublicBuilder, PublicKeyedHashParameters, SensitiveData, SymmetricDefinitionObject,
};
use zixt_crypto::{hash, labels};
use zixt_tpm::{
    Binding, COUNTER_INDEX_DEFAULT, PcrSelection, PinTry, ProvisionOptions, Sealed, Tpm, TpmError,
};

const CC_READ_PUBLIC: u32 = 0x0173;
const CC_GET_CAPABILITY: u32 = 0x017A;
const CC_START_AUTH_SESSION: u32 = 0x0176;

/// The authorisation value that a PIN becomes for a sealed secret.
fn authorisation(sealed: &Sealed, pin: &[u8]) -> Vec<u8> {
    let bytes = minicbor::to_vec(sealed).unwrap();
    let mut decoder = minicbor::Decoder::new(&bytes);
    decoder.array().unwrap();
    decoder.skip().unwrap();
    decoder.skip().unwrap();
    let salt = decoder.bytes().unwrap();
    hash::hmac_sha384(salt, labels::TPM_PIN, &[pin]).0[..32].to_vec()
}

#[test]
fn neither_secret_nor_pin_nor_authorisation_is_on_the_wire() {
    let swtpm = crate::swtpm::Swtpm::start();
    let commands = Arc::new(Mutex::new(Vec::new()));
    let recorded = commands.clone();
    let proxy = Proxy::start(
        swtpm.port(),
        Box::new(move |is_command, _, frame| {
            if is_command {
                recorded.lock().unwrap().push(frame.clone());
            }
            Action::Pass
        }),
    );
    let tpm = Tpm::new(&proxy.tcti()).unwrap();
    let provisioned = tpm.provision(ProvisionOptions::default()).unwrap();
    crate::common::measure(&tpm);
    let srk = &provisioned.srk;
    let values = tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let signer = zixt_tpm::PolicySigner::generate(srk.profile).unwrap();
    let binding = Binding::Approved { key: signer.public().unwrap(), reference: REFERENCE };
    let sealed = tpm.seal(srk, &SECRET, PIN, PcrSelection::DEFAULT, binding).unwrap();
    let approval = signer.approve(values, REFERENCE).unwrap();
    assert_eq!(
        *tpm.unseal(srk, &sealed, std::slice::from_ref(&approval), PIN, PinTry::Attended).unwrap(),
        SECRET
    );
    let wrong = b"not the PIN at all";
    assert!(tpm.unseal(srk, &sealed, &[approval], wrong, PinTry::Attended).is_err());
    let counter_auth = [0x3C; 32];
    let (counter, _) =
        tpm.create_counter(srk, &provisioned.owner, COUNTER_INDEX_DEFAULT, &counter_auth).unwrap();
    tpm.advance_counter(srk, &counter, &counter_auth).unwrap();
    let epoch = tpm.create_epochs(srk, &provisioned.owner, COUNTER_INDEX_DEFAULT, &counter_auth).unwrap();
    let epoch_key = tpm.epoch_key(srk, COUNTER_INDEX_DEFAULT, epoch, &counter_auth).unwrap();
    tpm.endorsement_key(srk, &provisioned.endorsement).unwrap();
    tpm.end_lockout(srk, &provisioned.lockout).unwrap();
    tpm.release(srk, &provisioned.lockout).unwrap();

    let wire = proxy.wire();
    // The recording is one of this talk: what is no secret is in it.
    assert!(contains(&wire, &srk.name), "the storage key's Name");
    assert!(contains(&wire, &REFERENCE.0), "the policy reference");
    for (what, secret) in [
        ("secret", &SECRET[..]),
        ("half of the secret", &SECRET[8..24]),
        ("PIN", PIN),
        ("wrong PIN", wrong),
        ("authorisation of the PIN", &authorisation(&sealed, PIN)),
        ("authorisation of the wrong PIN", &authorisation(&sealed, wrong)),
        ("counter's authorisation", &counter_auth),
        ("key of an epoch", &epoch_key[..]),
        ("owner's authorisation", provisioned.owner.as_bytes()),
        ("endorsement authorisation", provisioned.endorsement.as_bytes()),
        ("lockout authorisation", provisioned.lockout.as_bytes()),
    ] {
        assert!(!contains(&wire, secret), "the {what} is on the wire");
    }
    // A session that is salted to nothing would pass all this and protect nothing: its key follows from what is on the
    // wire. Every session here is salted to the storage key.
    let commands = commands.lock().unwrap();
    let sessions: Vec<_> = commands.iter().filter(|command| code(command) == CC_START_AUTH_SESSION).collect();
    assert!(sessions.len() > 10, "{}", sessions.len());
    for session in sessions {
        assert_eq!(session[10..14], srk.handle.to_be_bytes(), "salted to another key, or to none");
    }
    // Passwords are empty: they authorise what is still, or always, without an authorisation.
    let password = [&0x4000_0009_u32.to_be_bytes()[..], &[0, 0]].concat();
    let with_password = commands.iter().filter(|command| contains(command, &password)).count();
    assert!(with_password > 0);
    for command in commands.iter().filter(|command| contains(command, &password)) {
        let at =
            command.windows(password.len()).position(|window| window == password).unwrap() + password.len();
        assert_eq!(command[at + 1..at + 3], [0, 0], "a password that is not empty");
    }
}

/// The positive control of the test above: with a password session the same proxy records secret and password.
#[test]
fn a_password_session_shows_both_on_the_wire() {
    let swtpm = crate::swtpm::Swtpm::start();
    let proxy = Proxy::recorder(swtpm.port());
    {
        let mut client = foreign_client(&proxy.tcti());
        client.set_sessions((Some(AuthSession::Password), None, None));
        let parent = tss_esapi::utils::create_restricted_decryption_rsa_public(
            SymmetricDefinitionObject::AES_128_CFB,
            tss_esapi::interface_types::key_bits::RsaKeyBits::Rsa2048,
            Default::default(),
        );
        let parent = client
            .create_primary(Hierarchy::Owner, parent.unwrap(), None, None, None, None)
            .unwrap()
            .key_handle;
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
        let auth = Auth::try_from(PIN).unwrap();
        let data = SensitiveData::try_from(&SECRET[..]).unwrap();
        let made = client.create(parent, public, Some(auth.clone()), Some(data), None, None).unwrap();
        let object = client.load(parent, made.out_private, made.out_public).unwrap();
        client.tr_set_auth(object.into(), auth).unwrap();
        assert_eq!(client.unseal(object.into()).unwrap().value(), SECRET);
    }
    let wire = proxy.wire();
    assert!(contains(&wire, &SECRET) && contains(&wire, &SECRET[8..24]));
    assert!(contains(&wire, PIN));
}

#[test]
fn a_storage_key_in_the_pinned_ones_place_is_refused() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let values = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(values));
    // Another TPM of the same kind.
    let other = Ready::new();
    let refused = other.tpm.unseal(srk, &sealed, &[], PIN, PinTry::Attended);
    assert!(matches!(refused, Err(TpmError::SrkChanged { .. })), "{refused:?}");
    // Something on the bus that answers with a key of its own but with the Name that is expected.
    let substituted = Arc::new(AtomicBool::new(false));
    let (seen, mut reads) = (substituted.clone(), false);
    let point = srk.profile.bytes();
    let proxy = Proxy::start(
        ready.swtpm.port(),
        Box::new(move |is_command, _, frame| {
            if is_command {
                reads = code(frame) == CC_READ_PUBLIC;
            } else if reads && frame.len() > 100 {
                // The public area ends with the y coordinate; only it is changed.
                let size = usize::from(u16::from_be_bytes([frame[10], frame[11]]));
                frame[12 + size - point / 2] ^= 1;
                seen.store(true, Ordering::SeqCst);
            }
            Action::Pass
        }),
    );
    let tpm = Tpm::new(&proxy.tcti()).unwrap();
    let attempts = [
        tpm.unseal(srk, &sealed, &[], PIN, PinTry::Attended).map(|_| ()),
        tpm.dictionary(srk).map(|_| ()),
        tpm.end_lockout(srk, &ready.provisioned.lockout),
    ];
    for refused in attempts {
        assert!(matches!(refused, Err(TpmError::SrkChanged { .. })), "{refused:?}");
    }
    assert!(substituted.load(Ordering::SeqCst));
}

#[test]
fn a_wire_that_lies_about_the_tries_left_is_noticed() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let values = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(values));
    let mut asked = false;
    let proxy = Proxy::start(
        ready.swtpm.port(),
        Box::new(move |is_command, _, frame| {
            if is_command {
                // With a session, as the state of the defence is read.
                asked = code(frame) == CC_GET_CAPABILITY && frame[..2] == [0x80, 0x02];
            } else if asked {
                // TPM_PT_LOCKOUT_COUNTER and its value.
                let tag = [0x00, 0x00, 0x02, 0x0E];
                let at = frame.windows(4).position(|window| window == tag).unwrap();
                frame[at + 7] = 3;
            }
            Action::Pass
        }),
    );
    let tpm = Tpm::new(&proxy.tcti()).unwrap();
    assert_eq!(tpm.dictionary(srk), Err(TpmError::AnswerForged { call: "GetCapability" }));
    let refused = tpm.unseal(srk, &sealed, &[], PIN, PinTry::Attended);
    assert_eq!(refused, Err(TpmError::AnswerForged { call: "GetCapability" }));
}

#[test]
fn a_changed_blob_is_told_from_a_wrong_pin() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let values = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(values));
    let bytes = minicbor::to_vec(&sealed).unwrap();
    // The two parts of the object are the end of it.
    let mut decoder = minicbor::Decoder::new(&bytes);
    decoder.array().unwrap();
    (0..3).for_each(|_| decoder.skip().unwrap());
    let parts = decoder.position();
    let mut changed = 0;
    for at in (parts..bytes.len()).step_by(3) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x40;
        let Ok(bad) = minicbor::decode::<Sealed>(&bad) else { continue };
        let refused = ready.tpm.unseal(srk, &bad, &[], PIN, PinTry::Attended);
        assert!(matches!(refused, Err(TpmError::CorruptBlob { .. })), "byte {at}: {refused:?}");
        changed += 1;
    }
    assert!(changed > 50, "{changed}");
    assert_eq!(ready.tries_left(), 5);
}

#[test]
fn a_tpm_that_goes_away_is_absent_and_comes_back() {
    let mut ready = Ready::new();
    let srk = ready.provisioned.srk.clone();
    let values = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(values));
    // Cut at each command of an unlock, one after the other, until it gets through.
    let cut_at = Arc::new(AtomicUsize::new(1));
    let limit = cut_at.clone();
    let mut seen = 0;
    let proxy = Proxy::start(
        ready.swtpm.port(),
        Box::new(move |is_command, _, _| {
            seen += usize::from(is_command);
            if seen >= limit.load(Ordering::SeqCst) {
                seen = 0;
                return Action::Cut;
            }
            Action::Pass
        }),
    );
    let tpm = Tpm::new(&proxy.tcti()).unwrap();
    let mut cuts = 0;
    loop {
        match tpm.unseal(&srk, &sealed, &[], PIN, PinTry::Attended) {
            Ok(opened) => {
                assert_eq!(*opened, SECRET);
                break;
            }
            Err(TpmError::TpmAbsent { tcti, .. }) => assert_eq!(tcti, proxy.tcti()),
            Err(error) => panic!("cut {cuts}: {error:?}"),
        }
        cuts += 1;
        cut_at.fetch_add(1, Ordering::SeqCst);
        assert!(cuts < 100);
    }
    assert!(cuts > 10, "{cuts}");

    // And with the power switch.
    ready.swtpm.kill();
    let gone = ready.tpm.unseal(&srk, &sealed, &[], PIN, PinTry::Attended);
    assert!(matches!(gone, Err(TpmError::TpmAbsent { .. })), "{gone:?}");
    let nowhere = Tpm::new("device:/dev/no-such-tpm").unwrap().describe();
    assert!(matches!(nowhere, Err(TpmError::TpmAbsent { .. })), "{nowhere:?}");
    let nonsense = Tpm::new("no TCTI").unwrap().describe();
    assert!(matches!(nonsense, Err(TpmError::TpmAbsent { .. })), "{nonsense:?}");
}
