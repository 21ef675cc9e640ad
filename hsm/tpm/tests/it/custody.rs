//! Provisioning, sealing and everything that stands in the way.

use crate::common::{PIN, REFERENCE, Ready, SECRET, measure};
use crate::swtpm::Swtpm;
use zixt_tpm::{
    Approval, ApprovalError, Binding, DictionaryParameters, Pcr, PcrSelection, PcrValues, PinTry,
    PolicySigner, ProvisionOptions, TpmError, predict,
};

#[test]
fn a_secret_is_sealed_and_opened_again() {
    let ready = Ready::new();
    let srk = &ready.provisioned.srk;
    let info = ready.tpm.describe().unwrap();
    assert!(info.software && info.owned, "{info:?}");

    let now = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let fixed = ready.seal(Binding::Fixed(now.clone()));
    let opened = ready.tpm.unseal(srk, &fixed, &[], PIN, PinTry::Unattended).unwrap();
    assert_eq!(*opened, SECRET);

    let approved = ready.seal(ready.binding());
    let approval = ready.signer.approve(now, REFERENCE).unwrap();
    let opened = ready.tpm.unseal(srk, &approved, &[approval], PIN, PinTry::Attended).unwrap();
    assert_eq!(*opened, SECRET);
}

#[test]
fn a_tpm_in_use_is_not_taken_over() {
    let ready = Ready::new();
    let again = ready.tpm.provision(ProvisionOptions::default());
    assert!(matches!(again, Err(TpmError::AlreadyOwned { .. })), "{again:?}");
    // Given back, it can be taken into use again, and nothing sealed before opens.
    let now = ready.tpm.pcrs(PcrSelection::DEFAULT).unwrap();
    let sealed = ready.seal(Binding::Fixed(now));
    ready.tpm.release(&ready.provisioned.srk, &ready.provisioned.lockout).unwrap();
    let fresh = ready.tpm.provision(ProvisionOptions::default()).unwrap();
    assert_ne!(fresh.srk, ready.provisioned.srk);
    let old = ready.tpm.unseal(&ready.provisioned.srk, &sealed, &[], PIN, PinTry::Attended);
    assert!(matches!(old, Err(TpmError::SrkChanged { .. })), "{old:?}");
    let moved = ready.tpm.unseal(&fresh.srk, &sealed, &[], PIN, PinTry::Attended);
    assert!(matches!(moved, Err(TpmError::CorruptBlob { .. })), "{moved:?}");
}
