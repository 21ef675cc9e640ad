//! What the tests share: a TPM in use, and a client beside this crate.

use crate::swtpm::Swtpm;
use tss_esapi::Context;
use tss_esapi::tcti_ldr::TctiNameConf;
use zixt_tpm::{
    Binding, DictionaryParameters, PcrSelection, PolicyRef, PolicySigner, ProvisionOptions, Provisioned,
    Sealed, Tpm,
};

pub const PIN: &[u8] = b"Kupfer-7-Dachs-Zimt";
pub const SECRET: [u8; 32] = *b"root key of an appliance: 32 byt";
pub const REFERENCE: PolicyRef = PolicyRef([0x5A; 32]);

/// A simulator that is provisioned and measured.
pub struct Ready {
    pub swtpm: Swtpm,
    pub tpm: Tpm,
    pub provisioned: Provisioned,
    pub signer: PolicySigner,
}

impl Ready {
    pub fn new() -> Self {
        let dictionary = DictionaryParameters { tries_max: 5, interval_s: 1_000, recovery_s: 1_000 };
        Self::with(ProvisionOptions { dictionary, ..ProvisionOptions::default() })
    }

    pub fn with(options: ProvisionOptions) -> Self {
        let swtpm = Swtpm::start();
        let tpm = swtpm.tpm();
        let provisioned = tpm.provision(options).unwrap();
        measure(&tpm);
        let signer = PolicySigner::generate(provisioned.srk.profile).unwrap();
        Self { swtpm, tpm, provisioned, signer }
    }

    pub fn binding(&self) -> Binding {
        Binding::Approved { key: self.signer.public().unwrap(), reference: REFERENCE }
    }

    pub fn seal(&self, binding: Binding) -> Sealed {
        self.tpm.seal(&self.provisioned.srk, &SECRET, PIN, PcrSelection::DEFAULT, binding).unwrap()
    }

    pub fn tries_left(&self) -> u32 {
        self.tpm.dictionary(&self.provisioned.srk).unwrap().tries_left()
    }
}

/// What firmware and the image would do.
pub fn measure(tpm: &Tpm) {
    tpm.extend(7, [7; 32]).unwrap();
    tpm.extend(11, [11; 32]).unwrap();
}

/// A client that does not go through this crate.
pub fn foreign_client(tcti: &str) -> Context {
    Context::new(tcti.parse::<TctiNameConf>().unwrap()).unwrap()
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
