//! The key of whoever signs images: it approves what a TPM will have measured once the next image runs. In one file,
//! sealed under a passphrase as officers' keys are, on the machine that signs images and on no appliance.

use crate::officer::key_file::sealing_key;
use crate::officer::{Exit, Failure, read, write_new};
use minicbor::{Decode, Encode};
use serde_json::{Value, json};
use std::path::Path;
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_ceremony::file::{self, FileError, Filed};
use zixt_ceremony::grouped;
use zixt_crypto::aead::{self, SealError};
use zixt_crypto::password::{DeriveError, Params, SALT_BYTES};
use zixt_crypto::{RandomError, fill_random, labels};
use zixt_measured::{
    ApprovalError, Attestation, AttestationError, NONCE_BYTES, PcrValues, PolicyKey, PolicyRef, PolicySigner,
    Profile, QuoteError, RegistersError, registers_from_text, registers_to_text,
};
use zixt_types::{Canonical, limits};

/// The end of the public key's file name, which appliances are configured with.
pub const PUBLIC_EXTENSION: &str = "policy-key";
/// The end of an approval's file name, by which custody finds it.
pub const APPROVAL_EXTENSION: &str = "approval";

/// Why an image key could not be made or used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// Another file, or one that is damaged.
    #[error(transparent)]
    File(#[from] FileError),
    /// The passphrase is wrong or a byte was changed; which of the two cannot be known.
    #[error("the passphrase is wrong, or the image key's file was altered")]
    Rejected,
    /// The public key in the file belongs to another one.
    #[error("the public key in the file is not that of its private key")]
    OtherKey,
    /// The registers' text.
    #[error(transparent)]
    Registers(#[from] RegistersError),
    /// The approval.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Not enough memory for the passphrase's derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// Nothing could be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let (exit, advice) = match error {
            ImageError::File(error) => return error.into(),
            ImageError::Rejected => (Exit::WrongPassphrase, "Try again, or use your copy of the file."),
            ImageError::OtherKey => (Exit::Altered, "Use your copy of the file."),
            ImageError::Registers(_) => (
                Exit::Usage,
                "A line is `11 = VALUE`, or `11 + DIGEST` for each measured event in its order.",
            ),
            ImageError::Approval(ApprovalError::Unmeasured) => {
                (Exit::Refused, "Measure the image first: such an approval would hold for every software.")
            }
            ImageError::Approval(_) => (Exit::Altered, "Use your copy of the file."),
            ImageError::Random(_) | ImageError::Derive(_) | ImageError::Seal(_) => {
                (Exit::Internal, "This machine cannot do it: use another one.")
            }
        };
        Self::new(exit, error.to_string(), advice)
    }
}

/// The file: the public key in clear, the private one sealed. Everything in clear is bound to it as associated data.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct ImageKeyFile {
    /// Format version: 1.
    #[n(0)]
    version: u64,
    /// Its public half.
    #[n(1)]
    public: PolicyKey,
    /// Argon2id: memory in KiB.
    #[n(2)]
    memory_kib: u32,
    /// Argon2id: passes.
    #[n(3)]
    passes: u32,
    /// Argon2id: lanes.
    #[n(4)]
    lanes: u32,
    /// Argon2id: salt.
    #[cbor(n(5), with = "minicbor::bytes")]
    salt: [u8; SALT_BYTES],
    /// AES-256-GCM: the private scalar.
    #[cbor(n(6), with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

impl Canonical for ImageKeyFile {
    const WHAT: &'static str = "image key's file";
    const BYTES_MAX: usize = limits::OFFICER_KEY_BYTES_MAX;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        if !self.public.is_valid() {
            return Err("its public key is no point of its curve");
        }
        if Params::new(self.memory_kib, self.passes, self.lanes).is_err() {
            return Err("the passphrase's cost is out of range");
        }
        if self.sealed.len() != self.public.profile().bytes() + aead::OVERHEAD_BYTES {
            return Err("what is sealed has the wrong length");
        }
        Ok(())
    }
}

