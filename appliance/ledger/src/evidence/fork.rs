//! Proof that validators certified two histories. It needs nobody's honesty: the certificates speak for themselves.

use super::file::{EvidenceError, with_magic, without_magic};
use super::verify::OtherGenesis;
use crate::Keyring;
use crate::certificate::{CertificateError, verify_certificate};
use crate::system::{System, SystemFault};
use crate::tree;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_ceremony::{OfficerRule, judge};
use zixt_crypto::{Backend, digest};
use zixt_types::{
    ApplianceId, Canonical, Certificate, Genesis, Hash, Header, Height, Timestamp, Validator, limits,
};

/// A header with what makes it final.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertifiedHeader {
    /// The header.
    pub header: Header,
    /// Its certificate.
    pub certificate: Certificate,
}

/// How two certified headers contradict each other.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Contradiction {
    /// They have the same height and differ.
    #[n(0)]
    SameHeight,
    /// The second is one height after the first and names another header before it.
    #[n(1)]
    Previous,
    /// The second is later, and its history holds another header at the first one's height.
    #[n(2)]
    History {
        /// Hash of the header in the second one's history.
        #[n(0)]
        recorded: Hash,
        /// Proof that it is in the tree of `second.history`.
        #[n(1)]
        path: Vec<Hash>,
    },
}

/// Two certified headers that cannot both be true.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForkProof {
    /// The network.
    pub genesis: Genesis,
    /// Consensus keys of the validators that signed.
    pub keyring: Keyring,
    /// One history.
    pub first: CertifiedHeader,
    /// The other, at the same height or later.
    pub second: CertifiedHeader,
    /// How they contradict each other.
    pub contradiction: Contradiction,
    /// Transcripts of the activations of consensus keys that lead from the genesis to the validators of both headers.
    pub activations: Vec<Vec<u8>>,
}

/// A fork that is proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForkReport {
    /// The network's name.
    pub network: String,
    /// Whether it is a lab network.
    pub lab: bool,
    /// The height that has two headers.
    pub height: Height,
    /// The header of that height in the first history.
    pub first: Hash,
    /// The header of that height in the second history.
    pub second: Hash,
    /// Validators that signed for both histories.
    pub signed_both: Vec<ApplianceId>,
}

/// Why a file proves no fork.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ForkError {
    /// It is about another network.
    #[error(transparent)]
    OtherGenesis(#[from] OtherGenesis),
    /// A header is not certified.
    #[error("the {which} header is not certified: {source}")]
    Certificate {
        /// Which of the two.
        which: &'static str,
        /// The fault.
        #[source]
        source: CertificateError,
    },
    /// A header names another network.
    #[error("the {which} header names another network (genesis)")]
    OtherHeader {
        /// Which of the two.
        which: &'static str,
    },
    /// The headers can both be true.
    #[error("the two headers do not contradict each other")]
    NoContradiction,
    /// The file holds a key that has nothing to do with it.
    #[error("public key {0} has nothing to do with this proof")]
    KeyUnused(Hash),
    /// An activation is not approved, or not valid after those before it.
    #[error("activation {index} does not stand: {source}")]
    Activation {
        /// Its place in the list.
        index: usize,
        /// The fault.
        #[source]
        source: SystemFault,
    },
    /// The file holds an activation that neither header's validators need.
    #[error("an activation has nothing to do with this proof")]
    ActivationUnused,
}

/// Verifies a fork for somebody who trusts the network named by `genesis` and nothing else.
///
/// # Errors
/// [`ForkError`]: the file proves no fork of that network.
pub fn verify_fork(proof: &ForkProof, genesis: Hash, backend: &dyn Backend) -> Result<ForkReport, ForkError> {
    let got = digest::genesis_hash(&proof.genesis);
    if got != genesis {
        return Err(OtherGenesis { expected: genesis, got }.into());
    }
    let sets = sets(proof, genesis, backend)?;
    let set_of = |header: &Header| {
        let set = sets.iter().find(|set| digest::validator_set_hash(set) == header.validators);
        // With none of them its certificate is compared with the genesis', and fails.
        set.unwrap_or(&proof.genesis.validators)
    };
    let signers = |certified: &CertifiedHeader| -> Vec<ApplianceId> {
        certified.certificate.signatures.iter().map(|signature| signature.validator).collect()
    };
    for (which, CertifiedHeader { header, certificate }) in
        [("first", &proof.first), ("second", &proof.second)]
    {
        if header.genesis != genesis {
            return Err(ForkError::OtherHeader { which });
        }
        verify_certificate(header, certificate, set_of(header), &proof.keyring, backend)
            .map_err(|source| ForkError::Certificate { which, source })?;
    }
    let (signed_first, signed_second) = (signers(&proof.first), signers(&proof.second));
    let used = |key: &Hash| {
        let signed = |header: &Header, signers: &[ApplianceId]| {
            let mut known = set_of(header).iter().filter(|known| known.consensus == *key);
            known.any(|known| signers.contains(&known.appliance))
        };
        signed(&proof.first.header, &signed_first) || signed(&proof.second.header, &signed_second)
    };
    let needs_last = |header: &Header| sets.last().is_some_and(|last| set_of(header) == last);
    if !proof.activations.is_empty() && !needs_last(&proof.first.header) && !needs_last(&proof.second.header)
    {
        return Err(ForkError::ActivationUnused);
    }
    if let Some((key, _)) = proof.keyring.iter().find(|(key, _)| !used(key)) {
        return Err(ForkError::KeyUnused(*key));
    }

    let (first, second) = (&proof.first.header, &proof.second.header);
    let first_hash = digest::header_hash(first);
    let other = match &proof.contradiction {
        Contradiction::SameHeight if first.height == second.height => digest::header_hash(second),
        Contradiction::Previous if first.height.next() == second.height => second.previous,
        // The history in the header of height h holds the headers 1..h, as leaves 0..h - 1.
        Contradiction::History { recorded, path } if first.height < second.height => {
            let (index, size) = (first.height.0 - 1, second.height.0 - 1);
            tree::verify_inclusion(tree::history_leaf(recorded), index, size, path, second.history)
                .map_err(|_| ForkError::NoContradiction)?;
            *recorded
        }
        _ => return Err(ForkError::NoContradiction),
    };
    if other == first_hash {
        return Err(ForkError::NoContradiction);
    }
    Ok(ForkReport {
        network: proof.genesis.network.clone(),
        lab: proof.genesis.lab,
        height: first.height,
        first: first_hash,
        second: other,
        signed_both: signed_first.into_iter().filter(|id| signed_second.contains(id)).collect(),
    })
}

