//! Quotes, and the proof of which TPM they come from.

use crate::common::Ready;
use zixt_tpm::{
    AttestationKey, AttestationPublic, Credential, PcrSelection, Profile, ProvisionOptions, Quote,
    QuoteError, TpmError,
};
use zixt_types::Canonical;

const NONCE: [u8; 32] = [0x17; 32];

#[test]
fn a_quote_is_verified_without_a_tpm() {
    for profile in [Profile::P384, Profile::P256] {
        let ready = Ready::with(ProvisionOptions { profile: Some(profile), ..ProvisionOptions::default() });
        let srk = &ready.provisioned.srk;
        let key = ready.tpm.create_attestation_key(srk).unwrap();
        let key = AttestationKey::parse(&key.to_bytes()).unwrap();
        let selection = PcrSelection::new(&[0, 7, 11, 16]).unwrap();
        let quote = ready.tpm.quote(srk, &key, selection, &NONCE).unwrap();
        let quote = Quote::parse(&quote.to_bytes()).unwrap();
        let quoted = quote.verify(&key.public, &NONCE, selection).unwrap();
        assert_eq!(quoted.values, ready.tpm.pcrs(selection).unwrap());

        let other = ready.tpm.create_attestation_key(srk).unwrap();
        assert_eq!(quote.verify(&other.public, &NONCE, selection), Err(QuoteError::Signature));
        assert_eq!(quote.verify(&key.public, &[0x18; 32], selection), Err(QuoteError::Nonce));
        assert_eq!(quote.verify(&key.public, &NONCE, PcrSelection::DEFAULT), Err(QuoteError::Registers));
    }
}

#[test]
fn no_changed_byte_of_a_quote_goes_unnoticed() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let key = ready.tpm.create_attestation_key(srk).unwrap();
    let quote = ready.tpm.quote(srk, &key, PcrSelection::DEFAULT, &NONCE).unwrap();
    let bytes = quote.to_bytes();
    for at in 0..bytes.len() {
        for bit in [1, 0x80] {
            let mut bad = bytes.clone();
            bad[at] ^= bit;
            let verified = Quote::parse(&bad)
                .is_ok_and(|quote| quote.verify(&key.public, &NONCE, PcrSelection::DEFAULT).is_ok());
            assert!(!verified, "byte {at}");
        }
    }
    // The attributes that make the key one of a TPM are part of what is checked.
    let public = key.public.to_bytes();
    for at in 0..public.len() {
        let mut bad = public.clone();
        bad[at] ^= 1;
        let verified = AttestationPublic::parse(&bad)
            .is_ok_and(|public| quote.verify(&public, &NONCE, PcrSelection::DEFAULT).is_ok());
        // A bit of the attributes that neither the key nor the check depends on changes the Name, and with it whether
        // a credential opens; the signature is still the key's.
        let name_changed =
            AttestationPublic::parse(&bad).is_ok_and(|public| public.name() != key.public.name());
        assert!(!verified || name_changed, "byte {at}");
    }
}

#[test]
fn a_credential_opens_in_its_tpm_with_its_key_only() {
    for profile in [Profile::P384, Profile::P256] {
        let ready = Ready::with(ProvisionOptions { profile: Some(profile), ..ProvisionOptions::default() });
        let (srk, auth) = (&ready.provisioned.srk, &ready.provisioned.endorsement);
        let key = ready.tpm.create_attestation_key(srk).unwrap();
        let endorsement = ready.tpm.endorsement_key(srk, auth).unwrap();
        assert_eq!(ready.tpm.endorsement_key(srk, auth).unwrap(), endorsement);
        // Whoever checks has another TPM, or any.
        let checker = Ready::new();
        let secret = [0xC4; 32];
        let credential = checker.tpm.make_credential(&endorsement, &key.public, &secret).unwrap();
        let credential = Credential::parse(&credential.to_bytes()).unwrap();
        assert_eq!(
            *ready.tpm.activate_credential(srk, &key, auth, &credential).unwrap(),
            secret,
            "{profile}"
        );

        let other = ready.tpm.create_attestation_key(srk).unwrap();
        let refused = ready.tpm.activate_credential(srk, &other, auth, &credential);
        assert!(matches!(refused, Err(TpmError::CorruptBlob { .. })), "{profile}: {refused:?}");
        let wrong = ready.tpm.activate_credential(srk, &key, &ready.provisioned.owner, &credential);
        assert!(matches!(wrong, Err(TpmError::AuthIncorrect { .. })), "{profile}: {wrong:?}");
        let foreign = checker.tpm.create_attestation_key(&checker.provisioned.srk).unwrap();
        let refused = ready.tpm.activate_credential(srk, &foreign, auth, &credential);
        assert!(matches!(refused, Err(TpmError::CorruptBlob { .. })), "{profile}: {refused:?}");
    }
}