impl Filed for ImageKeyFile {
    const MAGIC: &'static [u8; file::MAGIC_BYTES] = b"ZIXTIMK1";
    const EXTENSION: &'static str = "zixt-image-key";
}

impl ImageKeyFile {
    fn seal(signer: &PolicySigner, passphrase: &str, cost: Params) -> Result<Self, ImageError> {
        let mut key_file = Self {
            version: 1,
            public: signer.public()?,
            memory_kib: cost.memory_kib(),
            passes: cost.passes(),
            lanes: cost.lanes(),
            salt: [0; SALT_BYTES],
            sealed: Vec::new(),
        };
        fill_random(&mut key_file.salt)?;
        let key = sealing_key(cost, &key_file.salt, passphrase, labels::IMAGE_KEY)?;
        key_file.sealed = aead::seal(&key, &key_file.context(), signer.scalar())?;
        Ok(key_file)
    }

    fn open(&self, passphrase: &str) -> Result<PolicySigner, ImageError> {
        let cost = Params::new(self.memory_kib, self.passes, self.lanes).map_err(|_| ImageError::Rejected)?;
        let key = sealing_key(cost, &self.salt, passphrase, labels::IMAGE_KEY)?;
        let scalar = aead::open(&key, &self.context(), &self.sealed).map_err(|_| ImageError::Rejected)?;
        let signer = PolicySigner::from_scalar(self.public.profile(), Zeroizing::new(scalar.to_vec()))?;
        if signer.public()? == self.public { Ok(signer) } else { Err(ImageError::OtherKey) }
    }

    fn context(&self) -> Vec<u8> {
        let mut aad = labels::IMAGE_KEY.to_vec();
        aad.extend_from_slice(&Self { sealed: Vec::new(), ..self.clone() }.to_bytes());
        aad
    }
}

/// Makes an image key: its file, and the public half beside it. Returns the result as JSON and in words.
///
/// # Errors
/// A file is there already or cannot be written; no randomness.
pub fn make_image_key(profile: Profile, passphrase: &str, out: &Path) -> Result<(Value, String), Failure> {
    let public_path = out.with_extension(PUBLIC_EXTENSION);
    if public_path == out {
        return Err(Failure::new(
            Exit::Usage,
            format!("{} would be private and public key at once", out.display()),
            format!("Let the key file's name end with .{}.", ImageKeyFile::EXTENSION),
        ));
    }
    let signer = PolicySigner::generate(profile).map_err(ImageError::from)?;
    let key_file = ImageKeyFile::seal(&signer, passphrase, Params::DEFAULT)?;
    write_new(out, &file::to_file(&key_file))?;
    write_new(&public_path, &key_file.public.to_bytes())?;
    let id = grouped(&key_file.public.to_sec1()[1..=16]);
    Ok((
        json!({ "key": out, "public": public_path, "id": id }),
        format!(
            "image key {id} ({profile})\nThe key file is {}: copy it to a second medium, and keep both off every \
             appliance.\nAppliances are configured with {} (`policy_key` under [tpm]).",
            out.display(),
            public_path.display()
        ),
    ))
}

/// Reads what registers will hold.
///
/// # Errors
/// It cannot be read, or is no such text.
pub fn read_registers(path: &Path) -> Result<PcrValues, Failure> {
    let about = |error: ImageError| Failure::from(error).about(path);
    let text = String::from_utf8(read(path)?);
    let text = text.map_err(|_| about(RegistersError::Line { line: 1 }.into()))?;
    registers_from_text(&text).map_err(|error| about(error.into()))
}

/// What is shown before these values are approved.
#[must_use]
pub fn describe_registers(values: &PcrValues) -> String {
    format!(
        "approval of register values\nWith the PIN, the root opens on every appliance that trusts your key and holds\n{}",
        registers_to_text(values)
    )
}

