//! A user's vault: private keys and settings under a passphrase, so that a new device can be set up without the old
//! one.
//!
//! Written and opened by the client; the server keeps it and cannot open it. The key comes of the passphrase
//! (Argon2id, RFC 9106) and, if the user wants it, of a share that the server gives out after a sign-in and only so
//! often. With a share a stolen vault cannot be guessed at; whoever has obtained both the vault and the share can
//! guess as fast as Argon2id lets them. The passphrase must be another one than the password, which the server does
//! see.

use minicbor::{Decode, Encode};
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_crypto::hash::derive_key;
use zixt_crypto::hazmat::{self, NONCE_BYTES, TAG_BYTES};
use zixt_crypto::password::{DeriveError, Params, SALT_BYTES, derive};
use zixt_crypto::{AeadKey, RandomError, labels};
use zixt_types::{AccountId, Canonical, ParseError, Timestamp, limits};

use crate::password::Password;
use crate::policy::{Cost, PASSWORD_CHARS_MIN_ALONE};
use crate::random::{Random, draw};
use crate::role::Permission;
use crate::secret::Secret;
use crate::session::{Actor, Forbidden};

/// The server's part of a vault's key.
#[derive(Clone, PartialEq, Eq)]
pub struct VaultShare(Secret<32>);

impl VaultShare {
    /// The bytes, for their way over the session's channel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The share as it came.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::from_bytes(bytes))
    }
}

impl fmt::Debug for VaultShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultShare(redacted)")
    }
}

/// What is bound to a vault and readable: everything that opening needs but the passphrase and the share.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
struct Head {
    #[n(0)]
    version: u64,
    #[n(1)]
    account: AccountId,
    #[n(2)]
    generation: u64,
    #[n(3)]
    cost: Cost,
    #[cbor(n(4), with = "crate::secret::fixed")]
    salt: [u8; SALT_BYTES],
    #[n(5)]
    with_share: bool,
}

impl Head {
    fn aad(&self) -> Vec<u8> {
        let mut aad = labels::VAULT.to_vec();
        match minicbor::encode(self, &mut aad) {
            Ok(()) => aad,
            // Writing to a Vec cannot fail and no `Encode` of ours returns an error of its own.
            Err(_) => unreachable!("encoding to memory"),
        }
    }

    fn key(&self, passphrase: &Password, share: Option<&VaultShare>) -> Result<AeadKey, DeriveError> {
        let derived = derive(self.cost.0, &self.salt, passphrase.as_bytes())?;
        let mut ikm = Zeroizing::new([0; 64]);
        ikm[..32].copy_from_slice(derived.as_slice());
        if let Some(share) = share {
            ikm[32..].copy_from_slice(share.as_bytes());
        }
        // The head is in the context, so that another generation, account or mode has another key.
        Ok(derive_key(&self.salt, ikm.as_slice(), labels::VAULT, &[&self.aad()]))
    }
}

/// A vault as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Vault {
    #[n(0)]
    version: u64,
    #[n(1)]
    head: Head,
    #[cbor(n(2), with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

impl Canonical for Vault {
    const WHAT: &'static str = "vault";
    const BYTES_MAX: usize = limits::VAULT_BYTES_MAX;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        if self.version != 1 || self.head.version != 1 {
            return Err("the version is 1");
        }
        if self.head.generation == 0 {
            return Err("generations are counted from 1");
        }
        let (least, most) =
            (NONCE_BYTES + TAG_BYTES, NONCE_BYTES + TAG_BYTES + limits::VAULT_CONTENT_BYTES_MAX);
        if (least..=most).contains(&self.sealed.len()) {
            Ok(())
        } else {
            Err("the content has a wrong length")
        }
    }
}

/// Why there is no vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealVaultError {
    /// Whoever has the vault guesses as fast as the cost lets them, and the cost may come from a server that is not
    /// trusted with the vault.
    #[error("a vault's key costs at least {} KiB and {} passes", Params::DEFAULT.memory_kib(), Params::DEFAULT.passes())]
    CostTooLow,
    /// A passphrase stands alone: anybody with the vault may guess.
    #[error("the passphrase has {got} characters; at least {min} are needed", min = PASSWORD_CHARS_MIN_ALONE)]
    PassphraseTooShort {
        /// Characters given.
        got: usize,
    },
    /// More than fits.
    #[error("a vault holds {max} bytes, not {got}", max = limits::VAULT_CONTENT_BYTES_MAX)]
    ContentTooLong {
        /// Bytes given.
        got: usize,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The key could not be derived.
    #[error(transparent)]
    Derive(#[from] DeriveError),
}

/// What a client knows about the vault that it wants to see: from its own record or from the ledger, and never from the
/// vault itself, which a server may have put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpectedVault {
    /// Whose it is.
    pub account: AccountId,
    /// The newest generation that has been seen; 0 only where nothing is known.
    pub generation_min: u64,
    /// Whether that one needs a share.
    pub with_share: bool,
}

