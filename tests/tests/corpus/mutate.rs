//! Damage to inputs, the same in every run.

/// Marsaglia's generator: a failure is found again by its target, file and number.
pub(crate) struct Xorshift(u64);

impl Xorshift {
    pub(crate) fn from_name(target: &str, file: &str, number: u64) -> Self {
        let bytes = target.bytes().chain([0]).chain(file.bytes()).chain(number.to_le_bytes());
        // FNV-1a.
        let state = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self(state.max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from((self.next() >> 16) % (bound as u64).max(1)).unwrap_or(0)
    }
}

/// Bytes that mean something: CBOR heads with lengths that lie, numbers at the edges, brackets, ends of lines.
const PIECES: &[&[u8]] = &[
    &[0x5B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    &[0x5A, 0x7F, 0xFF, 0xFF, 0xFF],
    &[0x9B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    &[0x9A, 0x00, 0xFF, 0xFF, 0xFF],
    &[0x1B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    &[0x18, 0x01],
    &[0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81],
    &[0x9F],
    &[0xA0],
    &[0xC0],
    &[0xF6],
    &[0xFF, 0xFF, 0xFF, 0xFF],
    &[0x00, 0x00, 0x00, 0x00],
    &[0xBF, 0xFF, 0xFF, 0xFF],
    b"[[[[[[[[[[[[[[[[",
    b"\"\\ud800\"",
    b"18446744073709551616",
    b"-1e999",
    b"null",
    b"\n",
];

/// One to four faults in `input`; `other` lends bytes to it.
pub(crate) fn mutate(input: &[u8], other: &[u8], random: &mut Xorshift) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        // Most of a format stands in its first bytes, most of its bytes are keys and signatures.
        let at = if random.below(3) == 0 { at } else { at.min(random.below(96)) };
        let span = at..(at + 1 + random.below(24)).min(bytes.len());
        match random.below(9) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 if !bytes.is_empty() => bytes[at] = u8::try_from(random.below(256)).unwrap_or(0),
            3 => bytes.truncate(at),
            4 if !bytes.is_empty() => drop(bytes.drain(span)),
            5 if !bytes.is_empty() => {
                let copy = bytes[span].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => {
                let piece = PIECES[random.below(PIECES.len())];
                let end = if random.below(2) == 0 { at } else { (at + piece.len()).min(bytes.len()) };
                bytes.splice(at..end, piece.iter().copied());
            }
            7 => {
                let from = random.below(other.len());
                let length = 1 + random.below(other.len() - from.min(other.len()));
                let end = (from + length).min(other.len());
                bytes.splice(at..bytes.len(), other[from..end].iter().copied());
            }
            _ => bytes.push(u8::try_from(random.below(256)).unwrap_or(0)),
        }
    }
    bytes
}
