//! What an authenticator signs: its data (section 6.1), the attestation object around it (section 6.5.4) and the public
//! key inside of it (RFC 9052 section 7, restricted by section 6.5.1.1).
//!
//! This reads structure alone, to the last byte; what does not fit the form is refused, also where the second verifier
//! would let it through: bytes behind the end, keys of another curve than the algorithm's, parameters that do not belong.

use minicbor::Decoder;
use minicbor::data::Type;
use zixt_types::limits;

use crate::kept::{Algorithm, Attestation};
use crate::refused::Refused;
use crate::relying_party::RelyingParty;

const USER_PRESENT: u8 = 1 << 0;
const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKUP_STATE: u8 = 1 << 4;
const ATTESTED: u8 = 1 << 6;
const EXTENSIONS: u8 = 1 << 7;

/// Outputs of extensions. None is asked for; browsers and authenticators add some unasked (`credProtect`), which have few
/// bytes.
const EXTENSION_BYTES_MAX: usize = 1024;
/// Maps and lists inside of each other.
const DEPTH_MAX: usize = 4;
/// A signature: RSA of 2048 bits has 256 bytes, ECDSA with P-384 at most 104.
pub(crate) const SIGNATURE_BYTES_MAX: usize = 256;

/// Taken apart.
#[derive(Debug)]
pub(crate) struct AuthenticatorData<'a> {
    rp_id_hash: &'a [u8; 32],
    flags: u8,
    pub(crate) attested: Option<Attested<'a>>,
}

/// A new credential (section 6.5.1).
#[derive(Debug)]
pub(crate) struct Attested<'a> {
    pub(crate) aaguid: [u8; 16],
    pub(crate) id: &'a [u8],
    pub(crate) algorithm: Algorithm,
}

impl<'a> AuthenticatorData<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Refused> {
        let cut_off = || Refused::NotAuthenticatorData;
        let (rp_id_hash, rest) = bytes.split_first_chunk::<32>().ok_or_else(cut_off)?;
        let (&flags, rest) = rest.split_first().ok_or_else(cut_off)?;
        // The counter is the second verifier's to read.
        let (_, mut rest) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let mut attested = None;
        if flags & ATTESTED != 0 {
            let (aaguid, after) = rest.split_first_chunk::<16>().ok_or_else(cut_off)?;
            let (length, after) = after.split_first_chunk::<2>().ok_or_else(cut_off)?;
            let length = usize::from(u16::from_be_bytes(*length));
            if length == 0 || length > limits::WEBAUTHN_ID_BYTES_MAX {
                return Err(cut_off());
            }
            let (id, after) = after.split_at_checked(length).ok_or_else(cut_off)?;
            let (key, after) = item(after).ok_or_else(cut_off)?;
            attested = Some(Attested { aaguid: *aaguid, id, algorithm: algorithm_of(key)? });
            rest = after;
        }
        if flags & EXTENSIONS != 0 {
            let (extensions, after) = item(rest).ok_or_else(cut_off)?;
            let is_map = matches!(Decoder::new(extensions).datatype(), Ok(Type::Map));
            if !is_map || extensions.len() > EXTENSION_BYTES_MAX {
                return Err(cut_off());
            }
            rest = after;
        }
        if rest.is_empty() { Ok(Self { rp_id_hash, flags, attested }) } else { Err(cut_off()) }
    }

    /// Sections 7.1 and 7.2, steps about the authenticator's data, and our own: keys that leave their authenticator are
    /// not taken (SP 800-63B-4 section 2.3: non-exportable keys).
    pub(crate) fn check(&self, party: &RelyingParty) -> Result<(), Refused> {
        if self.rp_id_hash != party.id_hash() {
            return Err(Refused::OtherRelyingParty);
        }
        if self.flags & USER_PRESENT == 0 {
            return Err(Refused::UserNotPresent);
        }
        if self.flags & USER_VERIFIED == 0 {
            return Err(Refused::UserNotVerified);
        }
        if self.flags & (BACKUP_ELIGIBLE | BACKUP_STATE) != 0 {
            return Err(Refused::Synchronised);
        }
        Ok(())
    }
}

/// The authenticator's data inside of an attestation object, and what else is in that. Its other members are those that
/// belong there and no others.
pub(crate) fn attestation_object(bytes: &[u8]) -> Result<(&[u8], Attestation), Refused> {
    let malformed = |_| Refused::NotAnAttestation;
    let mut decoder = Decoder::new(bytes);
    if decoder.map().map_err(malformed)? != Some(3) {
        return Err(Refused::NotAnAttestation);
    }
    let (mut format, mut statement, mut data) = (None, None, None);
    for _ in 0..3 {
        let first = match decoder.str().map_err(malformed)? {
            "fmt" => format.replace(decoder.str().map_err(malformed)?).is_none(),
            "attStmt" => {
                let from = decoder.position();
                skip(&mut decoder, DEPTH_MAX).ok_or(Refused::NotAnAttestation)?;
                statement.replace(&bytes[from..decoder.position()]).is_none()
            }
            "authData" => data.replace(decoder.bytes().map_err(malformed)?).is_none(),
            _ => false,
        };
        if !first {
            return Err(Refused::NotAnAttestation);
        }
    }
    let (Some(format), Some(statement), Some(data)) = (format, statement, data) else {
        return Err(Refused::NotAnAttestation);
    };
    if decoder.position() != bytes.len() {
        return Err(Refused::NotAnAttestation);
    }
    // A statement of the maker comes with certificates. None was asked for, so none is parsed.
    let attestation = match (format, members(statement)?.as_slice()) {
        ("none", []) => Attestation::None,
        ("packed", ["alg", "sig"] | ["sig", "alg"]) => Attestation::OwnKey,
        _ => return Err(Refused::AttestationNotAsked),
    };
    Ok((data, attestation))
}

