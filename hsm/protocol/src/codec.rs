//! One message to bytes and back. Encoded messages may hold a PIN or a key: every buffer here is erased on drop.

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;
use zixt_types::cbor;

/// The version of the protocol that this program speaks.
pub const PROTOCOL_VERSION: u64 = 1;

/// Why bytes were not taken as a message of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not deterministic CBOR, nested too deep, or of another structure.
    #[error(transparent)]
    Cbor(#[from] zixt_types::ParseError),
    /// Deterministic CBOR, but no request or response that this program knows.
    #[error("custody message: {why}")]
    Unknown {
        /// What the decoder found.
        why: String,
    },
    /// Another version of the protocol.
    #[error("the peer speaks version {got} of the custody protocol; this program speaks {PROTOCOL_VERSION}")]
    Version {
        /// The peer's version.
        got: u64,
    },
    /// The message has more items than the structure.
    #[error("custody message: items follow the last field")]
    Surplus,
}

const WHAT: &str = "custody message";

/// The bytes of a request or response.
#[must_use]
pub fn encode<T: Encode<()>>(message: &T) -> Zeroizing<Vec<u8>> {
    // As long as it becomes: a buffer that grows leaves its old bytes behind.
    let mut length = Length(0);
    write(message, &mut length);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    write(message, &mut *bytes);
    bytes
}

fn write<T: Encode<()>, W: minicbor::encode::Write>(message: &T, to: &mut W) {
    let mut encoder = minicbor::Encoder::new(to);
    let written =
        encoder.array(2).and_then(|e| e.u64(PROTOCOL_VERSION)).and_then(|e| e.encode(message)).map(|_| ());
    // Writing to memory cannot fail and no `Encode` of ours returns an error of its own.
    if written.is_err() {
        unreachable!("encoding to memory");
    }
}

/// Counts what is written.
struct Length(usize);

impl minicbor::encode::Write for Length {
    type Error = std::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0 += bytes.len();
        Ok(())
    }
}

/// Reads a request or response that fills `bytes` completely.
///
/// # Errors
/// See [`CodecError`].
pub fn decode<T: Encode<()> + for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, CodecError> {
    cbor::scan(WHAT, bytes)?;
    let unknown = |error: minicbor::decode::Error| CodecError::Unknown { why: error.to_string() };
    let mut decoder = minicbor::Decoder::new(bytes);
    if decoder.array().map_err(unknown)? != Some(2) {
        return Err(CodecError::Unknown { why: "it is not a pair of version and message".to_owned() });
    }
    let got = decoder.u64().map_err(unknown)?;
    if got != PROTOCOL_VERSION {
        return Err(CodecError::Version { got });
    }
    let message: T = decoder.decode().map_err(unknown)?;
    // The decoder skips array items beyond the last field; there is one encoding of every message.
    if encode(&message).as_slice() != bytes {
        return Err(CodecError::Surplus);
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Blob, Card, CustodyError, NamedPin, Pin, Request, Response, VoteOutcome};
    use proptest::prelude::*;
    use zixt_types::{Hash, KeyPurpose, SuiteId};

    fn requests() -> impl Strategy<Value = Request> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..600);
        let pin = || "[a-zA-Z0-9]{4,64}".prop_map(|pin| Pin::new(pin).unwrap());
        prop_oneof![
            Just(Request::Status),
            any::<bool>().prop_map(|lab| Request::Provision { suite: SuiteId::Cnsa, lab }),
            bytes().prop_map(|genesis| Request::BindGenesis { genesis }),
            (pin(), prop::option::of("[a-z]{1,12}"))
                .prop_map(|(pin, protector)| Request::Unlock { pin, protector }),
            (pin(), "[a-z]{1,12}", prop::option::of(bytes()))
                .prop_map(|(pin, name, transcript)| Request::AddProtector { name, pin, transcript }),
            Just(Request::GenerateKey { purpose: KeyPurpose::Consensus }),
            (bytes(), pin(), bytes()).prop_map(|(transcript, pin, kem)| Request::Decide {
                transcript,
                pins: vec![NamedPin { protector: "tpm".to_owned(), pin }],
                cards: vec![Card { officer: Hash([7; 48]), kem }],
            }),
            bytes().prop_map(|backup| Request::BeginRecovery { backup }),
            (bytes(), bytes()).prop_map(|(transcript, release)| Request::FinishRecovery {
                transcript,
                releases: vec![Blob(release)],
            }),
            (pin(), pin()).prop_map(|(old, new)| Request::ChangePin {
                protector: "tpm".to_owned(),
                old,
                new,
            }),
            any::<u64>().prop_map(|from| Request::Decisions { from }),
            any::<[u8; 48]>().prop_map(|backup| Request::BackupKey { backup: Hash(backup) }),
            any::<[u8; 48]>().prop_map(|backup| Request::BackupUnpacked { backup: Hash(backup) }),
            any::<[u8; 32]>().prop_map(|nonce| Request::Quote { nonce }),
            (pin(), prop::option::of(bytes())).prop_map(|(pin, values)| Request::Reseal {
                protector: "tpm".to_owned(),
                pin,
                values,
            }),
            Just(Request::Lock),
            bytes().prop_map(|content| Request::SignTls { content }),
            bytes().prop_map(|vote| Request::SignVote { vote }),
            bytes().prop_map(|body| Request::SignInvite { body }),
            bytes().prop_map(|body| Request::SignRevocation { body }),
            Just(Request::UnsealRowKey),
        ]
    }

    proptest! {
        #[test]
        fn requests_round_trip(request in requests()) {
            let bytes = encode(&request);
            prop_assert_eq!(decode::<Request>(&bytes), Ok(request));
        }

        #[test]
        fn every_truncation_is_refused(request in requests()) {
            let bytes = encode(&request);
            for cut in 0..bytes.len() {
                prop_assert!(decode::<Request>(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn foreign_bytes_are_an_error_not_a_panic(bytes: Vec<u8>) {
            if let Ok(request) = decode::<Request>(&bytes) {
                let again = encode(&request);
                prop_assert_eq!(again.as_slice(), bytes.as_slice());
            }
            let _ = decode::<Response>(&bytes);
        }

        #[test]
        fn a_flipped_byte_never_panics(request in requests(), at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = encode(&request).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = decode::<Request>(&bytes);
        }
    }

    #[test]
    fn responses_round_trip() {
        for response in [
            Response::Locked,
            Response::Vote(VoteOutcome::Signed { signature: vec![1, 2, 3] }),
            Response::Vote(VoteOutcome::AlreadySigned { vote: vec![4], signature: vec![5] }),
            Response::Error(CustodyError::PinBackoff { retry_after_s: 9 }),
        ] {
            assert_eq!(decode::<Response>(&encode(&response)), Ok(response));
        }
    }

    #[test]
    fn surplus_items_other_versions_and_depth_are_refused() {
        // [1, [0, []]] is Status.
        assert_eq!(decode::<Request>(&[0x82, 0x01, 0x82, 0x00, 0x80]), Ok(Request::Status));
        assert_eq!(decode::<Request>(&[0x82, 0x01, 0x82, 0x00, 0x81, 0x00]), Err(CodecError::Surplus));
        assert_eq!(decode::<Request>(&[0x82, 0x02, 0x82, 0x00, 0x80]), Err(CodecError::Version { got: 2 }));
        assert!(matches!(decode::<Request>(&vec![0x81; 70_000]), Err(CodecError::Cbor(_))));
        assert!(decode::<Request>(&[0x82, 0x01, 0x82, 0x18, 0x63, 0x80]).is_err());
    }
}
