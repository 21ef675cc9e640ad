//! The TPM's word for what the machine started.

use super::{Service, storage};
use crate::state::Folder as _;
use zixt_hsm_protocol::CustodyError;
use zixt_types::ProtectorKind;

/// The attestation key, of use in its TPM only. Whoever puts another one here makes quotes that fail an officer's check.
const KEY_FILE: &str = "attestation-key";
/// More than any has.
const KEY_BYTES_MAX: usize = 4096;

impl Service {
    /// A quote by the attestation key that was made for the first one.
    pub(super) fn quote(&self, nonce: &[u8; 32]) -> Result<Vec<u8>, CustodyError> {
        // One at a time, so that there is one key.
        let _change = self.changing();
        let (enrolled, authorisation) = {
            let custody = self.read();
            let record = custody.record().ok_or(CustodyError::Unprovisioned)?;
            let tpm = record.protectors.iter().find(|enrolled| enrolled.kind == ProtectorKind::Tpm);
            let tpm = tpm.ok_or_else(|| self.no_tpm())?;
            let root = custody.open().ok().map(|open| &open.root);
            (tpm.clone(), root.map(|root| tpm.authorisation(root)).transpose()?.flatten())
        };
        let device = self.device(&enrolled).ok_or_else(|| self.no_tpm())?;
        let kept = self.folder.read(KEY_FILE, KEY_BYTES_MAX).map_err(|error| storage(&error))?;
        let authorisation = authorisation.as_deref().map(Vec::as_slice);
        let attested = device.attest(&enrolled.enrolment, kept.as_deref(), authorisation, nonce)?;
        if kept.as_ref() != Some(&attested.key) {
            log::info!("{} has a new attestation key", enrolled.name);
            self.folder.replace(KEY_FILE, &attested.key).map_err(|error| storage(&error))?;
        }
        Ok(attested.attestation)
    }

    fn no_tpm(&self) -> CustodyError {
        CustodyError::NoSuchProtector {
            name: "of the kind TPM that wraps the root".to_owned(),
            known: self.names(),
        }
    }
}
