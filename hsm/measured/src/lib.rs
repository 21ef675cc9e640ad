//! Measured boot without a TPM: registers and what they will hold, approvals of their values, and quotes.
//!
//! Whoever approves an image, or checks what a machine started, has no TPM and no library of one: nothing here touches
//! either. `zixt-tpm` does what needs the device, by the same structures.

mod attestation;
mod pcr;
mod policy;
mod profile;
mod quote;
mod text;
mod wire;

pub use attestation::{Attestation, AttestationError, QUOTE_EXTENSION};
pub use pcr::{PCR_BYTES, Pcr, PcrSelection, PcrValues, SelectionError, predict};
pub use policy::{
    Approval, ApprovalError, Binding, POLICY_REF_BYTES, PolicyKey, PolicyRef, PolicySigner, approval_digest,
    pcr_policy, sealing_policy,
};
pub use profile::Profile;
pub use quote::{AttestationPublic, NONCE_BYTES, Quote, QuoteError, Quoted};
pub use text::{RegistersError, nonce_from_hex, registers_from_text, registers_to_text};
pub use wire::WireError;