/// Why a vault was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenVaultError {
    /// It is another account's.
    #[error("the vault is another account's")]
    OtherAccount,
    /// An older one than the caller has seen: somebody put it back.
    #[error("the vault has generation {got}; {least} has been seen")]
    Older {
        /// Its generation.
        got: u64,
        /// The one that has been seen.
        least: u64,
    },
    /// It was made with a share and should have been made without, or the other way round: somebody put an older one
    /// back.
    #[error("the vault was not made as expected, with or without the server's share")]
    OtherMode,
    /// It was made with a share of the server's, and none was given.
    #[error("the vault needs the server's share")]
    ShareNeeded,
    /// It was made without a share, and one was given.
    #[error("the vault was made without a share")]
    ShareNotNeeded,
    /// Wrong passphrase, wrong share or altered bytes; which of them cannot be known.
    #[error("the vault does not open")]
    Rejected,
    /// The key could not be derived.
    #[error(transparent)]
    Derive(#[from] DeriveError),
}

/// Why a passphrase was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChangeVaultError {
    /// The vault does not open with the old one.
    #[error(transparent)]
    Open(#[from] OpenVaultError),
    /// It could not be sealed with the new one.
    #[error(transparent)]
    Seal(#[from] SealVaultError),
}

impl Vault {
    /// Seals `content` as this generation, which is one more than the last that the account had, or 1.
    ///
    /// # Errors
    /// [`SealVaultError`]
    pub fn create(
        account: AccountId,
        generation: u64,
        cost: Cost,
        passphrase: &Password,
        share: Option<&VaultShare>,
        content: &[u8],
        random: &mut dyn Random,
    ) -> Result<Self, SealVaultError> {
        let floor = Params::DEFAULT;
        if cost.0.memory_kib() < floor.memory_kib() || cost.0.passes() < floor.passes() {
            return Err(SealVaultError::CostTooLow);
        }
        Self::create_at(account, generation, cost, passphrase, share, content, random)
    }

    fn create_at(
        account: AccountId,
        generation: u64,
        cost: Cost,
        passphrase: &Password,
        share: Option<&VaultShare>,
        content: &[u8],
        random: &mut dyn Random,
    ) -> Result<Self, SealVaultError> {
        let got = passphrase.chars();
        if got < usize::from(PASSWORD_CHARS_MIN_ALONE) {
            return Err(SealVaultError::PassphraseTooShort { got });
        }
        let too_long = SealVaultError::ContentTooLong { got: content.len() };
        if content.len() > limits::VAULT_CONTENT_BYTES_MAX {
            return Err(too_long);
        }
        let with_share = share.is_some();
        let generation = generation.max(1);
        let head = Head { version: 1, account, generation, cost, salt: draw(random)?, with_share };
        let nonce: [u8; NONCE_BYTES] = draw(random)?;
        let mut sealed = nonce.to_vec();
        let key = head.key(passphrase, share)?;
        hazmat::aead_seal_into(&key, &nonce, &head.aad(), content, &mut sealed).map_err(|_| too_long)?;
        Ok(Self { version: 1, head, sealed })
    }

    /// Opens a vault that is what the client expects: its account's, not older than what it has seen, made in the same
    /// way.
    ///
    /// # Errors
    /// [`OpenVaultError`]; nothing of the content is released then.
    pub fn open(
        &self,
        expected: &ExpectedVault,
        passphrase: &Password,
        share: Option<&VaultShare>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenVaultError> {
        let Head { generation, with_share, .. } = self.head;
        if self.head.account != expected.account {
            return Err(OpenVaultError::OtherAccount);
        }
        if generation < expected.generation_min {
            return Err(OpenVaultError::Older { got: generation, least: expected.generation_min });
        }
        if with_share != expected.with_share {
            return Err(OpenVaultError::OtherMode);
        }
        match (with_share, share.is_some()) {
            (true, false) => return Err(OpenVaultError::ShareNeeded),
            (false, true) => return Err(OpenVaultError::ShareNotNeeded),
            _ => {}
        }
        let key = self.head.key(passphrase, share)?;
        let (nonce, rest) = self.sealed.split_first_chunk::<NONCE_BYTES>().ok_or(OpenVaultError::Rejected)?;
        hazmat::aead_open(&key, nonce, &self.head.aad(), rest).map_err(|_| OpenVaultError::Rejected)
    }

    /// The same content under another passphrase, and with or without a share: the next generation. Older copies
    /// still open with the old passphrase; if that one is known to others, what is inside has to be replaced too.
    ///
    /// # Errors
    /// [`ChangeVaultError`]
    pub fn change_passphrase(
        &self,
        expected: &ExpectedVault,
        old: (&Password, Option<&VaultShare>),
        new: (&Password, Option<&VaultShare>),
        cost: Cost,
        random: &mut dyn Random,
    ) -> Result<Self, ChangeVaultError> {
        let content = self.open(expected, old.0, old.1)?;
        let generation = self.head.generation.saturating_add(1);
        Ok(Self::create(expected.account, generation, cost, new.0, new.1, &content, random)?)
    }

    /// Whose it is.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.head.account
    }

    /// Which of the account's vaults in succession.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.head.generation
    }

    /// Whether opening it needs the server's share.
    #[must_use]
    pub const fn needs_share(&self) -> bool {
        self.head.with_share
    }
}

