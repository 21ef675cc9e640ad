//! What an author hands in: a signed body with everything that it names by digest.

use crate::Keyring;
use crate::state::Signer;
use crate::system::transcript_bytes;
use thiserror::Error;
use zixt_ceremony::{CeremonyError, judge};
use zixt_crypto::{Backend, VerifyError, cose, digest, labels, suite_params};
use zixt_types::{
    Attachment, Author, Body, Canonical, Decision, Hash, ParseError, Payload, SuiteId, Transcript, limits,
};

/// A submission whose bytes are well-formed and whose attachments are the ones that its body names. Whether its
/// signatures are good is [`Submission::verify`]'s question, whether the ledger takes it [`crate::BlockBuilder`]'s.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submission {
    /// The body, parsed.
    pub body: Body,
    /// The body as its author encoded and signed it.
    pub body_bytes: Vec<u8>,
    /// The author's signature; the officers' approvals if they are the author.
    pub signature: Vec<u8>,
    /// The new device's own signature; in device additions only.
    pub possession: Option<Vec<u8>>,
    /// See [`zixt_types::BatchItem::attachments`] for their order.
    pub attachments: Vec<Attachment>,
}

/// Why a submission was refused before the ledger was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubmissionError {
    /// The body is not a signed body.
    #[error(transparent)]
    Body(#[from] ParseError),
    /// The number of attachments is not what the body names.
    #[error("the body names {expected} attachments but {got} came with it")]
    AttachmentCount {
        /// What the body names.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// An attachment is larger than its kind may be.
    #[error("attachment {index} has {got} bytes; at most {max} are allowed")]
    AttachmentTooLong {
        /// Its place.
        index: usize,
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// An attachment is not the one that the body names.
    #[error("attachment {index} does not have the digest that the body names")]
    AttachmentDigest {
        /// Its place.
        index: usize,
    },
    /// A device id is not derived from the identity key.
    #[error("the device id is not the one of the identity key")]
    DeviceId,
    /// The second signature is missing from a device addition, or stands where it does not belong.
    #[error("a device addition needs the new device's own signature, and nothing else may have one")]
    Possession,
    /// A signature does not have the length of the suite.
    #[error("a signature has {got} bytes; the suite's have {expected}")]
    SignatureLength {
        /// The suite's length.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The author's public key is not known.
    #[error("the author's key {0} is not known here")]
    KeyUnknown(Hash),
    /// The author's signature is not good.
    #[error("the author's signature is not good: {0}")]
    Signature(VerifyError),
    /// The new device's signature is not good.
    #[error("the new device's own signature is not good: {0}")]
    PossessionSignature(VerifyError),
    /// The approvals are not a list of approvals.
    #[error("the officers' approvals: {0}")]
    Transcript(ParseError),
    /// The approvals are not good, or not enough.
    #[error("the officers' approvals: {0}")]
    Approvals(#[from] CeremonyError),
}

/// The label under which an author signs a body.
#[must_use]
pub const fn label_for(author: &Author) -> &'static [u8] {
    match author {
        Author::Device(_) | Author::Enroller(_) => labels::BODY,
        Author::Invitation(_) => labels::INVITATION,
        Author::Officers => labels::OFFICER_APPROVAL,
    }
}

impl Submission {
    /// Reads a submission.
    ///
    /// # Errors
    /// See [`SubmissionError`]; signatures are not checked here.
    pub fn parse(
        body_bytes: Vec<u8>,
        signature: Vec<u8>,
        possession: Option<Vec<u8>>,
        attachments: Vec<Attachment>,
    ) -> Result<Self, SubmissionError> {
        let body = Body::parse(&body_bytes)?;
        let expected = suite_params(body.suite).signature_bytes;
        let signed = match &body.payload {
            Payload::Decision { action } => {
                Transcript::parse(&transcript_bytes(action, &signature))
                    .map_err(SubmissionError::Transcript)?;
                None
            }
            _ => Some(signature.len()),
        };
        for got in [signed, possession.as_ref().map(Vec::len)].into_iter().flatten() {
            if got != expected {
                return Err(SubmissionError::SignatureLength { expected, got });
            }
        }
        let submission = Self { body, body_bytes, signature, possession, attachments };
        submission.check_attachments()?;
        Ok(submission)
    }

    fn check_attachments(&self) -> Result<(), SubmissionError> {
        let suite = self.key_suite();
        let key_max = suite_params(suite).public_key_bytes;
        let wanted: Vec<(Option<Hash>, usize)> = match &self.body.payload {
            Payload::Message { envelope, .. } => vec![(Some(*envelope), limits::ENVELOPE_BYTES_MAX)],
            Payload::Commit { envelope, welcome, tree, .. } => [
                Some((Some(*envelope), limits::COMMIT_BYTES_MAX)),
                welcome.map(|digest| (Some(digest), limits::WELCOME_BYTES_MAX)),
                tree.map(|digest| (Some(digest), limits::TREE_BYTES_MAX)),
            ]
            .into_iter()
            .flatten()
            .collect(),
            Payload::DeviceAdd { identity, mls, tls, .. } => {
                let mut keys: Vec<_> = [identity, mls, tls].map(|hash| (Some(*hash), key_max)).to_vec();
                if matches!(self.body.author, Author::Invitation(_)) {
                    // The account's invitation names this key; the ledger state compares.
                    keys.push((None, key_max));
                }
                keys
            }
            // The officers approved its hash; whoever is to verify its signatures needs the key.
            Payload::Decision { action } => match &action.decision {
                Decision::ActivateKey { activates, .. } => vec![(Some(*activates), key_max)],
                _ => Vec::new(),
            },
            Payload::Invite { .. } | Payload::DeviceRevoke { .. } => Vec::new(),
        };
        if wanted.len() != self.attachments.len() {
            return Err(SubmissionError::AttachmentCount {
                expected: wanted.len(),
                got: self.attachments.len(),
            });
        }
        let is_key = matches!(self.body.payload, Payload::DeviceAdd { .. } | Payload::Decision { .. });
        for (index, ((digest, max), Attachment(bytes))) in wanted.iter().zip(&self.attachments).enumerate() {
            if bytes.len() > *max {
                return Err(SubmissionError::AttachmentTooLong { index, got: bytes.len(), max: *max });
            }
            let got = match (is_key, index) {
                (true, _) => digest::key_hash(suite, bytes),
                (false, 0) => digest::envelope_digest(bytes),
                (false, _) => digest::attachment_digest(bytes),
            };
            if digest.is_some_and(|digest| digest != got) {
                return Err(SubmissionError::AttachmentDigest { index });
            }
        }
        match &self.body.payload {
            Payload::DeviceAdd { device, identity, .. } => {
                if self.possession.is_none() {
                    return Err(SubmissionError::Possession);
                }
                if *device != digest::device_id(*identity) {
                    return Err(SubmissionError::DeviceId);
                }
            }
            _ if self.possession.is_some() => return Err(SubmissionError::Possession),
            _ => {}
        }
        Ok(())
    }

    /// The suite of the keys that come with it.
    const fn key_suite(&self) -> SuiteId {
        match &self.body.payload {
            Payload::Decision { action } => match action.decision {
                Decision::ActivateKey { suite, .. } => suite,
                _ => self.body.suite,
            },
            _ => self.body.suite,
        }
    }

    /// The public key that this brings into the ledger's keyring: a new device's identity, or an activated key.
    #[must_use]
    pub fn brought_key(&self) -> Option<(SuiteId, &[u8])> {
        brought_key(&self.body, &self.attachments)
    }

    /// The key of the invitation that signed this, as it came with it.
    #[must_use]
    pub fn invitation_key(&self) -> Option<&[u8]> {
        match self.body.author {
            Author::Invitation(_) => self.attachments.get(3).map(|Attachment(key)| key.as_slice()),
            _ => None,
        }
    }

    /// Checks what stands behind it: the author's signature under the signer's key and a new device's own, or the
    /// officers' approvals.
    ///
    /// # Errors
    /// [`SubmissionError::KeyUnknown`], [`SubmissionError::Signature`], [`SubmissionError::PossessionSignature`],
    /// [`SubmissionError::Approvals`].
    pub fn verify(
        &self,
        signer: &Signer,
        keyring: &Keyring,
        backend: &dyn Backend,
    ) -> Result<(), SubmissionError> {
        let suite = self.body.suite;
        let author_key = match (signer, &self.body.payload) {
            (Signer::Key(key), _) => *key,
            (Signer::Officers(rule), Payload::Decision { action }) => {
                let transcript = transcript_bytes(action, &self.signature);
                judge(&transcript, rule, self.body.genesis, backend)?;
                return Ok(());
            }
            // `Body::check` lets officers write decisions only.
            (Signer::Officers(_), _) => return Err(SubmissionError::KeyUnknown(Hash::ZERO)),
        };
        let carried = self.invitation_key().filter(|key| digest::key_hash(suite, key) == author_key);
        let known = keyring.get(&author_key).filter(|entry| entry.suite == suite);
        let key = carried
            .or(known.map(|entry| entry.key.as_slice()))
            .ok_or(SubmissionError::KeyUnknown(author_key))?;
        let label = label_for(&self.body.author);
        cose::verify(backend, suite, key, label, &self.body_bytes, &self.signature)
            .map_err(SubmissionError::Signature)?;
        if let (Some(possession), Some(Attachment(identity))) = (&self.possession, self.attachments.first()) {
            cose::verify(backend, suite, identity, labels::DEVICE_CROSS_CERT, &self.body_bytes, possession)
                .map_err(SubmissionError::PossessionSignature)?;
        }
        Ok(())
    }
}

/// The public key that an entry brings into the ledger's keyring: a new device's identity, or an activated key.
pub(crate) fn brought_key<'a>(body: &Body, attachments: &'a [Attachment]) -> Option<(SuiteId, &'a [u8])> {
    let suite = match &body.payload {
        Payload::DeviceAdd { .. } => body.suite,
        Payload::Decision { action } => match action.decision {
            Decision::ActivateKey { suite, .. } => suite,
            _ => return None,
        },
        _ => return None,
    };
    attachments.first().map(|Attachment(key)| (suite, key.as_slice()))
}
