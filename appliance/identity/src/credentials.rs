//! What an account signs in with, and its form at rest.

use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_crypto::hazmat::{self, NONCE_BYTES};
use zixt_crypto::{AeadKey, RandomError, labels};
use zixt_types::{AccountId, ParseError, Timestamp, limits};

use crate::backup::BackupRecord;
use crate::factor::{Factor, FactorSet};
use crate::password::PasswordRecord;
use crate::place::HeldSource;
use crate::psk::PskRecord;
use crate::random::{Random, draw};
use crate::secret::SecretForm;
use crate::totp::TotpRecord;
use crate::webauthn::WebAuthnCredential;

/// A source that the account has signed in from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
struct Known {
    #[n(0)]
    source: HeldSource,
    /// Wall clock of its last sign-in.
    #[n(1)]
    at: Timestamp,
}

/// The saved form. Holds the TOTP seed, so it is only ever written sealed.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
struct Form {
    #[n(0)]
    version: u64,
    #[n(1)]
    password: Option<PasswordRecord>,
    #[n(2)]
    totp: Option<TotpRecord>,
    #[n(3)]
    psk: Option<PskRecord>,
    #[n(4)]
    backup: Option<BackupRecord>,
    #[n(5)]
    webauthn: Vec<WebAuthnCredential>,
    #[n(6)]
    known: Vec<Known>,
}

impl SecretForm for Form {
    const WHAT: &'static str = "credentials";
    const BYTES_MAX: usize = limits::CREDENTIALS_BYTES_MAX;

    fn check(&self) -> Result<(), &'static str> {
        if self.version != Self::VERSION {
            return Err("the version is 1");
        }
        self.totp.as_ref().map_or(Ok(()), TotpRecord::check)?;
        self.backup.as_ref().map_or(Ok(()), BackupRecord::check)?;
        if self.webauthn.len() > limits::WEBAUTHN_CREDENTIALS_MAX {
            return Err("an account has at most 8 WebAuthn credentials");
        }
        for (at, credential) in self.webauthn.iter().enumerate() {
            credential.check()?;
            if self.webauthn[..at].iter().any(|other| other.id() == credential.id()) {
                return Err("a WebAuthn credential stands twice");
            }
        }
        if self.known.len() > limits::KNOWN_SOURCES_MAX {
            return Err("an account knows at most 8 sources");
        }
        Ok(())
    }
}

/// Everything that one account signs in with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials(Form);

impl Default for Credentials {
    fn default() -> Self {
        Self(Form {
            version: Form::VERSION,
            password: None,
            totp: None,
            psk: None,
            backup: None,
            webauthn: Vec::new(),
            known: Vec::new(),
        })
    }
}

/// Why credentials were not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealCredentialsError {
    /// No randomness for the nonce.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// More than fits.
    #[error("the credentials are larger than {max} bytes", max = limits::CREDENTIALS_BYTES_MAX)]
    TooLarge,
}

/// Why credentials were not opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenCredentialsError {
    /// Another key, another account, or altered bytes.
    #[error("sealed credentials do not authenticate")]
    Rejected,
    /// What was sealed is no credentials.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

