//! Who may be in a group: devices whose MLS key the ledger has on record, and nobody else.

use std::sync::Arc;

use mls_rs_core::error::IntoAnyError;
use mls_rs_core::extension::ExtensionList;
use mls_rs_core::identity::{
    Credential, CredentialType, CustomCredential, IdentityProvider, MemberValidationContext, SigningIdentity,
};
use mls_rs_core::time::MlsTime;
use zixt_crypto::digest::key_hash;
use zixt_types::{Hash, Member, SuiteId};

/// The credential type of a ledger member (RFC 9420 section 17.5 keeps 0xF000 to 0xFFFF for private use). Its content
/// is the deterministic CBOR of a [`Member`].
pub const CREDENTIAL_TYPE: CredentialType = CredentialType::new(0xF0A0);

/// What the ledger says about devices. The client fills it from entries that it has verified.
pub trait KeyDirectory: Send + Sync {
    /// The hash ([`key_hash`]) of the device's MLS key, as its device entry records it; `None` for a device that
    /// does not exist or is revoked.
    fn mls_key(&self, member: &Member) -> Option<Hash>;
}

/// Why somebody is not accepted as a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The credential is not one of the ledger.
    #[error("the credential does not name a ledger member")]
    Credential,
    /// The ledger has no such device, or it is revoked.
    #[error("device {} of account {} is unknown or revoked", .0.device, .0.account)]
    Unknown(Member),
    /// The ledger has another MLS key for this device.
    #[error("device {} of account {} has another MLS key in the ledger", .0.device, .0.account)]
    OtherKey(Member),
    /// Nobody outside of a group may send into it.
    #[error("external senders are not allowed")]
    ExternalSender,
}

impl IntoAnyError for IdentityError {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(Box::new(self))
    }
}

/// The identity provider over a [`KeyDirectory`].
#[derive(Clone)]
pub(crate) struct LedgerIdentity {
    suite: SuiteId,
    directory: Arc<dyn KeyDirectory>,
}

impl LedgerIdentity {
    pub(crate) fn new(suite: SuiteId, directory: Arc<dyn KeyDirectory>) -> Self {
        Self { suite, directory }
    }

    pub(crate) fn check(&self, identity: &SigningIdentity) -> Result<Member, IdentityError> {
        let member = member_of(identity)?;
        self.check_key(&member, key_hash(self.suite, &identity.signature_key))?;
        Ok(member)
    }

    pub(crate) fn check_key(&self, member: &Member, key: Hash) -> Result<(), IdentityError> {
        match self.directory.mls_key(member) {
            None => Err(IdentityError::Unknown(*member)),
            Some(recorded) if recorded != key => Err(IdentityError::OtherKey(*member)),
            Some(_) => Ok(()),
        }
    }
}

impl IdentityProvider for LedgerIdentity {
    type Error = IdentityError;

    fn validate_member(
        &self,
        signing_identity: &SigningIdentity,
        _: Option<MlsTime>,
        _: MemberValidationContext<'_>,
    ) -> Result<(), IdentityError> {
        self.check(signing_identity).map(|_| ())
    }

    fn validate_external_sender(
        &self,
        _: &SigningIdentity,
        _: Option<MlsTime>,
        _: Option<&ExtensionList>,
    ) -> Result<(), IdentityError> {
        Err(IdentityError::ExternalSender)
    }

    fn identity(&self, identity: &SigningIdentity, _: &ExtensionList) -> Result<Vec<u8>, IdentityError> {
        Ok(credential_bytes(&member_of(identity)?))
    }

    /// New keys of a leaf stay with the same device (and pass [`Self::validate_member`] besides).
    fn valid_successor(
        &self,
        predecessor: &SigningIdentity,
        successor: &SigningIdentity,
        _: &ExtensionList,
    ) -> Result<bool, IdentityError> {
        Ok(member_of(predecessor)? == member_of(successor)?)
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        vec![CREDENTIAL_TYPE]
    }
}

/// The identity under which a member stands in a group.
pub(crate) fn signing_identity(member: &Member, public_key: &[u8]) -> SigningIdentity {
    let credential = CustomCredential::new(CREDENTIAL_TYPE, credential_bytes(member));
    SigningIdentity::new(Credential::Custom(credential), public_key.to_vec().into())
}

