//! What a directory's answer to a sign-in means.

use std::fmt;

use thiserror::Error;

use crate::config::Kind;
use crate::wire::{LdapResult, PasswordState};

/// Why somebody was not let in. For the audit record alone: whoever signs in hears one answer for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No password. It never reached the directory.
    EmptyPassword,
    /// A password that is longer than any is taken. It never reached the directory.
    TooLong,
    /// A password with a NUL in it, behind which some directories do not look. It never reached the directory.
    Nul,
    /// Nobody signs in under this name.
    UnknownLogin,
    /// Several entries have this name, or one entry has several.
    SharedLogin,
    /// The entry has no id that can be used.
    NoId,
    /// The password is wrong; or whatever else the directory calls so.
    WrongPassword,
    /// The directory has disabled the account.
    Disabled,
    /// The account is over.
    Expired,
    /// The password is over. The directory wants another one first.
    PasswordExpired,
    /// The directory wants another password first.
    MustChangePassword,
    /// Too many wrong passwords, as the directory counts.
    LockedThere,
    /// Not at this hour, or not from here.
    NotNow,
    /// The directory refuses for a reason of its own.
    Other {
        /// The result's code (RFC 4511 section 4.1.9).
        code: u32,
    },
}

impl Refusal {
    /// The word for it in the audit record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EmptyPassword => "empty-password",
            Self::TooLong => "password-too-long",
            Self::Nul => "password-with-nul",
            Self::UnknownLogin => "unknown-login",
            Self::SharedLogin => "shared-login",
            Self::NoId => "no-id",
            Self::WrongPassword => "wrong-password",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::PasswordExpired => "password-expired",
            Self::MustChangePassword => "must-change-password",
            Self::LockedThere => "locked-there",
            Self::NotNow => "not-now",
            Self::Other { .. } => "other",
        }
    }
}

/// A refusal, as it is handed on: it says nothing, and prints nothing, unless it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Error)]
#[error("the directory does not accept this name and password")]
pub struct Refused(Refusal);

impl Refused {
    pub(crate) const fn because(refusal: Refusal) -> Self {
        Self(refusal)
    }

    /// Why. For the audit record alone.
    #[must_use]
    pub const fn reason(&self) -> Refusal {
        self.0
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refused")
    }
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused(Refusal),
    /// This server has no opinion; another one may.
    CannotSay,
}

/// Reads the answer to a sign-in. Only code 0 lets anybody in.
pub(crate) fn verdict(kind: Kind, result: &LdapResult) -> Verdict {
    match result.code {
        0 => match result.password {
            PasswordState::Good => Verdict::Accepted,
            PasswordState::Expired => Verdict::Refused(Refusal::PasswordExpired),
            PasswordState::MustChange => Verdict::Refused(Refusal::MustChangePassword),
        },
        // inappropriateAuthentication (it has no password), invalidCredentials, and noSuchObject from those who tell.
        32 | 48 | 49 => Verdict::Refused(match kind {
            Kind::ActiveDirectory => active_directory(&result.diagnostic),
            Kind::Ldap => Refusal::WrongPassword,
        }),
        // constraintViolation: 389 Directory Server's lockout. insufficientAccessRights, unwillingToPerform: an account that
        // was made inactive.
        19 => Verdict::Refused(Refusal::LockedThere),
        code @ (50 | 53) => Verdict::Refused(Refusal::Other { code }),
        // A referral is not followed, and busy, unavailable, a broken protocol or a demand for another way of signing in
        // say nothing about the password.
        _ => Verdict::CannotSay,
    }
}

/// Active Directory has one code for all, and the reason in its words: `…, data 533, …` with a Windows error in
/// hexadecimal ([MS-ERREF] section 2.2).
fn active_directory(diagnostic: &str) -> Refusal {
    let code = diagnostic
        .split("data ")
        .nth(1)
        .and_then(|rest| u32::from_str_radix(rest.split(',').next().unwrap_or_default().trim(), 16).ok());
    match code {
        Some(0x525) => Refusal::UnknownLogin,
        Some(0x530 | 0x531) => Refusal::NotNow,
        Some(0x532) => Refusal::PasswordExpired,
        Some(0x533) => Refusal::Disabled,
        Some(0x701) => Refusal::Expired,
        Some(0x773) => Refusal::MustChangePassword,
        Some(0x775) => Refusal::LockedThere,
        _ => Refusal::WrongPassword,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, code: u32, diagnostic: &str) -> Verdict {
        said(kind, code, diagnostic, PasswordState::Good)
    }

    fn said(kind: Kind, code: u32, diagnostic: &str, password: PasswordState) -> Verdict {
        verdict(kind, &LdapResult { code, diagnostic: diagnostic.into(), password })
    }

    #[test]
    fn only_success_lets_anybody_in() {
        for kind in [Kind::Ldap, Kind::ActiveDirectory] {
            for code in 0..200 {
                assert_eq!(of(kind, code, "") == Verdict::Accepted, code == 0, "{code}");
            }
        }
        for kind in [Kind::Ldap, Kind::ActiveDirectory] {
            let expired = said(kind, 0, "", PasswordState::Expired);
            assert_eq!(expired, Verdict::Refused(Refusal::PasswordExpired));
            let must_change = said(kind, 0, "", PasswordState::MustChange);
            assert_eq!(must_change, Verdict::Refused(Refusal::MustChangePassword));
        }
        assert_eq!(of(Kind::Ldap, 51, ""), Verdict::CannotSay);
        assert_eq!(of(Kind::Ldap, 10, ""), Verdict::CannotSay, "a referral");
        assert_eq!(of(Kind::Ldap, 53, ""), Verdict::Refused(Refusal::Other { code: 53 }));
    }

    #[test]
    fn what_active_directory_says() {
        let text = |code: &str| format!("80090308: LdapErr: DSID-0C09044E, comment: x, data {code}, v2580");
        for (code, refusal) in [
            ("52e", Refusal::WrongPassword),
            ("525", Refusal::UnknownLogin),
            ("530", Refusal::NotNow),
            ("532", Refusal::PasswordExpired),
            ("533", Refusal::Disabled),
            ("701", Refusal::Expired),
            ("773", Refusal::MustChangePassword),
            ("775", Refusal::LockedThere),
            ("", Refusal::WrongPassword),
        ] {
            assert_eq!(of(Kind::ActiveDirectory, 49, &text(code)), Verdict::Refused(refusal), "{code}");
            assert_eq!(of(Kind::Ldap, 49, &text(code)), Verdict::Refused(Refusal::WrongPassword), "{code}");
        }
    }

    #[test]
    fn a_refusal_prints_no_reason() {
        let all = [Refusal::UnknownLogin, Refusal::WrongPassword, Refusal::Disabled].map(Refused::because);
        let texts: Vec<String> = all.iter().map(|refused| format!("{refused} {refused:?}")).collect();
        assert!(texts.windows(2).all(|pair| pair[0] == pair[1]));
        assert!(texts[0].starts_with("the directory does not accept"));
        assert_eq!(all[2].reason().name(), "disabled");
    }
}