/// Signs the approval of these values and writes it. Returns the result as JSON and in words.
///
/// # Errors
/// The passphrase is wrong, the values are those of no image, or a file cannot be read or written.
pub fn approve_registers(
    values: PcrValues,
    key: &Path,
    passphrase: &str,
    out: &Path,
) -> Result<(Value, String), Failure> {
    if out.extension().is_none_or(|extension| extension != APPROVAL_EXTENSION) {
        return Err(Failure::new(
            Exit::Usage,
            format!("custody would not find {}", out.display()),
            format!("Let its name end with .{APPROVAL_EXTENSION}."),
        ));
    }
    let about = |error: ImageError| Failure::from(error).about(key);
    let key_file: ImageKeyFile = file::from_file(&read(key)?).map_err(|error| about(error.into()))?;
    let signer = key_file.open(passphrase).map_err(about)?;
    let approval = signer.approve(values, PolicyRef::images()).map_err(ImageError::from)?;
    write_new(out, &approval.to_bytes())?;
    Ok((
        json!({ "approval": out }),
        format!(
            "Approved: {}\nOn the appliance, before the new image starts: zixt-hsm install-approval",
            out.display()
        ),
    ))
}

/// Checks a machine's quote. Returns the result as JSON and in words.
///
/// # Errors
/// It is none, answers another nonce, is another TPM's, or the registers are not what was expected.
pub fn check_quote(
    path: &Path,
    nonce: &[u8; NONCE_BYTES],
    reference: Option<&Path>,
    registers: Option<&Path>,
) -> Result<(Value, String), Failure> {
    let parse = |path: &Path| {
        Attestation::parse(&read(path)?).map_err(|error| {
            Failure::new(Exit::Usage, error.to_string(), "Give what `zixt-hsm quote` wrote.").about(path)
        })
    };
    let told = parse(path)?;
    let reference = reference.map(parse).transpose()?;
    let expected = registers.map(read_registers).transpose()?;
    let quoted = told.verify(nonce, reference.as_ref(), expected.as_ref()).map_err(|error| {
        let advice = match error {
            AttestationError::Quote(QuoteError::Nonce) => "It is an old quote, or another officer's: ask again.",
            AttestationError::Started { .. } => {
                "Was it updated? Then give the new values with --registers. If not, treat it as tampered with."
            }
            _ => "Have the machine inspected, and let nobody enter its PIN before.",
        };
        Failure::new(Exit::Altered, error.to_string(), advice).about(path)
    })?;
    let known = if reference.is_some() {
        "the same TPM as in the reference"
    } else {
        "NOT COMPARED with an earlier quote: compare the key with the machine's own screen, and keep this file as reference"
    };
    Ok((
        json!({
            "key": told.key.id(),
            "compared": reference.is_some(),
            "expected": reference.is_some() || expected.is_some(),
            "registers": quoted.values.pcrs().iter().map(|pcr| pcr.index).collect::<Vec<_>>(),
        }),
        format!(
            "The quote is good: it answers this nonce.\nattestation key {} ({known})\n{}Not proven: that \
             the TPM is of a known maker. Its certificate is not read.",
            told.key.id(),
            registers_to_text(&quoted.values)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_opens_with_its_passphrase_and_no_byte_can_be_changed() {
        for profile in [Profile::P384, Profile::P256] {
            let signer = PolicySigner::generate(profile).unwrap();
            let made = ImageKeyFile::seal(&signer, "correct horse battery", Params::MIN).unwrap();
            let bytes = file::to_file(&made);
            let read = |bytes: &[u8]| file::from_file::<ImageKeyFile>(bytes).map_err(ImageError::from);
            let opened = read(&bytes).unwrap().open("correct horse battery").unwrap();
            assert_eq!(opened.scalar(), signer.scalar());
            assert_eq!(made.open("correct horse batterz").map(|_| ()), Err(ImageError::Rejected));
            assert!(!bytes.windows(16).any(|window| window == &signer.scalar()[..16]), "no key in clear");
            for at in (0..bytes.len()).step_by(7) {
                let mut other = bytes.clone();
                other[at] ^= 1;
                assert!(
                    read(&other).and_then(|file| file.open("correct horse battery")).is_err(),
                    "byte {at}"
                );
            }
        }
    }
}
