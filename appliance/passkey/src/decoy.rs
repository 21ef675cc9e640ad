//! Ids of credentials that nobody has: what is asked of an account without passkeys, or of no account at all, looks like
//! what is asked of one with passkeys (section 14.6.2).

use zixt_crypto::{hash, labels};

/// Lengths of ids as common authenticators make them, in bytes.
const LENGTHS: [usize; 4] = [16, 20, 32, 48];
/// Of this many names one has two ids.
const TWO_IN: u8 = 4;

/// The ids of a name, the same each time. `who` is the spelling by which the server looks accounts up, so that an account
/// has the ids that its name had before there was an account.
pub(crate) fn ids(key: &[u8; 32], who: &str) -> Vec<Vec<u8>> {
    let shape = hash::hmac_sha384(key, labels::WEBAUTHN_DECOY, &[b"shape", who.as_bytes()]);
    let count = if shape.0[0].is_multiple_of(TWO_IN) { 2 } else { 1 };
    let length = LENGTHS[usize::from(shape.0[1]) % LENGTHS.len()];
    let id = |number: u8| {
        let id = hash::hmac_sha384(key, labels::WEBAUTHN_DECOY, &[b"id", who.as_bytes(), &[number]]);
        id.0[..length].to_vec()
    };
    (0..count).map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_constant_and_nobody_elses() {
        let key = [7; 32];
        assert_eq!(ids(&key, "ada"), ids(&key, "ada"));
        assert_ne!(ids(&key, "ada"), ids(&key, "eve"));
        assert_ne!(ids(&key, "ada"), ids(&[8; 32], "ada"));
    }

    #[test]
    fn shapes_are_those_of_authenticators() {
        let all: Vec<_> = (0..200).map(|n| ids(&[7; 32], &format!("name {n}"))).collect();
        let counts: BTreeSet<_> = all.iter().map(Vec::len).collect();
        let lengths: BTreeSet<_> = all.iter().flatten().map(Vec::len).collect();
        assert_eq!(counts, BTreeSet::from([1, 2]));
        assert_eq!(lengths, BTreeSet::from(LENGTHS));
        let different: BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(different.len(), all.iter().map(Vec::len).sum::<usize>());
    }
}
