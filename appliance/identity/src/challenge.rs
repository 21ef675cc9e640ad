//! The challenge of a sign-in, and what a device signs over it.

use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_crypto::{Backend, SignError, SigningKey, VerifyError, cose, digest, labels};
use zixt_types::{
    AccountId, ApplianceId, Canonical, DeviceId, Hash, LoginId, ParseError, SuiteId, Timestamp, limits,
};

use crate::place::ChannelBinding;

/// What a proof has to be about: this network, this appliance, this sign-in, this channel, until then. A proof for one
/// challenge is none for any other, so nothing that was overheard or relayed is worth anything elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Challenge {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The network.
    #[n(1)]
    pub genesis: Hash,
    /// The appliance that asks.
    #[n(2)]
    pub appliance: ApplianceId,
    /// The sign-in.
    #[n(3)]
    pub login: LoginId,
    /// Drawn for this sign-in (SP 800-63B-4 section 3.2.6: at least 64 bits).
    #[cbor(n(4), with = "crate::secret::fixed")]
    pub nonce: [u8; 32],
    /// What the sign-in is bound to.
    #[n(5)]
    pub channel: ChannelBinding,
    /// The end of the sign-in, by the appliance's wall clock.
    #[n(6)]
    pub expires_at: Timestamp,
}

impl Canonical for Challenge {
    const WHAT: &'static str = "sign-in challenge";
    const BYTES_MAX: usize = 256;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        if self.version == 1 { Ok(()) } else { Err("the version is 1") }
    }
}

/// Why a client must not answer a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChallengeError {
    /// It is another network's or another appliance's: somebody relays.
    #[error("the challenge is not one of the appliance that is pinned")]
    Elsewhere,
    /// It is bound to another channel than the one that it came over: somebody relays.
    #[error("the challenge is bound to another connection")]
    OtherChannel,
}

impl Challenge {
    /// For the client, before it answers: the challenge is the pinned appliance's and came over this very channel.
    ///
    /// # Errors
    /// [`ChallengeError`]
    pub fn check_for(
        &self,
        genesis: &Hash,
        appliance: &ApplianceId,
        channel: &ChannelBinding,
    ) -> Result<(), ChallengeError> {
        if self.genesis != *genesis || self.appliance != *appliance {
            return Err(ChallengeError::Elsewhere);
        }
        if self.channel != *channel {
            return Err(ChallengeError::OtherChannel);
        }
        Ok(())
    }
}

/// What a device signs (COSE_Sign1 payload with label `sign-in`): the challenge, and who answers.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Statement {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The suite of the signature.
    #[n(1)]
    pub suite: SuiteId,
    /// What was asked.
    #[n(2)]
    pub challenge: Challenge,
    /// The account that signs in.
    #[n(3)]
    pub account: AccountId,
    /// Its device.
    #[n(4)]
    pub device: DeviceId,
}

impl Canonical for Statement {
    const WHAT: &'static str = "sign-in statement";
    const BYTES_MAX: usize = 512;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        if self.version != 1 {
            return Err("the version is 1");
        }
        self.challenge.check()
    }
}

/// A statement with the device's identity key and signature, as the client sends it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct DeviceProof {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The encoded [`Statement`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
    /// The identity key; the ledger only has its hash.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// The signature (FIPS 204).
    #[cbor(n(3), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

impl Canonical for DeviceProof {
    const WHAT: &'static str = "device proof";
    const BYTES_MAX: usize =
        Statement::BYTES_MAX + limits::PUBLIC_KEY_BYTES_MAX + limits::SIGNATURE_BYTES_MAX + 32;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        if self.version == 1 { Ok(()) } else { Err("the version is 1") }
    }
}

/// Why a device's proof was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceProofError {
    /// The statement is not one.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The statement answers another challenge.
    #[error("the statement is about another sign-in, connection or appliance")]
    OtherChallenge,
    /// The signature is not the key's.
    #[error(transparent)]
    Signature(#[from] VerifyError),
    /// The account has no such active device, or it has another key.
    #[error("the key belongs to no active device of the account")]
    UnknownDevice,
}

