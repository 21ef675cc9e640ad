//! What a directory or an identity provider says, as a value that only their modules can make.
//!
//! `main` makes an [`Issuer`] for each directory and identity provider and hands it to the module that verifies binds
//! or assertions. Only an issuer makes vouchers, and a voucher names its issuer; an account takes the word of an
//! issuer that it is linked to, about the subject of the link, and of nobody else. A voucher is used up by the
//! sign-in that takes it.

use minicbor::{Decode, Encode};
use zixt_crypto::{hash, labels};
use zixt_types::{Hash, LoginId, Timestamp};

use crate::factor::Factor;
use crate::login::Admitted;
use crate::proof::Proof;

/// Names a directory or an identity provider: drawn at random when it is set up, so that another one at the same
/// address is another issuer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct IssuerId(#[cbor(n(0), with = "crate::secret::fixed")] pub [u8; 16]);

/// A person at an issuer: the hash of the id that never changes there (`objectGUID`, `entryUUID`, `sub`), not of a
/// name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct ExternalSubject(#[n(0)] Hash);

/// A person at an issuer, as an account is linked to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Link {
    /// Who vouches.
    #[n(0)]
    pub issuer: IssuerId,
    /// For whom.
    #[n(1)]
    pub subject: ExternalSubject,
}

/// What a module needs to vouch. Not `Clone`: there is one, and the module has it.
#[derive(Debug)]
pub struct Issuer {
    id: IssuerId,
    kind: Factor,
}

impl Issuer {
    /// For the module that binds at a directory.
    #[must_use]
    pub const fn directory(id: IssuerId) -> Self {
        Self { id, kind: Factor::Directory }
    }

    /// For the module that verifies assertions of an identity provider.
    #[must_use]
    pub const fn sso(id: IssuerId) -> Self {
        Self { id, kind: Factor::Sso }
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> IssuerId {
        self.id
    }

    /// The link of a person, by the id that never changes at the issuer.
    #[must_use]
    pub fn link(&self, unchanging_id: &[u8]) -> Link {
        let subject = hash::sha384(labels::EXTERNAL_SUBJECT, &[&self.id.0, unchanging_id]);
        Link { issuer: self.id, subject: ExternalSubject(subject) }
    }

    /// Says that this person has just proven to be who they are: a bind succeeded, or an assertion was verified with
    /// its signature, audience, nonce, times and replay. For one sign-in, whose attempt was admitted before the bind.
    #[must_use]
    pub fn vouch(&self, admitted: &Admitted, unchanging_id: &[u8], wall: Timestamp) -> Voucher {
        let (kind, link) = (self.kind, self.link(unchanging_id));
        Voucher { kind, vouched: Vouched { link, session: None }, login: admitted.login(), at: wall }
    }

    /// The hash by which a session at the issuer is named here (`sid` of OpenID Connect, `SessionIndex` of SAML).
    #[must_use]
    pub fn session(&self, name: &[u8]) -> Hash {
        hash::sha384(labels::EXTERNAL_SUBJECT, &[&self.id.0, b"session", name])
    }

    /// Says that a bind failed, or that an assertion did not verify.
    #[must_use]
    pub const fn refuse(&self) -> Proof {
        Proof::NotVouched(self.kind)
    }
}

/// On whose word a session here rests: it ends when they say that it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Vouched {
    /// Who vouched, and for whom.
    #[n(0)]
    pub link: Link,
    /// The session there, by [`Issuer::session`].
    #[n(1)]
    pub session: Option<Hash>,
}

/// The word of an issuer about one person, now. Not `Clone`, and nothing reads or writes one.
#[derive(Debug)]
pub struct Voucher {
    kind: Factor,
    vouched: Vouched,
    login: LoginId,
    at: Timestamp,
}

impl Voucher {
    /// Names the session at the issuer that it rests on.
    #[must_use]
    pub const fn of_session(mut self, session: Hash) -> Self {
        self.vouched.session = Some(session);
        self
    }

    #[cfg(test)]
    pub(crate) fn sample(issuer: &Issuer, unchanging_id: &[u8], login: LoginId, at: Timestamp) -> Self {
        let vouched = Vouched { link: issuer.link(unchanging_id), session: None };
        Self { kind: issuer.kind, vouched, login, at }
    }

    /// For which sign-in.
    #[must_use]
    pub const fn login(&self) -> LoginId {
        self.login
    }

    /// [`Factor::Directory`] or [`Factor::Sso`].
    #[must_use]
    pub const fn kind(&self) -> Factor {
        self.kind
    }

    /// About whom: the server finds the account by it.
    #[must_use]
    pub const fn link(&self) -> Link {
        self.vouched.link
    }

    /// What a session that comes of it rests on.
    #[must_use]
    pub const fn vouched(&self) -> Vouched {
        self.vouched
    }

    /// When it was given.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_at_two_issuers_is_two_people() {
        let (one, other) = (Issuer::directory(IssuerId([1; 16])), Issuer::sso(IssuerId([2; 16])));
        assert_ne!(one.link(b"guid"), other.link(b"guid"));
        assert_ne!(one.link(b"guid").subject, other.link(b"guid").subject);
        let voucher = Voucher::sample(&other, b"guid", LoginId([1; 16]), Timestamp(7));
        assert_eq!(
            (voucher.kind(), voucher.link(), voucher.at()),
            (Factor::Sso, other.link(b"guid"), Timestamp(7))
        );
    }
}
