//! Byte strings without the identifiers that the reader can derive. A body repeats the hash of the genesis, of keys
//! that stand in the same file, and ids that derive from them: without these repeats a message fits its size budget.
//!
//! A packed string is a list of parts: literal bytes, or the number of a known identifier, which stands for its CBOR
//! encoding. Packing is deterministic and replaces every identifier that it can, and a file is refused if packing its
//! contents again does not give the same file; so there is still one encoding of each evidence.

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder, decode};
use std::collections::HashMap;
use zixt_types::Hash;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Literal(Vec<u8>),
    Known(u32),
}

/// A packed byte string.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Packed(#[n(0)] Vec<Part>);

/// The identifiers that the reader knows, in an order that writer and reader share.
#[derive(Clone, Default)]
pub(super) struct Known {
    list: Vec<Vec<u8>>,
    index: HashMap<Vec<u8>, u32>,
}

impl Known {
    /// Adds an identifier; a repeat changes nothing.
    pub(super) fn add(&mut self, identifier: &[u8]) {
        let encoded = encode(identifier);
        let next = self.list.len() as u32;
        if !self.index.contains_key(&encoded) {
            self.index.insert(encoded.clone(), next);
            self.list.push(encoded);
        }
    }

    /// The known identifier that `bytes` begin with, and its length. `own` is one more than the list has.
    fn at_start_of(&self, bytes: &[u8], own: &[u8]) -> Option<(u32, usize)> {
        let length = match bytes {
            [head @ 0x40..=0x57, ..] => 1 + usize::from(head & 0x1F),
            [0x58, length, ..] => 2 + usize::from(*length),
            _ => return None,
        };
        let found = bytes.get(..length)?;
        let number = self.index.get(found).copied();
        Some((number.or_else(|| (found == own).then_some(self.list.len() as u32))?, length))
    }
}

/// The identifier as a CBOR byte string (RFC 8949 section 3); identifiers have 16 to 48 bytes.
fn encode(identifier: &[u8]) -> Vec<u8> {
    let mut encoded = match identifier.len() {
        length @ 0..=23 => vec![0x40 | length as u8],
        length => vec![0x58, length as u8],
    };
    encoded.extend_from_slice(identifier);
    encoded
}

/// Packs `bytes`. `own` is an identifier that is known in this string only.
pub(super) fn pack(bytes: &[u8], known: &Known, own: Option<&Hash>) -> Packed {
    let own = own.map(|own| encode(own.as_ref())).unwrap_or_default();
    let mut parts = Vec::new();
    let (mut at, mut literal) = (0, 0);
    while at < bytes.len() {
        match known.at_start_of(&bytes[at..], &own) {
            Some((number, length)) => {
                if literal < at {
                    parts.push(Part::Literal(bytes[literal..at].to_vec()));
                }
                parts.push(Part::Known(number));
                at += length;
                literal = at;
            }
            None => at += 1,
        }
    }
    if literal < at {
        parts.push(Part::Literal(bytes[literal..].to_vec()));
    }
    Packed(parts)
}

/// Undoes [`pack`]. `budget` is what all strings of a file together may still unfold to.
pub(super) fn unpack(
    packed: &Packed,
    known: &Known,
    own: Option<&Hash>,
    budget: &mut usize,
) -> Result<Vec<u8>, &'static str> {
    let own = own.map(|own| encode(own.as_ref()));
    let mut bytes = Vec::new();
    for part in &packed.0 {
        let part = match part {
            Part::Literal(literal) => literal,
            Part::Known(number) => {
                let number = *number as usize;
                let own = own.as_ref().filter(|_| number == known.list.len());
                known.list.get(number).or(own).ok_or("it refers to an identifier that it does not give")?
            }
        };
        *budget = budget.checked_sub(part.len()).ok_or("it unfolds to more than an evidence may hold")?;
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

impl<C> Encode<C> for Part {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::Literal(bytes) => e.bytes(bytes)?.ok(),
            Self::Known(number) => e.u32(*number)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Part {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        match d.datatype()? {
            Type::Bytes => Ok(Self::Literal(d.bytes()?.to_vec())),
            _ => Ok(Self::Known(d.u32()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known() -> Known {
        let mut known = Known::default();
        for identifier in [&[1; 48][..], &[2; 16], &[3; 32], &[1; 48]] {
            known.add(identifier);
        }
        known
    }

    #[test]
    fn identifiers_become_numbers() {
        let bytes = minicbor::to_vec((
            7u8,
            minicbor::bytes::ByteVec::from(vec![1; 48]),
            minicbor::bytes::ByteVec::from(vec![2; 16]),
            minicbor::bytes::ByteVec::from(vec![9; 48]),
        ))
        .unwrap();
        let packed = pack(&bytes, &known(), Some(&Hash([9; 48])));
        assert_eq!(packed.0[1..], [Part::Known(0), Part::Known(1), Part::Known(3)]);
        assert_eq!(unpack(&packed, &known(), Some(&Hash([9; 48])), &mut 1000), Ok(bytes));
    }

    #[test]
    fn unfolding_is_bounded() {
        let bomb = Packed(vec![Part::Known(0); 1000]);
        let mut budget = 10_000;
        assert!(unpack(&bomb, &known(), Some(&Hash([9; 48])), &mut budget).is_err());
        assert!(unpack(&Packed(vec![Part::Known(4)]), &known(), Some(&Hash([9; 48])), &mut 1000).is_err());
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(
            parts in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..60),
                    Just([&[0x58, 48][..], &[1; 48]].concat()),
                    Just([&[0x50][..], &[2; 16]].concat()),
                    Just([&[0x58, 32][..], &[3; 20]].concat()),
                ],
                0..20,
            ),
        ) {
            let bytes = parts.concat();
            let packed = pack(&bytes, &known(), Some(&Hash([9; 48])));
            prop_assert_eq!(unpack(&packed, &known(), Some(&Hash([9; 48])), &mut 100_000).unwrap(), bytes);
        }
    }
}
