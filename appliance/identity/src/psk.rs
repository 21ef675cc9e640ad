//! A pre-shared key as a factor, and as an external PSK of MLS.
//!
//! The key is 32 random bytes that an enroller hands over on paper or in a card. It never crosses the wire: client and
//! server show each other that they know it, by HMAC over both nonces, the channel and the sign-in. And the server
//! does not even keep it: it has a *verifier* derived from it, which is enough for sign-in and tells nothing about
//! the value that an MLS group mixes in (RFC 9420 section 8.4). So a stolen server can pretend to its clients that it
//! knows the key, and still cannot compute what a conversation was bound to.

use minicbor::{Decode, Encode};
use std::fmt;
use zixt_crypto::hash::{constant_time_eq, derive_key, hmac_sha384, sha384};
use zixt_crypto::{RandomError, labels};
use zixt_types::{AccountId, Canonical as _, Hash, ThreadId};

use crate::challenge::Challenge;
use crate::random::{Random, draw};
use crate::secret::{Secret, for_people, from_people};
use zeroize::Zeroizing;

/// A pre-shared key, on the side of people: the enroller's tool and the client.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk(Secret<32>);

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(redacted)")
    }
}

/// An external PSK for MLS (RFC 9420 section 8.4): its id, and the value that members have to know.
#[derive(Debug, PartialEq, Eq)]
pub struct ExternalPsk {
    /// `psk_id` of the proposal. Tells nothing about the value.
    pub id: Hash,
    /// The value, for the group's key schedule.
    pub value: Zeroizing<[u8; 32]>,
}

impl Psk {
    /// A new key.
    ///
    /// # Errors
    /// [`RandomError`]
    pub fn generate(random: &mut dyn Random) -> Result<Self, RandomError> {
        Secret::draw(random).map(Self)
    }

    /// As it is printed for the person: 52 characters in groups of four.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        for_people(self.0.as_bytes())
    }

    /// Reads what [`Self::to_text`] wrote. `None` for anything else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        from_people(text).map(Self)
    }

    /// What the server keeps.
    #[must_use]
    pub fn verifier(&self) -> PskRecord {
        let key = derive_key(&[], self.0.as_bytes(), labels::PSK_VERIFIER, &[]);
        PskRecord { id: self.id(), key: Secret::from_bytes(key.as_bytes()) }
    }

    /// The answer to a challenge, with a nonce of the client's own.
    ///
    /// # Errors
    /// [`RandomError`]
    pub fn answer(
        &self,
        challenge: &Challenge,
        account: AccountId,
        random: &mut dyn Random,
    ) -> Result<PskProof, RandomError> {
        let nonce = draw(random)?;
        Ok(PskProof { nonce, mac: self.verifier().mac(labels::PSK_RESPONSE, challenge, account, &nonce) })
    }

    /// Whether this is the server's confirmation of [`Self::answer`]: it knows the verifier too.
    #[must_use]
    pub fn is_confirmed(
        &self,
        challenge: &Challenge,
        account: AccountId,
        proof: &PskProof,
        confirmation: &Hash,
    ) -> bool {
        let expected = self.verifier().mac(labels::PSK_CONFIRMATION, challenge, account, &proof.nonce);
        constant_time_eq(expected.as_bytes(), confirmation.as_bytes())
    }

    /// The external PSK of a conversation. Everybody in it has to hold this key; another conversation gets another
    /// value.
    #[must_use]
    pub fn external(&self, genesis: &Hash, thread: &ThreadId) -> ExternalPsk {
        let context: [&[u8]; 2] = [genesis.as_bytes(), thread.as_bytes()];
        let value = derive_key(&[], self.0.as_bytes(), labels::PSK_MLS, &context);
        let id = sha384(labels::PSK_MLS_ID, &[self.id().as_bytes(), genesis.as_bytes(), thread.as_bytes()]);
        ExternalPsk { id, value: Zeroizing::new(*value.as_bytes()) }
    }

    /// Names the key without telling it: it has 256 random bits.
    fn id(&self) -> Hash {
        sha384(labels::PSK_ID, &[self.0.as_bytes()])
    }
}

/// What the server keeps of a pre-shared key.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct PskRecord {
    #[n(0)]
    id: Hash,
    #[n(1)]
    key: Secret<32>,
}

/// A client's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PskProof {
    /// The client's nonce.
    pub nonce: [u8; 32],
    /// HMAC-SHA384 over the challenge, the account and the nonce.
    pub mac: Hash,
}

impl PskRecord {
    /// The verifier as a client derived it ([`Psk::verifier`]).
    #[must_use]
    pub fn from_parts(id: Hash, verifier: &[u8; 32]) -> Self {
        Self { id, key: Secret::from_bytes(verifier) }
    }

