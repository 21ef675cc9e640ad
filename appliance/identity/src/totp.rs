//! Time-based one-time passwords (RFC 6238 over RFC 4226), compatible with the usual authenticator apps.

use hmac::{Hmac, KeyInit, Mac};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use std::fmt::{self, Write as _};
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_crypto::RandomError;
use zixt_crypto::hash::constant_time_eq;
use zixt_types::Timestamp;

use crate::policy::{Policy, TotpAlgorithm};
use crate::random::Random;
use crate::secret::base32;

/// Bytes of a new seed: the length of the hash, as RFC 6238 section 5.1 asks for.
const fn seed_bytes(algorithm: TotpAlgorithm) -> usize {
    match algorithm {
        TotpAlgorithm::Sha1 => 20,
        TotpAlgorithm::Sha256 => 32,
        TotpAlgorithm::Sha512 => 64,
    }
}

/// The seed of an authenticator.
#[derive(Clone, PartialEq, Eq)]
struct Seed(Zeroizing<Vec<u8>>);

impl<C> Encode<C> for Seed {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Seed {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.bytes().map(|bytes| Self(Zeroizing::new(bytes.to_vec())))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(redacted)")
    }
}

/// A code as somebody typed it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TotpCode {
    value: u32,
    digits: u8,
}

impl TotpCode {
    /// Reads a code: 6 to 8 digits, spaces where people like them. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 24 {
            return None;
        }
        let mut code = Self { value: 0, digits: 0 };
        for c in text.chars().filter(|c| *c != ' ') {
            code.value = code.value.checked_mul(10)?.checked_add(c.to_digit(10)?)?;
            code.digits += 1;
        }
        (6..=8).contains(&code.digits).then_some(code)
    }
}

impl fmt::Debug for TotpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpCode(redacted)")
    }
}

/// Why a code was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TotpError {
    /// It is not one of the codes of now.
    #[error("the one-time password is wrong")]
    Wrong,
    /// It is right, but it or a later one was used before (RFC 6238 section 5.2).
    #[error("the one-time password was used before")]
    Used,
}

/// An enrolled authenticator: its seed, how it counts, how far its clock is off, and the last step that was used. The
/// seed has to be kept as such (RFC 6238 section 5.1), so the record is only ever stored sealed.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct TotpRecord {
    #[n(0)]
    seed: Seed,
    #[n(1)]
    algorithm: TotpAlgorithm,
    #[n(2)]
    digits: u8,
    #[n(3)]
    period_s: u8,
    /// Steps that the authenticator is ahead of the wall clock, as seen last.
    #[n(4)]
    drift_steps: i8,
    /// The latest step whose code was used.
    #[n(5)]
    used: Option<u64>,
    /// Whether the user has shown that the app has the seed.
    #[n(6)]
    confirmed: bool,
}

impl TotpRecord {
    /// A new authenticator. It counts as a factor once [`Self::confirm`] has seen a code of it.
    ///
    /// # Errors
    /// [`RandomError`]
    pub fn enrol(policy: &Policy, random: &mut dyn Random) -> Result<Self, RandomError> {
        let rules = &policy.totp;
        let mut seed = Zeroizing::new(vec![0; seed_bytes(rules.algorithm)]);
        random.fill(&mut seed)?;
        Ok(Self {
            seed: Seed(seed),
            algorithm: rules.algorithm,
            digits: rules.digits,
            period_s: rules.period_s,
            drift_steps: 0,
            used: None,
            confirmed: false,
        })
    }

    /// What the QR code says (the key URI format of the common apps). Shown once, at enrolment.
    #[must_use]
    pub fn uri(&self, issuer: &str, account: &str) -> Zeroizing<String> {
        let (issuer, account) = (percent(issuer), percent(account));
        let algorithm = match self.algorithm {
            TotpAlgorithm::Sha1 => "SHA1",
            TotpAlgorithm::Sha256 => "SHA256",
            TotpAlgorithm::Sha512 => "SHA512",
        };
        let (secret, digits, period) = (base32(&self.seed.0), self.digits, self.period_s);
        // At its full size from the start, so that growing leaves no copy of the seed.
        let longest = 128 + 2 * issuer.len() + account.len() + secret.len();
        let mut uri = Zeroizing::new(String::with_capacity(longest));
        // Writing to a String cannot fail.
        let _ = write!(
            uri,
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm={algorithm}&digits={digits}\
             &period={period}",
            *secret
        );
        uri
    }

    /// Whether it counts as a factor.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Takes the first code, which ends the enrolment and is used thereby.
    ///
    /// # Errors
    /// [`TotpError`]
    pub fn confirm(&mut self, policy: &Policy, code: TotpCode, wall: Timestamp) -> Result<(), TotpError> {
        let step = self.find(policy, code, wall)?;
        if !self.take(policy, step, wall) {
            return Err(TotpError::Used);
        }
        self.confirmed = true;
        Ok(())
    }

