//! A TPM 2.0 as the protector of a root key: sealed to what the machine started and to a PIN.
//!
//! Rules that a TPM and its software stack teach (each has a test or a comment at its place):
//! * Every secret travels in a session that is salted to the storage key, whose Name was pinned when the TPM was
//!   provisioned. An unsalted session looks encrypted and protects nothing from whoever sits on the bus.
//! * The Name is computed here, from the public area that the salt is encrypted to. The TPM's word for it is no proof.
//! * The state of the dictionary-attack defence is read, authenticated, before a PIN is used.
//! * Sessions and objects are flushed whatever happens; slots are three, and a leak stops every other client.
//! * Authorisation values never end in a zero byte: the TPM and the software stack disagree about those.

mod attest;
mod counter;
mod dictionary;
mod epoch;
mod error;
mod link;
mod owner;
mod protector;
mod provision;
mod raw;
mod seal;

pub use attest::{AttestationKey, CREDENTIAL_BYTES_MAX, Credential, EndorsementPublic};
pub use counter::{COUNTER_AUTH_BYTES, COUNTER_INDEX_DEFAULT, Counter, Freshness, judge_state};
pub use dictionary::{DictionaryParameters, DictionaryState, PinTry};
pub use epoch::{EPOCH_KEY_BYTES, Epoch};
pub use error::TpmError;
pub use link::Srk;
pub use owner::{TCTI_DEFAULT, Tpm};
pub use protector::{APPROVALS_MAX, Enrolment, ROOT_BYTES, TpmProtector};
pub use provision::{AUTH_BYTES, HierarchyAuth, ProvisionOptions, Provisioned, SRK_HANDLE_DEFAULT, TpmInfo};
pub use seal::{PIN_BYTES_MAX, SECRET_BYTES_MAX, Sealed};
pub use zixt_measured::{
    Approval, ApprovalError, AttestationPublic, Binding, NONCE_BYTES, PCR_BYTES, POLICY_REF_BYTES, Pcr,
    PcrSelection, PcrValues, PolicyKey, PolicyRef, PolicySigner, Profile, Quote, QuoteError, Quoted,
    SelectionError, WireError, predict,
};
