//! When, from where and over what somebody signs in.

use minicbor::{Decode, Encode};
use std::net::IpAddr;
use zixt_crypto::{hash, labels};
use zixt_types::{Hash, Timestamp};

/// Both clocks at one moment. What expires says which of them it goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// The appliance's wall clock: set by an officer, and so it can jump, both ways.
    pub wall: Timestamp,
    /// The validators' clock: the time of the last certified header. Never goes back, and stands still while nothing is
    /// recorded.
    pub ledger: Timestamp,
}

/// Where a connection comes from: an IPv4 address, or the first 64 bits of an IPv6 address, because whoever has one
/// address of such a network has all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Network(#[cbor(n(0), with = "crate::secret::fixed")] [u8; 8]);

impl Network {
    /// The network of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let mut prefix = [0; 8];
        match address.to_canonical() {
            // The first four bytes are not those of any IPv6 network in use (RFC 4291 section 2.5.5.1).
            IpAddr::V4(v4) => prefix[4..].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => prefix.copy_from_slice(&v6.octets()[..8]),
        }
        Self(prefix)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [0, 0, 0, 0, a, b, c, d] => write!(f, "{a}.{b}.{c}.{d}"),
            prefix => {
                let mut address = [0; 16];
                address[..8].copy_from_slice(&prefix);
                write!(f, "{}/64", std::net::Ipv6Addr::from(address))
            }
        }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({self})")
    }
}

/// Something that the caller has proven to hold, and by which an account recognises a source that it has signed in
/// from: the key of a TLS connection, or a secret that the server gave a browser after a sign-in. An address is no
/// such thing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct HeldSource(#[n(0)] Hash);

impl HeldSource {
    /// The source that holds a TLS key, by the hash of the key. The handshake has proven possession (RFC 8446
    /// section 4.4.3, RFC 7250).
    #[must_use]
    pub fn tls_key(key: &Hash) -> Self {
        Self(hash::sha384(labels::KNOWN_SOURCE, &[b"tls", key.as_bytes()]))
    }

    /// The browser that holds a secret of at least 16 random bytes, which it was given at the end of a sign-in.
    #[must_use]
    pub fn browser(secret: &[u8; 32]) -> Self {
        Self(hash::sha384(labels::KNOWN_SOURCE, &[b"browser", secret]))
    }

    /// The hash.
    #[must_use]
    pub const fn hash(&self) -> &Hash {
        &self.0
    }
}

/// Who knocks, as far as it is known before anybody signs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Where the connection comes from; `None` for a local socket.
    pub network: Option<Network>,
    /// What the caller has proven to hold.
    pub held: Option<HeldSource>,
}

/// What a sign-in and its session are bound to. A token that is stolen from one is worth nothing on another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// The client's raw public key in mutual TLS (RFC 7250), by its hash: every connection of that client, and of
    /// nobody else.
    ClientKey(Hash),
    /// The exporter of one TLS 1.3 connection (RFC 9266, `tls-exporter`): that connection alone.
    Exporter([u8; 32]),
    /// A listener, by the hash of its key. Weak: it only keeps a browser's token from other listeners. For browsers,
    /// which have no key of their own and whose scripts do not see the exporter.
    Listener(Hash),
}

impl Channel {
    /// The hash by which sessions and signed statements name it.
    #[must_use]
    pub fn binding(&self) -> ChannelBinding {
        let (kind, value): (&[u8], &[u8]) = match self {
            Self::ClientKey(key) => (b"client-key", key.as_bytes()),
            Self::Exporter(exported) => (b"exporter", exported),
            Self::Listener(key) => (b"listener", key.as_bytes()),
        };
        ChannelBinding(hash::sha384(labels::CHANNEL_BINDING, &[kind, value]))
    }
}

/// The hash of a [`Channel`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct ChannelBinding(#[n(0)] Hash);

impl ChannelBinding {
    /// The hash.
    #[must_use]
    pub const fn hash(&self) -> &Hash {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_what_one_person_can_hold() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.7"), of("::ffff:192.0.2.7"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(format!("{:?}", of("192.0.2.7")), "Network(192.0.2.7)");
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
    }

    #[test]
    fn kinds_of_channel_are_apart() {
        let key = Hash([7; 48]);
        assert_ne!(Channel::ClientKey(key).binding(), Channel::Listener(key).binding());
        assert_ne!(HeldSource::tls_key(&key), HeldSource::browser(&[7; 32]));
    }
}