    /// Whether it is the same enrolment, however far it has counted.
    pub(crate) fn is_of_the_seed_of(&self, other: &Self) -> bool {
        constant_time_eq(&self.seed.0, &other.seed.0)
    }

    /// The step whose code this is.
    pub(crate) fn find(&self, policy: &Policy, code: TotpCode, wall: Timestamp) -> Result<u64, TotpError> {
        let expected = i128::from(self.step_of(wall)) + i128::from(self.drift_steps);
        let window = i128::from(policy.totp.window_steps);
        let mut found = None;
        // All of them, whether or not an earlier one matched. If two steps have the same code the later one is taken,
        // so that the same digits are not good a second time.
        for step in (expected - window..=expected + window).filter_map(|step| u64::try_from(step).ok()) {
            let value = hotp(self.algorithm, &self.seed.0, step, self.digits);
            if constant_time_eq(&value.to_be_bytes(), &code.value.to_be_bytes()) && code.digits == self.digits
            {
                found = Some(step);
            }
        }
        match found {
            None => Err(TotpError::Wrong),
            Some(step) if self.used.is_some_and(|used| step <= used) => Err(TotpError::Used),
            Some(step) => Ok(step),
        }
    }

    /// Marks a step as used, unless it or a later one is. Remembers the drift that it shows.
    #[must_use]
    pub(crate) fn take(&mut self, policy: &Policy, step: u64, wall: Timestamp) -> bool {
        if self.used.is_some_and(|used| step <= used) {
            return false;
        }
        let most = i128::from(policy.totp.drift_steps_max);
        let drift = (i128::from(step) - i128::from(self.step_of(wall))).clamp(-most, most);
        self.drift_steps = i8::try_from(drift).unwrap_or(0);
        self.used = Some(step);
        true
    }

    /// RFC 6238 section 4.2, with T0 = 0.
    fn step_of(&self, wall: Timestamp) -> u64 {
        wall.0 / 1_000 / u64::from(self.period_s.max(1))
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.seed.0.len() != seed_bytes(self.algorithm) {
            return Err("a TOTP seed has the length of its hash");
        }
        if !(6..=8).contains(&self.digits) || !(15..=60).contains(&self.period_s) {
            return Err("a TOTP code has 6 to 8 digits and a step 15 to 60 seconds");
        }
        if !(-60..=60).contains(&self.drift_steps) {
            return Err("a TOTP drift has at most 60 steps");
        }
        Ok(())
    }
}

/// RFC 4226 section 5.3: dynamic truncation, then the last digits.
fn hotp(algorithm: TotpAlgorithm, seed: &[u8], counter: u64, digits: u8) -> u32 {
    let counter = counter.to_be_bytes();
    let mac = match algorithm {
        TotpAlgorithm::Sha1 => mac::<Hmac<Sha1>>(seed, &counter),
        TotpAlgorithm::Sha256 => mac::<Hmac<Sha256>>(seed, &counter),
        TotpAlgorithm::Sha512 => mac::<Hmac<Sha512>>(seed, &counter),
    };
    let offset = usize::from(mac.last().copied().unwrap_or(0) & 15);
    let word = mac.iter().skip(offset).take(4).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
    (word & 0x7FFF_FFFF) % 10u32.pow(u32::from(digits.min(9)))
}

fn mac<M: Mac + KeyInit>(seed: &[u8], message: &[u8]) -> Zeroizing<Vec<u8>> {
    match <M as KeyInit>::new_from_slice(seed) {
        Ok(mut mac) => {
            mac.update(message);
            Zeroizing::new(mac.finalize().into_bytes().to_vec())
        }
        Err(_) => unreachable!("HMAC takes keys of any length (RFC 2104, Section 3)"),
    }
}