/// The names of the members of a statement. One with more members than any that is taken has names of no interest.
fn members(statement: &[u8]) -> Result<Vec<&str>, Refused> {
    let malformed = |_| Refused::NotAnAttestation;
    let mut decoder = Decoder::new(statement);
    let count = decoder.map().map_err(malformed)?.ok_or(Refused::NotAnAttestation)?;
    if count > 2 {
        return Err(Refused::AttestationNotAsked);
    }
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(decoder.str().map_err(malformed)?);
        skip(&mut decoder, DEPTH_MAX).ok_or(Refused::NotAnAttestation)?;
    }
    Ok(names)
}

/// The first item of CBOR, and what is behind it.
fn item(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut decoder = Decoder::new(bytes);
    skip(&mut decoder, DEPTH_MAX)?;
    bytes.split_at_checked(decoder.position())
}

/// Goes past one item. Authenticators write neither tags nor lengths that are not said at the beginning, and nest at most
/// [`DEPTH_MAX`] deep (CTAP 2.1 section 8).
fn skip(decoder: &mut Decoder<'_>, depth_left: usize) -> Option<()> {
    // An item has at least one byte, so no count makes this longer than what came.
    let items = match decoder.datatype().ok()? {
        Type::Map => decoder.map().ok()??.checked_mul(2)?,
        Type::Array => decoder.array().ok()??,
        Type::MapIndef | Type::ArrayIndef | Type::BytesIndef | Type::StringIndef | Type::Tag => return None,
        _ => return decoder.skip().ok(),
    };
    let depth_left = depth_left.checked_sub(1)?;
    (0..items).try_for_each(|_| skip(decoder, depth_left))
}

/// The algorithm of a public key that has exactly the parameters of its kind (section 6.5.1.1). Whether the numbers are a
/// key, the second verifier finds out.
fn algorithm_of(key: &[u8]) -> Result<Algorithm, Refused> {
    let malformed = |_| Refused::NotAKey;
    let mut decoder = Decoder::new(key);
    // The largest has kind, algorithm, curve and two coordinates.
    let count = decoder.map().map_err(malformed)?.filter(|count| *count <= 5).ok_or(Refused::NotAKey)?;
    let (mut kind, mut number, mut curve) = (None, None, None);
    let (mut first, mut second, mut third) = (None, None, None);
    // The label -1 is a curve, or the modulus of an RSA key.
    for _ in 0..count {
        let once = match decoder.i64().map_err(malformed)? {
            1 => kind.replace(decoder.i64().map_err(malformed)?).is_none(),
            3 => number.replace(decoder.i64().map_err(malformed)?).is_none(),
            -1 if matches!(decoder.datatype(), Ok(Type::Bytes)) => {
                first.replace(decoder.bytes().map_err(malformed)?).is_none()
            }
            -1 => curve.replace(decoder.i64().map_err(malformed)?).is_none(),
            -2 => second.replace(decoder.bytes().map_err(malformed)?).is_none(),
            -3 => third.replace(decoder.bytes().map_err(malformed)?).is_none(),
            _ => false,
        };
        if !once {
            return Err(Refused::NotAKey);
        }
    }
    // Kinds: 2 is EC2, 3 is RSA. Curves: 1 is P-256, 2 is P-384. To each algorithm belongs one curve (section 5.8.5).
    match (number, kind, curve, first, second, third, count) {
        (Some(-7), Some(2), Some(1), None, Some(x), Some(y), 5) if x.len() == 32 && y.len() == 32 => {
            Ok(Algorithm::Es256)
        }
        (Some(-35), Some(2), Some(2), None, Some(x), Some(y), 5) if x.len() == 48 && y.len() == 48 => {
            Ok(Algorithm::Es384)
        }
        (Some(-257), Some(3), None, Some(n), Some(e), None, 4) => {
            // 2048 bits to the last, and the exponent that everybody has (FIPS 186-5 section 5.4).
            let sound = n.len() == 256 && n[0] & 0x80 != 0 && n[255] & 1 == 1 && *e == [1, 0, 1];
            if sound { Ok(Algorithm::Rs256) } else { Err(Refused::NotAKey) }
        }
        (Some(_), Some(_), ..) => Err(Refused::OtherAlgorithm),
        _ => Err(Refused::NotAKey),
    }
}