impl Credentials {
    /// Seals them for the store, bound to the account: AES-256-GCM under a key of custody's (SP 800-38D). A store
    /// that is written to by somebody else can still put an older row back, and with it a used code: this is noticed
    /// by the audit record, not here.
    ///
    /// # Errors
    /// [`SealCredentialsError`]
    pub fn seal(
        &self,
        key: &AeadKey,
        account: AccountId,
        random: &mut dyn Random,
    ) -> Result<Vec<u8>, SealCredentialsError> {
        let plain = self.0.to_secret_bytes();
        if plain.len() > Form::BYTES_MAX {
            return Err(SealCredentialsError::TooLarge);
        }
        let nonce: [u8; NONCE_BYTES] = draw(random)?;
        let mut sealed = nonce.to_vec();
        hazmat::aead_seal_into(key, &nonce, &aad(account), &plain, &mut sealed)
            .map_err(|_| SealCredentialsError::TooLarge)?;
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// [`OpenCredentialsError`]
    pub fn open(key: &AeadKey, account: AccountId, sealed: &[u8]) -> Result<Self, OpenCredentialsError> {
        let (nonce, rest) =
            sealed.split_first_chunk::<NONCE_BYTES>().ok_or(OpenCredentialsError::Rejected)?;
        let plain =
            hazmat::aead_open(key, nonce, &aad(account), rest).map_err(|_| OpenCredentialsError::Rejected)?;
        Ok(Self(Form::parse_secret(&plain)?))
    }

    /// The kinds that can be asked for.
    #[must_use]
    pub fn enrolled(&self) -> FactorSet {
        let Form { version: _, password, totp, psk, backup, webauthn, known: _ } = &self.0;
        let kinds = [
            (password.is_some(), Factor::Password),
            (totp.as_ref().is_some_and(TotpRecord::is_confirmed), Factor::Totp),
            (psk.is_some(), Factor::Psk),
            (backup.as_ref().is_some_and(|set| set.left() > 0), Factor::BackupCode),
            (!webauthn.is_empty(), Factor::WebAuthn),
        ];
        kinds.into_iter().filter(|(has, _)| *has).map(|(_, factor)| factor).collect()
    }

    /// The password.
    #[must_use]
    pub const fn password(&self) -> Option<&PasswordRecord> {
        self.0.password.as_ref()
    }

    /// The authenticator app, confirmed or not.
    #[must_use]
    pub const fn totp(&self) -> Option<&TotpRecord> {
        self.0.totp.as_ref()
    }

    /// The authenticator app, to confirm it.
    pub(crate) const fn totp_mut(&mut self) -> Option<&mut TotpRecord> {
        self.0.totp.as_mut()
    }

    /// The pre-shared key's verifier.
    #[must_use]
    pub const fn psk(&self) -> Option<&PskRecord> {
        self.0.psk.as_ref()
    }

    /// The backup codes.
    #[must_use]
    pub const fn backup(&self) -> Option<&BackupRecord> {
        self.0.backup.as_ref()
    }

    /// The WebAuthn credentials.
    #[must_use]
    pub fn webauthn(&self) -> &[WebAuthnCredential] {
        &self.0.webauthn
    }

    /// Sets, replaces or removes the password.
    pub(crate) fn set_password(&mut self, password: Option<PasswordRecord>) {
        self.0.password = password;
    }

    /// Sets, replaces or removes the authenticator app.
    pub(crate) fn set_totp(&mut self, totp: Option<TotpRecord>) {
        self.0.totp = totp;
    }

    /// Sets, replaces or removes the pre-shared key.
    pub(crate) fn set_psk(&mut self, psk: Option<PskRecord>) {
        self.0.psk = psk;
    }

    /// Sets, replaces or removes the backup codes.
    pub(crate) fn set_backup(&mut self, backup: Option<BackupRecord>) {
        self.0.backup = backup;
    }

    /// Adds a WebAuthn credential; false if there are too many or it is there already.
    #[must_use]
    pub(crate) fn add_webauthn(&mut self, credential: WebAuthnCredential) -> bool {
        let fits = self.0.webauthn.len() < limits::WEBAUTHN_CREDENTIALS_MAX
            && self.0.webauthn.iter().all(|other| other.id() != credential.id());
        if fits {
            self.0.webauthn.push(credential);
        }
        fits
    }

    /// Removes a WebAuthn credential; false if there is none.
    #[must_use]
    pub(crate) fn remove_webauthn(&mut self, id: &[u8]) -> bool {
        let before = self.0.webauthn.len();
        self.0.webauthn.retain(|credential| credential.id() != id);
        self.0.webauthn.len() < before
    }

    /// Whether the account has signed in from this source.
    #[must_use]
    pub fn knows(&self, source: &HeldSource) -> bool {
        self.0.known.iter().any(|known| known.source == *source)
    }

    /// Forgets every source: after a recovery, or when a person says that one is not theirs.
    pub(crate) fn forget_sources(&mut self) {
        self.0.known.clear();
    }

    /// Remembers a source after a sign-in; the one that was used least recently makes room.
    pub(crate) fn remember(&mut self, source: HeldSource, at: Timestamp) {
        let known = &mut self.0.known;
        known.retain(|other| other.source != source);
        if known.len() >= limits::KNOWN_SOURCES_MAX
            && let Some(oldest) = (0..known.len()).min_by_key(|index| known[*index].at)
        {
            known.remove(oldest);
        }
        known.push(Known { source, at });
    }

    pub(crate) const fn backup_mut(&mut self) -> Option<&mut BackupRecord> {
        self.0.backup.as_mut()
    }

    pub(crate) fn webauthn_mut(&mut self, id: &[u8]) -> Option<&mut WebAuthnCredential> {
        self.0.webauthn.iter_mut().find(|credential| credential.id() == id)
    }
}

fn aad(account: AccountId) -> Vec<u8> {
    [labels::CREDENTIALS, account.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocklist::Blocklist;
    use crate::password::Password;
    use crate::policy::{Cost, Policy, PolicyDocument};
    use crate::role::Roles;
    use crate::{Psk, totp};
    use proptest::prelude::*;
    use zixt_crypto::fill_random;
    use zixt_crypto::password::Params;
    use zixt_types::Hash;
    use zixt_types::Role;

    fn full() -> Credentials {
        let mut document = PolicyDocument::default();
        document.password.cost = Cost(Params::MIN);
        document.backup.cost = Cost(Params::MIN);
        let policy = Policy::cheap(document).unwrap();
        let mut all = Credentials::default();
        let password = Password::parse("tall trees lean west").unwrap();
        let roles = Roles::new(&[Role::User]).unwrap();
        let list = Blocklist::new("");
        let record = PasswordRecord::choose(&policy, roles, &password, &list, &[], &mut fill_random).unwrap();
        all.set_password(Some(record));
        all.set_totp(Some(totp::tests::enrolled(&mut fill_random)));
        all.set_psk(Some(Psk::generate(&mut fill_random).unwrap().verifier()));
        all.set_backup(Some(BackupRecord::generate(&policy, &mut fill_random).unwrap().0));
        for n in 0..8u8 {
            let name = "n".repeat(limits::WEBAUTHN_NAME_BYTES_MAX);
            let largest =
                WebAuthnCredential::new(&[n; 1023], &[n; 4096], u32::MAX, &name, Timestamp(u64::MAX));
            assert!(all.add_webauthn(largest.unwrap()));
        }
        for n in 0..12u8 {
            all.remember(HeldSource::tls_key(&Hash([n; 48])), Timestamp(u64::from(n)));
        }
        all
    }

    #[test]
    fn the_fullest_account_fits_and_round_trips() {
        let (all, key, account) = (full(), AeadKey::generate().unwrap(), AccountId([1; 16]));
        assert_eq!(all.0.known.len(), limits::KNOWN_SOURCES_MAX);
        assert!(all.knows(&HeldSource::tls_key(&Hash([11; 48]))));
        assert!(!all.knows(&HeldSource::tls_key(&Hash([3; 48]))));
        let sealed = all.seal(&key, account, &mut fill_random).unwrap();
        assert_eq!(Credentials::open(&key, account, &sealed), Ok(all));
        let elsewhere = Credentials::open(&key, AccountId([2; 16]), &sealed);
        assert_eq!(elsewhere, Err(OpenCredentialsError::Rejected));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let printed = format!("{:?}", full());
        assert!(printed.contains("redacted") && !printed.contains("seed: ["), "{printed}");
    }

    proptest! {
        #[test]
        fn random_bytes_are_an_error(bytes: Vec<u8>) {
            let key = AeadKey::from_bytes(&[7; 32]);
            prop_assert!(Credentials::open(&key, AccountId([1; 16]), &bytes).is_err());
            if let Ok(form) = Form::parse_secret(&bytes) {
                prop_assert_eq!(&*form.to_secret_bytes(), &bytes);
            }
        }

        #[test]
        fn a_changed_form_is_read_or_refused(at: prop::sample::Index, to: u8) {
            let mut all = Credentials::default();
            all.set_totp(Some(totp::tests::enrolled(&mut fill_random)));
            all.set_psk(Some(Psk::generate(&mut fill_random).unwrap().verifier()));
            let mut bytes = all.0.to_secret_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(form) = Form::parse_secret(&bytes) {
                prop_assert_eq!(&*form.to_secret_bytes(), &bytes);
            }
        }
    }
}