/// RFC 3986 section 2.1, of everything but unreserved characters.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::policy::PolicyDocument;
    use proptest::prelude::*;

    fn policy() -> Policy {
        Policy::new(PolicyDocument::default()).unwrap()
    }

    /// The code that the app shows.
    pub(crate) fn shown(record: &TotpRecord, wall: Timestamp) -> TotpCode {
        let value = hotp(record.algorithm, &record.seed.0, record.step_of(wall), record.digits);
        TotpCode { value, digits: record.digits }
    }

    pub(crate) fn enrolled(random: &mut dyn Random) -> TotpRecord {
        let mut record = TotpRecord::enrol(&policy(), random).unwrap();
        record.confirmed = true;
        record
    }

    fn record(seed: &[u8], algorithm: TotpAlgorithm, digits: u8) -> TotpRecord {
        TotpRecord {
            seed: Seed(Zeroizing::new(seed.to_vec())),
            algorithm,
            digits,
            period_s: 30,
            drift_steps: 0,
            used: None,
            confirmed: true,
        }
    }

    /// RFC 4226, appendix D.
    #[test]
    fn hotp_vectors() {
        let codes = [755224, 287082, 359152, 969429, 338314, 254676, 287922, 162583, 399871, 520489];
        for (counter, code) in codes.into_iter().enumerate() {
            assert_eq!(hotp(TotpAlgorithm::Sha1, b"12345678901234567890", counter as u64, 6), code);
        }
    }

    /// RFC 6238, appendix B, with the seeds of its erratum 2866: the digits repeated to the hash's length.
    #[test]
    fn totp_vectors() {
        let table: [(u64, [&str; 3]); 6] = [
            (59, ["94287082", "46119246", "90693936"]),
            (1_111_111_109, ["07081804", "68084774", "25091201"]),
            (1_111_111_111, ["14050471", "67062674", "99943326"]),
            (1_234_567_890, ["89005924", "91819424", "93441116"]),
            (2_000_000_000, ["69279037", "90698825", "38618901"]),
            (20_000_000_000, ["65353130", "77737706", "47863826"]),
        ];
        let seed: Vec<u8> = b"1234567890".iter().copied().cycle().take(64).collect();
        for (seconds, codes) in table {
            let algorithms = [TotpAlgorithm::Sha1, TotpAlgorithm::Sha256, TotpAlgorithm::Sha512];
            for (algorithm, code) in algorithms.into_iter().zip(codes) {
                let record = record(&seed[..seed_bytes(algorithm)], algorithm, 8);
                let code = TotpCode::parse(code).unwrap();
                let wall = Timestamp(seconds * 1_000);
                assert_eq!(shown(&record, wall), code);
                assert_eq!(record.find(&policy(), code, wall), Ok(seconds / 30));
            }
        }
    }

    #[test]
    fn each_step_is_used_once_and_time_goes_forward() {
        let policy = policy();
        let mut record = record(b"12345678901234567890", TotpAlgorithm::Sha1, 6);
        let at = Timestamp(1_000_000_000);
        let code = shown(&record, at);
        let before = shown(&record, Timestamp(at.0 - 30_000));
        let step = record.find(&policy, code, at).unwrap();
        assert!(record.take(&policy, step, at));
        assert!(!record.take(&policy, step, at));
        assert_eq!(record.find(&policy, code, at), Err(TotpError::Used));
        // The one before is in the window, and over as well.
        assert_eq!(record.find(&policy, before, at), Err(TotpError::Used));
        assert_eq!(
            record.find(&policy, TotpCode { value: code.value ^ 1, digits: 6 }, at),
            Err(TotpError::Wrong)
        );
    }

    #[test]
    fn a_clock_that_runs_slow_is_followed() {
        let policy = policy();
        let mut record = record(b"12345678901234567890", TotpAlgorithm::Sha1, 6);
        // The phone loses a step each day: without memory the second day would be beyond the window.
        for day in 0..8u64 {
            let wall = Timestamp(1_000_000_000 + day * 86_400_000);
            let code = shown(&record, Timestamp(wall.0 - day * 30_000));
            let step = record.find(&policy, code, wall).unwrap();
            assert!(record.take(&policy, step, wall));
            assert_eq!(record.drift_steps, -i8::try_from(day).unwrap());
        }
    }

    #[test]
    fn the_uri_is_what_apps_read() {
        let record = record(b"12345678901234567890", TotpAlgorithm::Sha1, 6);
        assert_eq!(
            *record.uri("Zixt Lab", "alice@zixt"),
            "otpauth://totp/Zixt%20Lab:alice%40zixt?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Zixt%20Lab\
             &algorithm=SHA1&digits=6&period=30"
        );
        assert!(!format!("{record:?}").contains("49"), "{record:?}");
    }

    #[test]
    fn enrolment_needs_a_code() {
        let policy = policy();
        let mut n = 0;
        let mut random = |out: &mut [u8]| {
            n += 1;
            out.fill(n);
            Ok(())
        };
        let mut record = TotpRecord::enrol(&policy, &mut random).unwrap();
        let at = Timestamp(5_000_000);
        assert!(!record.is_confirmed());
        let code = shown(&record, at);
        assert_eq!(record.confirm(&policy, code, at), Ok(()));
        assert!(record.is_confirmed());
        assert_eq!(record.confirm(&policy, code, at), Err(TotpError::Used));
        assert_eq!(record.check(), Ok(()));
    }

    proptest! {
        #[test]
        fn any_text_is_a_code_or_none(text: String, number in 0u32..100_000_000) {
            let _ = TotpCode::parse(&text);
            let text = format!("{number:08}");
            prop_assert_eq!(TotpCode::parse(&text), Some(TotpCode { value: number, digits: 8 }));
        }

        #[test]
        fn any_time_is_borne(wall: u64, value: u32, drift: i8, used: Option<u64>) {
            let mut record = record(b"12345678901234567890", TotpAlgorithm::Sha1, 6);
            (record.drift_steps, record.used) = (drift, used);
            let _ = record.find(&policy(), TotpCode { value, digits: 6 }, Timestamp(wall));
            let _ = record.take(&policy(), u64::from(value), Timestamp(wall));
        }
    }
}
