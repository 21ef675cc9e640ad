//! From an entry of a directory to a person.

use zixt_crypto::{hash, labels};
use zixt_types::Timestamp;

use crate::config::{Attributes, Config, IdSyntax, Kind};
use crate::connection::Entry;
use crate::limits;
use crate::refusal::Refusal;
use crate::snapshot::{Person, PersonId, Wanted};
use crate::wire::printable;

/// Bit of `userAccountControl`: the account is disabled ([MS-ADTS] section 2.2.16).
const ACCOUNT_DISABLE: u64 = 2;
/// 1601-01-01, from which Active Directory counts, before 1970-01-01.
const FILETIME_EPOCH_MS: u64 = 11_644_473_600_000;
const DAY_MS: u64 = 86_400_000;

/// The attributes that are asked for to know everything of a person.
pub(crate) fn attributes(config: &Config) -> Vec<&str> {
    let Attributes { id, login, name, mail, version, .. } = &config.attributes;
    let mut all = vec![id.as_str(), login, name, mail, version];
    all.extend(match config.kind {
        Kind::ActiveDirectory => &["userAccountControl", "accountExpires"][..],
        Kind::Ldap => &[
            "pwdAccountLockedTime",
            "pwdReset",
            "shadowExpire",
            "nsAccountLock",
            "loginDisabled",
            "pwdEndTime",
            "krbPrincipalExpiration",
            "krbPasswordExpiration",
            "passwordExpirationTime",
        ],
    });
    all
}

/// Everything of a person. `None` if the entry has no usable id, or no usable name of its own: without them it is nobody.
pub(crate) fn read(entry: &Entry, config: &Config, now: Timestamp) -> Option<Person> {
    let text = |name: &str| entry.value(name).and_then(|value| std::str::from_utf8(value).ok());
    let first = |name: &str| {
        let values = entry.values(name);
        values.first().and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default().to_owned()
    };
    let login = text(&config.attributes.login)
        .filter(|login| login.len() <= limits::LOGIN_BYTES_MAX && !login.chars().any(char::is_control))
        .unwrap_or_default();
    let mail = first(&config.attributes.mail);
    let (disabled, expires) = access(entry, config.kind);
    Some(Person {
        id: id(entry, config)?,
        version: version(entry, config, now),
        dn: dn(entry)?.into(),
        login: login.into(),
        name: printable(&first(&config.attributes.name), limits::NAME_BYTES_MAX).into(),
        mail: if mail.len() <= limits::MAIL_BYTES_MAX {
            printable(&mail, limits::MAIL_BYTES_MAX)
        } else {
            String::new()
        }
        .into(),
        disabled,
        expires,
        wanted: Wanted::default(),
    })
}

pub(crate) fn dn(entry: &Entry) -> Option<&str> {
    Some(entry.dn()).filter(|dn| !dn.is_empty() && dn.len() <= limits::DN_BYTES_MAX)
}

/// The id that never changes. Several values are none.
pub(crate) fn id(entry: &Entry, config: &Config) -> Option<PersonId> {
    let value = entry.value(&config.attributes.id)?;
    match config.attributes.id_syntax {
        IdSyntax::Octets => PersonId::new(value),
        IdSyntax::Uuid => PersonId::new(&uuid(value)?),
    }
}

fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let dashes = [8, 13, 18, 23];
    if text.len() != 36 || dashes.into_iter().any(|at| text[at] != b'-') {
        return None;
    }
    let digits: Vec<u8> = text
        .iter()
        .enumerate()
        .filter(|(at, _)| !dashes.contains(at))
        .map(|(_, byte)| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    Some(std::array::from_fn(|at| digits[2 * at] << 4 | digits[2 * at + 1]))
}

/// The part of a filter that finds an id, escaped byte by byte.
pub(crate) fn id_filter(id: &PersonId, config: &Config) -> String {
    use std::fmt::Write as _;
    let mut value = String::new();
    for (at, byte) in id.as_bytes().iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = match config.attributes.id_syntax {
            IdSyntax::Octets => write!(value, "\\{byte:02x}"),
            IdSyntax::Uuid => {
                let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
                write!(value, "{dash}{byte:02x}")
            }
        };
    }
    format!("({}={value})", config.attributes.id)
}

