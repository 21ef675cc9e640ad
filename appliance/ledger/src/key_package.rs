//! The little of an MLS key package that says who made it, without linking MLS: the server takes a device's own packages
//! only, and `fsck` looks again.

use zixt_crypto::digest;
use zixt_types::{Hash, SuiteId};

/// The hashes, one for each suite, that the key would have which signs this package. Nothing if it is no package.
pub fn signer(package: &[u8]) -> impl Iterator<Item = Hash> {
    let key = signature_key(package);
    SuiteId::ALL.iter().filter_map(move |suite| Some(digest::key_hash(*suite, key?)))
}

/// `signature_key` of `MLSMessage { version, wire_format, KeyPackage { version, cipher_suite, init_key<V>,
/// LeafNode { encryption_key<V>, signature_key<V>, ..` (RFC 9420 sections 6, 7.2 and 10).
fn signature_key(message: &[u8]) -> Option<&[u8]> {
    const MLS10_KEY_PACKAGE: [u8; 4] = [0, 1, 0, 5];
    let package = message.strip_prefix(&MLS10_KEY_PACKAGE)?;
    let (_versions, rest) = package.split_at_checked(4)?;
    let (_init_key, rest) = vector(rest)?;
    let (_encryption_key, rest) = vector(rest)?;
    Some(vector(rest)?.0)
}

/// A vector and what follows it. Its length comes first, in 1, 2 or 4 bytes as the first two bits say (RFC 9420
/// section 2.1.2).
fn vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let width = match bytes.first()? >> 6 {
        0 => 1,
        1 => 2,
        2 => 4,
        _ => return None,
    };
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0_usize, |all, byte| all << 8 | usize::from(*byte));
    rest.split_at_checked(length & ((1 << (8 * width - 2)) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_and_nothing_else_is_taken_for_a_package() {
        let mut package = vec![0, 1, 0, 5, 0, 1, 0xF0, 0x01];
        package.extend([2, 7, 7]);
        package.extend([&[0x40, 70][..], &[8; 70]].concat());
        package.extend([&[0x80, 0, 7, 160][..], &[9; 1952]].concat());
        assert_eq!(signature_key(&package), Some(&[9; 1952][..]));
        let hash = digest::key_hash(SuiteId::Standard, &[9; 1952]);
        assert!(signer(&package).any(|one| one == hash));
        for length in 0..package.len() {
            assert_eq!(signature_key(&package[..length]), None, "{length}");
        }
        package[3] = 1;
        assert_eq!(signer(&package).count(), 0);
        assert_eq!(vector(&[0xC0, 0, 0, 0, 0, 0, 0, 1, 5]), None);
    }
}