impl DeviceProof {
    /// For the client: signs in with the identity key of its device. Check the challenge first
    /// ([`Challenge::check_for`]).
    ///
    /// # Errors
    /// [`SignError`]
    pub fn sign(
        key: &dyn SigningKey,
        challenge: &Challenge,
        account: AccountId,
        device: DeviceId,
    ) -> Result<Self, SignError> {
        let suite = key.suite();
        let statement = Statement { version: 1, suite, challenge: challenge.clone(), account, device };
        let statement = statement.to_bytes();
        let signature = cose::sign(key, labels::SIGN_IN, &statement)?;
        Ok(Self { version: 1, statement, public_key: key.public_key().to_vec(), signature })
    }
}

/// An active device of an account, as the ledger knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownDevice {
    /// The device.
    pub id: DeviceId,
    /// The suite of its keys.
    pub suite: SuiteId,
    /// The hash of its identity key.
    pub identity: Hash,
}

/// The device that gave this proof. The signature is checked whether or not there is such a device, so that the time
/// does not tell.
pub(crate) fn check(
    proof: &DeviceProof,
    challenge: &Challenge,
    account: Option<AccountId>,
    devices: &[KnownDevice],
    backend: &dyn Backend,
) -> Result<DeviceId, DeviceProofError> {
    let statement = Statement::parse(&proof.statement)?;
    if statement.challenge != *challenge {
        return Err(DeviceProofError::OtherChallenge);
    }
    cose::verify(
        backend,
        statement.suite,
        &proof.public_key,
        labels::SIGN_IN,
        &proof.statement,
        &proof.signature,
    )?;
    let identity = digest::key_hash(statement.suite, &proof.public_key);
    let known = devices.iter().any(|device| {
        device.id == statement.device && device.suite == statement.suite && device.identity == identity
    });
    if known && account == Some(statement.account) {
        Ok(statement.device)
    } else {
        Err(DeviceProofError::UnknownDevice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Channel;
    use proptest::prelude::*;

    fn challenge(n: u8) -> Challenge {
        Challenge {
            version: 1,
            genesis: Hash([n; 48]),
            appliance: ApplianceId([n; 48]),
            login: LoginId([n; 16]),
            nonce: [n; 32],
            channel: Channel::Exporter([n; 32]).binding(),
            expires_at: Timestamp(u64::MAX),
        }
    }

    #[test]
    fn a_client_answers_only_its_own_appliance_over_this_channel() {
        let it = challenge(1);
        assert_eq!(it.check_for(&it.genesis, &it.appliance, &it.channel), Ok(()));
        let other = challenge(2);
        let elsewhere = Err(ChallengeError::Elsewhere);
        assert_eq!(it.check_for(&other.genesis, &it.appliance, &it.channel), elsewhere);
        assert_eq!(it.check_for(&it.genesis, &other.appliance, &it.channel), elsewhere);
        let relayed = it.check_for(&it.genesis, &it.appliance, &other.channel);
        assert_eq!(relayed, Err(ChallengeError::OtherChannel));
    }

    #[test]
    fn the_longest_proof_fits() {
        let statement = Statement {
            version: 1,
            suite: SuiteId::Cnsa,
            challenge: challenge(255),
            account: AccountId([255; 16]),
            device: DeviceId([255; 16]),
        };
        let proof = DeviceProof {
            version: 1,
            statement: statement.to_bytes(),
            public_key: vec![1; limits::PUBLIC_KEY_BYTES_MAX],
            signature: vec![1; limits::SIGNATURE_BYTES_MAX],
        };
        assert_eq!(DeviceProof::parse(&proof.to_bytes()), Ok(proof));
        assert_eq!(Statement::parse(&statement.to_bytes()), Ok(statement));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
            let mut changed = challenge(3).to_bytes();
            let at = at.index(changed.len());
            changed[at] = to;
            for bytes in [bytes, changed] {
                if let Ok(challenge) = Challenge::parse(&bytes) {
                    prop_assert_eq!(challenge.to_bytes(), &*bytes);
                }
                if let Ok(statement) = Statement::parse(&bytes) {
                    prop_assert_eq!(statement.to_bytes(), &*bytes);
                }
                if let Ok(proof) = DeviceProof::parse(&bytes) {
                    prop_assert_eq!(proof.to_bytes(), &*bytes);
                }
            }
        }
    }
}