/// Tells versions of an entry apart. 0, so that it is read again next time, where it has none, or where the entry may
/// change again within the same second as this version's time.
pub(crate) fn version(entry: &Entry, config: &Config, now: Timestamp) -> u64 {
    let Some(value) = entry.value(&config.attributes.version) else { return 0 };
    if config.attributes.version.eq_ignore_ascii_case("modifyTimestamp") {
        let settled = now.0.saturating_sub(limits::CLOCKS_DIFFER_S_MAX * 1_000);
        if generalized_time(value).is_none_or(|changed| changed.0 > settled) {
            return 0;
        }
    }
    let hash = hash::sha384(labels::DIRECTORY_ENTRY, &[value]);
    let short = hash.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    short.max(1)
}

/// Whether the directory wants another password first, and yet accepts this one: OpenLDAP, 389 Directory Server and FreeIPA
/// do, and then refuse everything else. Active Directory refuses at once.
pub(crate) fn of_password(entry: &Entry, kind: Kind, now: Timestamp) -> Option<Refusal> {
    if kind != Kind::Ldap {
        return None;
    }
    if entry.values("pwdReset").iter().any(|value| value.eq_ignore_ascii_case(b"true")) {
        return Some(Refusal::MustChangePassword);
    }
    let over = earliest(entry, &["krbPasswordExpiration", "passwordExpirationTime"]) <= now;
    over.then_some(Refusal::PasswordExpired)
}

/// The first of the times that these attributes have. What is no time is over: it was meant to end something.
fn earliest(entry: &Entry, names: &[&str]) -> Timestamp {
    let times = names.iter().flat_map(|name| entry.values(name));
    times.map(|value| generalized_time(value).unwrap_or(Timestamp(0))).min().unwrap_or(Person::NEVER)
}

/// Whether an entry says that access is over, and from when on.
fn access(entry: &Entry, kind: Kind) -> (bool, Timestamp) {
    let number = |name: &str| {
        let value = entry.values(name);
        value.first().and_then(|value| std::str::from_utf8(value).ok()).map(str::parse::<i64>)
    };
    match kind {
        Kind::ActiveDirectory => {
            let disabled = match number("userAccountControl") {
                Some(Ok(flags)) => flags as u64 & ACCOUNT_DISABLE != 0,
                // Every account has it. Who may not read it sees nobody as enabled, rather than everybody.
                Some(Err(_)) | None => true,
            };
            let expires = match number("accountExpires") {
                // Both mean never ([MS-ADA1] section 2.2).
                None | Some(Ok(0 | i64::MAX)) => Person::NEVER,
                Some(Ok(time)) => {
                    let ms = u64::try_from(time).unwrap_or(0) / 10_000;
                    Timestamp(ms.saturating_sub(FILETIME_EPOCH_MS))
                }
                Some(Err(_)) => Timestamp(0),
            };
            (disabled, expires)
        }
        Kind::Ldap => {
            let is_true =
                |name: &str| entry.values(name).iter().any(|value| value.eq_ignore_ascii_case(b"true"));
            // The one time that means: until somebody unlocks it. Others are lockouts after wrong passwords, which anybody
            // could bring about for everybody.
            let locked =
                entry.values("pwdAccountLockedTime").iter().any(|value| value.starts_with(b"000001010000"));
            let expires = match number("shadowExpire") {
                None | Some(Ok(-1)) => Person::NEVER,
                Some(Ok(days)) => Timestamp(u64::try_from(days).unwrap_or(0).saturating_mul(DAY_MS)),
                Some(Err(_)) => Timestamp(0),
            };
            let ends = earliest(entry, &["krbPrincipalExpiration", "pwdEndTime"]);
            (locked || is_true("nsAccountLock") || is_true("loginDisabled"), expires.min(ends))
        }
    }
}

/// Generalised time in UTC (RFC 4517 section 3.3.13), to the second: `20261128010000Z`, with or without a fraction.
fn generalized_time(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?.strip_suffix('Z')?;
    let text = text.split(['.', ',']).next()?;
    if text.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<u64>().ok());
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-01-01 in the Gregorian calendar, years beginning with March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let since = days.checked_sub(719_468)?;
    Some(Timestamp(since * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000))
}

#[cfg(test)]
#[path = "person_tests.rs"]
mod tests;
