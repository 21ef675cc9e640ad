//! The invitation: what a person gets out of band to enrol the first device.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use std::fmt;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};
use zixt_types::{AccountId, Canonical, Hash, Height, ParseError, Salt, SuiteId, limits};

/// A header that the inviting appliance had certified: a client accepts no ledger without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Checkpoint {
    /// Its height; 0 is the genesis.
    #[n(0)]
    pub height: Height,
    /// Its hash; [`Hash::ZERO`] at height 0.
    #[n(1)]
    pub header: Hash,
}

/// The seed of the invitation's signing key. Whoever knows it can enrol in the person's place.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InvitationSeed([u8; 32]);

impl InvitationSeed {
    /// Takes the 32 bytes of an ML-DSA seed.
    #[must_use]
    pub const fn new(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// The seed itself. Do not log, format or store it unwrapped.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for InvitationSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationSeed(redacted)")
    }
}

impl<C> Encode<C> for InvitationSeed {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for InvitationSeed {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        d.bytes()?
            .try_into()
            .map(Self)
            .map_err(|_| decode::Error::message("seed has the wrong length").at(at))
    }
}

/// Everything that a first enrolment needs, secret included.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Invitation {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The network's name, as people read it.
    #[n(1)]
    pub network: String,
    /// Where the appliance listens: `host:port`.
    #[n(2)]
    pub address: String,
    /// The suite of all keys.
    #[n(3)]
    pub suite: SuiteId,
    /// Hash of the appliance's TLS key (`zixt_crypto::digest::key_hash`). Checked before anything is sent.
    #[n(4)]
    pub tls: Hash,
    /// Hash of the genesis, which names the network.
    #[n(5)]
    pub genesis: Hash,
    /// What the ledger has to contain.
    #[n(6)]
    pub checkpoint: Checkpoint,
    /// The account.
    #[n(7)]
    pub account: AccountId,
    /// Its name.
    #[n(8)]
    pub name: String,
    /// The salt of the name's commitment.
    #[n(9)]
    pub salt: Salt,
    /// The seed of the key that signs the first device. Secret.
    #[n(10)]
    pub seed: InvitationSeed,
    /// Whether the network is a lab: not for production.
    #[n(11)]
    pub lab: bool,
}

/// Why a text is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvitationError {
    /// It does not begin as one.
    #[error("an invitation begins with '{}'", Invitation::PREFIX)]
    Prefix,
    /// What follows is not base64url: a letter is wrong or missing.
    #[error("the invitation is damaged: a character is wrong or missing; copy it as a whole")]
    Base64,
    /// What it holds is not an invitation of this version.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

impl Invitation {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;
    /// How the text form begins.
    pub const PREFIX: &'static str = "zixt-invite:";

    /// The text form. It holds the secret: show it once, to the person who passes it on.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.to_bytes());
        let mut text =
            Zeroizing::new(String::with_capacity(Self::PREFIX.len() + bytes.len().div_ceil(3) * 4));
        text.push_str(Self::PREFIX);
        BASE64_URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        text
    }

    /// Reads the text form. White space around and inside (a line that a mail program broke) is ignored.
    ///
    /// # Errors
    /// See [`InvitationError`].
    pub fn from_text(text: &str) -> Result<Self, InvitationError> {
        let rest = text.trim().strip_prefix(Self::PREFIX).ok_or(InvitationError::Prefix)?;
        if rest.len() > 2 * Self::BYTES_MAX {
            return Err(InvitationError::Base64);
        }
        let joined: Zeroizing<String> =
            Zeroizing::new(rest.chars().filter(|letter| !letter.is_ascii_whitespace()).collect());
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(joined.as_bytes()).map_err(|_| InvitationError::Base64)?;
        Ok(Self::parse(&Zeroizing::new(bytes))?)
    }
}

impl Canonical for Invitation {
    const WHAT: &'static str = "invitation";
    const BYTES_MAX: usize = 1024;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.network.is_empty() || self.network.len() > limits::NAME_BYTES_MAX {
            return Err("the network's name is empty or too long");
        }
        if self.name.is_empty() || self.name.len() > limits::NAME_BYTES_MAX {
            return Err("the account's name is empty or too long");
        }
        let port = self.address.rsplit_once(':').and_then(|(host, port)| {
            (!host.is_empty() && self.address.len() <= 300).then(|| port.parse::<u16>().ok()).flatten()
        });
        if port.is_none_or(|port| port == 0) {
            return Err("the address is not host:port");
        }
        if (self.checkpoint.height.0 == 0) != (self.checkpoint.header == Hash::ZERO) {
            return Err("the checkpoint names a height without a header or a header without a height");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invitation() -> Invitation {
        Invitation {
            version: 1,
            network: "Lab".into(),
            address: "127.0.0.1:7443".into(),
            suite: SuiteId::Standard,
            tls: Hash([1; 48]),
            genesis: Hash([2; 48]),
            checkpoint: Checkpoint { height: Height(3), header: Hash([4; 48]) },
            account: AccountId([5; 16]),
            name: "ada".into(),
            salt: Salt([6; 32]),
            seed: InvitationSeed::new([7; 32]),
            lab: true,
        }
    }

    #[test]
    fn the_text_survives_a_mail_program() {
        let text = invitation().to_text();
        assert!(text.starts_with("zixt-invite:"));
        assert_eq!(Invitation::from_text(&text), Ok(invitation()));
        let (left, right) = text.split_at(70);
        assert_eq!(Invitation::from_text(&format!("  {left}\r\n {right}\n")), Ok(invitation()));
        assert_eq!(Invitation::from_text("zixt:abc"), Err(InvitationError::Prefix));
        assert_eq!(Invitation::from_text("zixt-invite:ab!c"), Err(InvitationError::Base64));
        let cut = &text[..text.len() - 8];
        assert!(matches!(Invitation::from_text(cut), Err(InvitationError::Parse(_))));
    }

    #[test]
    fn the_secret_is_not_printed() {
        let shown = format!("{:?}", invitation());
        assert!(shown.contains("redacted") && !shown.contains("7, 7"), "{shown}");
    }

    #[test]
    fn an_address_is_host_and_port() {
        for bad in ["", "host", "host:", ":7443", "host:0", "host:99999"] {
            let odd = Invitation { address: bad.into(), ..invitation() };
            assert!(matches!(Invitation::parse(&odd.to_bytes()), Err(ParseError::Invalid { .. })), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_a_panic(text: String, bytes: Vec<u8>) {
            prop_assert!(Invitation::from_text(&text).is_err());
            let text = format!("zixt-invite:{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
            prop_assert!(Invitation::from_text(&text).is_err());
        }
    }
}
