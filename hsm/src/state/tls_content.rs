//! The content covered by CertificateVerify (RFC 8446 section 4.4.3), read before it is signed.

use zixt_types::Hash;

/// Bytes of 0x20 in front.
const PADDING_BYTES: usize = 64;
/// Only the server's: a client's handshake is signed by a client's key.
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify";

/// The content of a TLS 1.3 server whose cipher suite hashes with SHA-384.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificateVerify {
    transcript: Hash,
}

impl ServerCertificateVerify {
    /// Reads the content; the error says what was expected.
    ///
    /// # Errors
    /// What is not as RFC 8446 has it.
    pub fn parse(content: &[u8]) -> Result<Self, &'static str> {
        let (padding, rest) =
            content.split_at_checked(PADDING_BYTES).ok_or("it is shorter than its padding")?;
        if padding.iter().any(|byte| *byte != 0x20) {
            return Err("it does not start with 64 bytes of 0x20");
        }
        let rest = rest.strip_prefix(CONTEXT).ok_or("the context string is not that of a TLS 1.3 server")?;
        let transcript = rest.strip_prefix(&[0]).ok_or("no zero byte follows the context string")?;
        let transcript =
            Hash::try_from(transcript).map_err(|_| "the transcript hash is not one of SHA-384")?;
        Ok(Self { transcript })
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[0x20; PADDING_BYTES][..], CONTEXT, &[0], self.transcript.as_ref()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good() -> Vec<u8> {
        ServerCertificateVerify { transcript: Hash([0xAB; 48]) }.to_bytes()
    }

    #[test]
    fn only_the_servers_content_is_read() {
        let content = good();
        assert_eq!(content.len(), 64 + 33 + 1 + 48);
        assert_eq!(ServerCertificateVerify::parse(&content).unwrap().to_bytes(), content);
        let client = [&[0x20; 64][..], b"TLS 1.3, client CertificateVerify", &[0], &[0xAB; 48]].concat();
        assert!(ServerCertificateVerify::parse(&client).is_err());
        for cut in 0..content.len() {
            assert!(ServerCertificateVerify::parse(&content[..cut]).is_err());
        }
        assert!(ServerCertificateVerify::parse(&[&content[..], &[0]].concat()).is_err());
        for at in 0..98 {
            let mut changed = content.clone();
            changed[at] ^= 1;
            assert!(ServerCertificateVerify::parse(&changed).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_is_signed(content in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(read) = ServerCertificateVerify::parse(&content) {
                prop_assert_eq!(read.to_bytes(), content);
            }
        }
    }
}