/// The genesis' validators and those after each activation. When each was recorded does not matter here: whoever
/// certifies two histories has forked, with a retired key as with the present one.
fn sets(proof: &ForkProof, genesis: Hash, backend: &dyn Backend) -> Result<Vec<Vec<Validator>>, ForkError> {
    let mut system = System::new(&proof.genesis);
    let mut sets = vec![system.validators.clone()];
    for (index, transcript) in proof.activations.iter().enumerate() {
        let fault = |source| ForkError::Activation { index, source };
        let approved = judge(transcript, &OfficerRule::of(&proof.genesis), genesis, backend)
            .map_err(|error| fault(SystemFault::Approvals(error)))?;
        system
            .apply(&proof.genesis, approved.action(), Timestamp(0))
            .map_err(|refusal| fault(SystemFault::Refused(refusal)))?;
        if sets.last() == Some(&system.validators) {
            return Err(ForkError::ActivationUnused);
        }
        sets.push(system.validators.clone());
    }
    Ok(sets)
}

impl ForkProof {
    /// The first bytes of a `.zixt-fork` file.
    pub const MAGIC: &'static [u8; 8] = b"ZIXTFRK1";

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let certified = |part: &CertifiedHeader| FileHeader {
            header: part.header.to_bytes(),
            certificate: part.certificate.to_bytes(),
        };
        let file = File {
            version: File::FORMAT,
            keyring: self.keyring.clone(),
            genesis: self.genesis.to_bytes(),
            first: certified(&self.first),
            second: certified(&self.second),
            contradiction: self.contradiction.clone(),
            activations: (!self.activations.is_empty())
                .then(|| self.activations.iter().cloned().map(ByteVec::from).collect()),
        };
        with_magic(Self::MAGIC, &file)
    }

    /// Reads a file. Nothing in it is verified yet.
    ///
    /// # Errors
    /// See [`EvidenceError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let file: File = without_magic("ZIXTFRK1", bytes)?;
        let certified = |part: &FileHeader| -> Result<CertifiedHeader, EvidenceError> {
            let header = Header::parse(&part.header)?;
            Ok(CertifiedHeader { header, certificate: Certificate::parse(&part.certificate)? })
        };
        Ok(Self {
            genesis: Genesis::parse(&file.genesis)?,
            first: certified(&file.first)?,
            second: certified(&file.second)?,
            keyring: file.keyring,
            contradiction: file.contradiction,
            activations: file.activations.unwrap_or_default().into_iter().map(Into::into).collect(),
        })
    }
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct File {
    #[n(0)]
    version: u64,
    #[n(1)]
    keyring: Keyring,
    #[cbor(n(2), with = "minicbor::bytes")]
    genesis: Vec<u8>,
    #[n(3)]
    first: FileHeader,
    #[n(4)]
    second: FileHeader,
    #[n(5)]
    contradiction: Contradiction,
    /// Left out where there is none: such files are as they always were.
    #[n(6)]
    activations: Option<Vec<ByteVec>>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct FileHeader {
    #[cbor(n(0), with = "minicbor::bytes")]
    header: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    certificate: Vec<u8>,
}

impl File {
    const FORMAT: u64 = 1;
}

impl Canonical for File {
    const WHAT: &'static str = "fork proof";
    const BYTES_MAX: usize = 2 * limits::CERTIFICATE_BYTES_MAX
        + <Keyring as Canonical>::BYTES_MAX
        + limits::GENESIS_BYTES_MAX
        + 16 * limits::TRANSCRIPT_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::FORMAT);

    fn check(&self) -> Result<(), &'static str> {
        if self.activations.as_ref().is_some_and(Vec::is_empty) {
            return Err("its list of activations is empty");
        }
        self.keyring.check()
    }
}