/// The saved form of a share and of how often it was given out.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
struct ShareForm {
    #[n(0)]
    version: u64,
    #[n(1)]
    account: AccountId,
    #[n(2)]
    share: Secret<32>,
    #[n(3)]
    given: u32,
    #[n(4)]
    since: Timestamp,
}

/// A share is given out so often in [`SHARE_WINDOW_MS`]: a person sets up a device, and mistypes.
pub const SHARE_GIVEN_MAX: u32 = 5;
/// The window of [`SHARE_GIVEN_MAX`], in milliseconds of the wall clock.
pub const SHARE_WINDOW_MS: u64 = 86_400_000;

/// Why a share is not given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GiveShareError {
    /// The caller may not have it.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// It was given out too often.
    #[error("the share was given out {max} times in a day", max = SHARE_GIVEN_MAX)]
    TooOften {
        /// When it can be had again, by the wall clock.
        until: Timestamp,
    },
}

/// The share of one account, on the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VaultShareRecord(ShareForm);

impl crate::secret::SecretForm for ShareForm {
    const WHAT: &'static str = "vault share";
    const BYTES_MAX: usize = 128;

    fn check(&self) -> Result<(), &'static str> {
        if self.version == 1 { Ok(()) } else { Err("the version is 1") }
    }
}

impl VaultShareRecord {
    /// A new share.
    ///
    /// # Errors
    /// [`RandomError`]
    pub fn generate(
        account: AccountId,
        wall: Timestamp,
        random: &mut dyn Random,
    ) -> Result<Self, RandomError> {
        let share = Secret::draw(random)?;
        Ok(Self(ShareForm { version: 1, account, share, given: 0, since: wall }))
    }

    /// Gives the share out to its owner. Store the record before the share is sent.
    ///
    /// # Errors
    /// [`GiveShareError`]
    pub fn give(&mut self, by: &Actor<'_>, wall: Timestamp) -> Result<VaultShare, GiveShareError> {
        by.require(Permission::UseOwnVault)?;
        let form = &mut self.0;
        if by.account() != form.account {
            return Err(Forbidden::OtherAccount.into());
        }
        // A clock that was set back begins a new window, but not a new count.
        let elapsed = wall.0.checked_sub(form.since.0);
        match elapsed {
            Some(ms) if ms >= SHARE_WINDOW_MS => (form.given, form.since) = (0, wall),
            Some(_) => {}
            None => form.since = wall,
        }
        if form.given >= SHARE_GIVEN_MAX {
            let until = Timestamp(form.since.0.saturating_add(SHARE_WINDOW_MS));
            return Err(GiveShareError::TooOften { until });
        }
        form.given += 1;
        Ok(VaultShare(form.share.clone()))
    }

    /// The record for the store. Holds the share in the clear: seal it, bound to its row.
    #[must_use]
    pub fn danger_to_bytes(&self) -> Zeroizing<Vec<u8>> {
        crate::secret::SecretForm::to_secret_bytes(&self.0)
    }

    /// Reads what [`Self::danger_to_bytes`] wrote.
    ///
    /// # Errors
    /// [`ParseError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        <ShareForm as crate::secret::SecretForm>::parse_secret(bytes).map(Self)
    }

    /// Whose it is.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.0.account
    }
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