/// The member whom a signing identity names. Whether the ledger agrees is [`LedgerIdentity::check`].
pub(crate) fn member_of(identity: &SigningIdentity) -> Result<Member, IdentityError> {
    let credential = identity.credential.as_custom().filter(|c| c.credential_type() == CREDENTIAL_TYPE);
    let bytes = credential.ok_or(IdentityError::Credential)?.data();
    let member: Member = minicbor::decode(bytes).map_err(|_| IdentityError::Credential)?;
    if credential_bytes(&member) == bytes { Ok(member) } else { Err(IdentityError::Credential) }
}

fn credential_bytes(member: &Member) -> Vec<u8> {
    let mut bytes = Vec::new();
    match minicbor::encode(member, &mut bytes) {
        Ok(()) => bytes,
        // Writing to a Vec cannot fail, and ids encode without an error of their own.
        Err(_) => unreachable!("encoding to memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mls_rs_core::identity::BasicCredential;
    use zixt_types::{AccountId, DeviceId};

    struct One(Member, Hash);

    impl KeyDirectory for One {
        fn mls_key(&self, member: &Member) -> Option<Hash> {
            (*member == self.0).then_some(self.1)
        }
    }

    fn member(n: u8) -> Member {
        Member { account: AccountId([n; 16]), device: DeviceId([n; 16]) }
    }

    #[test]
    fn only_the_recorded_key_of_a_known_device_passes() {
        let directory = Arc::new(One(member(1), key_hash(SuiteId::Standard, b"key")));
        let provider = LedgerIdentity::new(SuiteId::Standard, directory.clone());
        let validate = |identity: &SigningIdentity| {
            provider.validate_member(identity, None, MemberValidationContext::None)
        };
        assert_eq!(validate(&signing_identity(&member(1), b"key")), Ok(()));
        assert_eq!(validate(&signing_identity(&member(1), b"kez")), Err(IdentityError::OtherKey(member(1))));
        assert_eq!(validate(&signing_identity(&member(2), b"key")), Err(IdentityError::Unknown(member(2))));
        let cnsa = LedgerIdentity::new(SuiteId::Cnsa, directory);
        assert_eq!(
            cnsa.check(&signing_identity(&member(1), b"key")),
            Err(IdentityError::OtherKey(member(1))),
            "a key is recorded together with its suite"
        );
    }

    #[test]
    fn other_credentials_and_encodings_are_refused() {
        let basic = SigningIdentity::new(
            Credential::Basic(BasicCredential::new(b"alice".to_vec())),
            b"key".to_vec().into(),
        );
        assert_eq!(member_of(&basic), Err(IdentityError::Credential));
        let good = credential_bytes(&member(1));
        let mut longer = good.clone();
        longer.push(0);
        let mut indefinite = vec![0x9F];
        indefinite.extend_from_slice(&good[1..]);
        indefinite.push(0xFF);
        for data in [vec![], longer, indefinite, good[1..].to_vec()] {
            let credential = Credential::Custom(CustomCredential::new(CREDENTIAL_TYPE, data));
            let identity = SigningIdentity::new(credential, b"key".to_vec().into());
            assert_eq!(member_of(&identity), Err(IdentityError::Credential));
        }
        let other_type = CustomCredential::new(CredentialType::new(0xF0AF), good);
        let identity = SigningIdentity::new(Credential::Custom(other_type), b"key".to_vec().into());
        assert_eq!(member_of(&identity), Err(IdentityError::Credential));
    }

    #[test]
    fn only_the_same_device_follows_itself() {
        let directory = Arc::new(One(member(1), key_hash(SuiteId::Standard, b"key")));
        let provider = LedgerIdentity::new(SuiteId::Standard, directory);
        let follows = |a: &_, b: &_| provider.valid_successor(a, b, &ExtensionList::new());
        let one = signing_identity(&member(1), b"key");
        assert_eq!(follows(&one, &signing_identity(&member(1), b"new key")), Ok(true));
        assert_eq!(follows(&one, &signing_identity(&member(2), b"key")), Ok(false));
    }

    #[test]
    fn external_senders_are_refused() {
        let directory = Arc::new(One(member(1), key_hash(SuiteId::Standard, b"key")));
        let provider = LedgerIdentity::new(SuiteId::Standard, directory);
        let identity = signing_identity(&member(1), b"key");
        assert_eq!(
            provider.validate_external_sender(&identity, None, None),
            Err(IdentityError::ExternalSender)
        );
    }
}