    /// The verifier, for the client that hands it to its server. Whoever has it answers challenges in the place of who
    /// has the key.
    #[must_use]
    pub fn danger_verifier(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Names the key.
    #[must_use]
    pub const fn id(&self) -> &Hash {
        &self.id
    }

    pub(crate) fn is_answered(&self, challenge: &Challenge, account: AccountId, proof: &PskProof) -> bool {
        let expected = self.mac(labels::PSK_RESPONSE, challenge, account, &proof.nonce);
        constant_time_eq(expected.as_bytes(), proof.mac.as_bytes())
    }

    /// The server's own proof, for a client that has given its.
    pub(crate) fn confirmation(&self, challenge: &Challenge, account: AccountId, proof: &PskProof) -> Hash {
        self.mac(labels::PSK_CONFIRMATION, challenge, account, &proof.nonce)
    }

    /// The challenge holds the server's nonce, the network, the appliance, the sign-in and the channel.
    fn mac(&self, label: &[u8], challenge: &Challenge, account: AccountId, nonce: &[u8; 32]) -> Hash {
        hmac_sha384(self.key.as_bytes(), label, &[&challenge.to_bytes(), account.as_bytes(), nonce])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Channel;
    use zixt_types::LoginId;
    use zixt_types::{ApplianceId, ThreadKind, Timestamp};

    fn challenge() -> Challenge {
        Challenge {
            version: 1,
            genesis: Hash([1; 48]),
            appliance: ApplianceId([2; 48]),
            login: LoginId([3; 16]),
            nonce: [4; 32],
            channel: Channel::ClientKey(Hash([5; 48])).binding(),
            expires_at: Timestamp(6),
        }
    }

    fn counting() -> impl FnMut(&mut [u8]) -> Result<(), RandomError> {
        let mut n = 0;
        move |out: &mut [u8]| {
            n += 1;
            out.fill(n);
            Ok(())
        }
    }

    #[test]
    fn both_sides_show_that_they_know_it() {
        let mut random = counting();
        let psk = Psk::generate(&mut random).unwrap();
        let (account, record) = (AccountId([9; 16]), psk.verifier());
        let proof = psk.answer(&challenge(), account, &mut random).unwrap();
        assert!(record.is_answered(&challenge(), account, &proof));
        let confirmation = record.confirmation(&challenge(), account, &proof);
        assert!(psk.is_confirmed(&challenge(), account, &proof, &confirmation));
        // An answer sent back is no confirmation.
        assert!(!psk.is_confirmed(&challenge(), account, &proof, &proof.mac));
    }

    #[test]
    fn an_answer_is_for_one_challenge_and_one_account() {
        let mut random = counting();
        let psk = Psk::generate(&mut random).unwrap();
        let (account, record) = (AccountId([9; 16]), psk.verifier());
        let proof = psk.answer(&challenge(), account, &mut random).unwrap();
        let changes: [fn(&mut Challenge); 6] = [
            |c| c.genesis = Hash([0; 48]),
            |c| c.appliance = ApplianceId([0; 48]),
            |c| c.login = LoginId([0; 16]),
            |c| c.nonce = [0; 32],
            |c| c.channel = Channel::ClientKey(Hash([0; 48])).binding(),
            |c| c.expires_at = Timestamp(0),
        ];
        for change in changes {
            let mut other = challenge();
            change(&mut other);
            assert!(!record.is_answered(&other, account, &proof));
        }
        assert!(!record.is_answered(&challenge(), AccountId([8; 16]), &proof));
        let other = Psk::generate(&mut random).unwrap();
        assert!(!other.verifier().is_answered(&challenge(), account, &proof));
    }

    #[test]
    fn a_conversation_has_a_value_of_its_own_that_the_verifier_does_not_give() {
        let psk = Psk::generate(&mut counting()).unwrap();
        let thread = |n| ThreadId::new(ThreadKind::Conversation, &[n; 31]);
        let one = psk.external(&Hash([1; 48]), &thread(1));
        assert_eq!(one, psk.external(&Hash([1; 48]), &thread(1)));
        let other = psk.external(&Hash([1; 48]), &thread(2));
        assert!(one.id != other.id && one.value != other.value);
        assert_ne!(&*one.value, psk.verifier().key.as_bytes());
    }

    #[test]
    fn paper_round_trips() {
        let psk = Psk::generate(&mut counting()).unwrap();
        assert_eq!(Psk::from_text(&psk.to_text()), Some(psk.clone()));
        assert_eq!(Psk::from_text("ABCD"), None);
        assert_eq!(format!("{psk:?}"), "Psk(redacted)");
    }
}
