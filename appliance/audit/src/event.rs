//! One event: who, what, when, from where, on what, how it ended. Its parts can only be made valid, so that recording
//! one never fails because of what is in it.

use crate::{Action, Code, Key, NameError, Text, Weight, limits};
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use thiserror::Error;
use zixt_types::{AccountId, ApplianceId, Canonical, DeviceId, Hash, Height, ThreadId, Timestamp};

/// Why a part of an event was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventError {
    /// The key of a detail.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The same key twice.
    #[error("the detail {0} is there already")]
    Repeated(Key),
    /// More details than one event may have.
    #[error("more than {} details", limits::DETAILS_MAX)]
    TooManyDetails,
    /// No officer, too many, or one twice.
    #[error("{got} officers, or one of them twice; 1 to {max} different ones are allowed", max = limits::OFFICERS_MAX)]
    Officers {
        /// How many were given.
        got: usize,
    },
}

/// The ledger's time, as far as the appliance knew it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct LedgerTime {
    /// The newest height.
    #[n(0)]
    pub height: Height,
    /// Its time: the validators' clock.
    #[n(1)]
    pub time: Timestamp,
}

/// When it happened. The order of events is told by the journal's sequence, never by a clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct When {
    /// The appliance's clock, which an officer may have set.
    #[n(0)]
    pub wall: Timestamp,
    /// The ledger's time, if it was known.
    #[n(1)]
    pub ledger: Option<LedgerTime>,
}

/// Officers who acted together: hashes of their approval keys, ascending.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Officers(Vec<Hash>);

impl Officers {
    /// Takes them in any order.
    ///
    /// # Errors
    /// [`EventError::Officers`].
    pub fn new(mut keys: Vec<Hash>) -> Result<Self, EventError> {
        let got = keys.len();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() || keys.len() > limits::OFFICERS_MAX || keys.len() != got {
            return Err(EventError::Officers { got });
        }
        Ok(Self(keys))
    }

    /// Their keys' hashes, ascending.
    #[must_use]
    pub fn keys(&self) -> &[Hash] {
        &self.0
    }
}

impl<C> Encode<C> for Officers {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), encode::Error<W::Error>> {
        self.0.encode(e, c)
    }
}

impl<'b, C> Decode<'b, C> for Officers {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let keys = Vec::<Hash>::decode(d, c)?;
        let sorted = keys.windows(2).all(|pair| pair[0] < pair[1]);
        let officers = Self::new(keys).map_err(|error| decode::Error::message(error.to_string()).at(at))?;
        if sorted { Ok(officers) } else { Err(decode::Error::message("officers are not sorted").at(at)) }
    }
}

/// Who did it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum Actor {
    /// Nobody that is known: before a sign-in, or a stranger.
    #[n(0)]
    Nobody,
    /// The appliance itself.
    #[n(1)]
    Appliance,
    /// An account, signed in without a device of its own.
    #[n(2)]
    Account(#[n(0)] AccountId),
    /// A device of an account.
    #[n(3)]
    Device(#[n(0)] AccountId, #[n(1)] DeviceId),
    /// Officers, one or several together.
    #[n(4)]
    Officers(#[n(0)] Officers),
    /// A user of this machine, by the credentials of a local socket.
    #[n(5)]
    LocalUser(#[n(0)] u32),
    /// Another appliance.
    #[n(6)]
    Peer(#[n(0)] ApplianceId),
}

/// An address of the network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    ip: IpAddr,
    port: u16,
}

impl Address {
    /// The address. The IPv4-mapped form becomes IPv4 (RFC 4291 section 2.5.5.2), so that one host has one form.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip().to_canonical(), port: address.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

impl<C> Encode<C> for Address {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        let mut bytes = match self.ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        bytes.extend_from_slice(&self.port.to_be_bytes());
        e.bytes(&bytes)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Address {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let wrong = || decode::Error::message("an address is 4 or 16 bytes and a port of 2").at(at);
        let (ip, port) = d.bytes()?.split_last_chunk::<2>().ok_or_else(wrong)?;
        let ip = match ip.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(ip).map_err(|_| wrong())?),
            16 => IpAddr::from(<[u8; 16]>::try_from(ip).map_err(|_| wrong())?),
            _ => return Err(wrong()),
        };
        if ip.to_canonical() != ip {
            return Err(decode::Error::message("an IPv4 address in IPv6 form").at(at));
        }
        Ok(Self { ip, port: u16::from_be_bytes(*port) })
    }
}

/// From where.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum Origin {
    /// From within the appliance: a timer, a start.
    #[n(0)]
    Inside,
    /// Over the network.
    #[n(1)]
    Network(#[n(0)] Address),
    /// At the console of the machine.
    #[n(2)]
    Console,
    /// Over a local socket, by this user of the machine.
    #[n(3)]
    Socket(#[n(0)] u32),
    /// From a file on removable media.
    #[n(4)]
    Media,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum Outcome {
    /// It was done.
    #[n(0)]
    Ok,
    /// A rule was against it.
    #[n(1)]
    Refused(#[n(0)] Code),
    /// It was allowed, and something broke.
    #[n(2)]
    Failed(#[n(0)] Code),
}

impl Outcome {
    /// The word in exports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }

    /// The stable code, unless it was done.
    #[must_use]
    pub const fn code(&self) -> Option<&Code> {
        match self {
            Self::Ok => None,
            Self::Refused(code) | Self::Failed(code) => Some(code),
        }
    }
}

/// On what.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum Target {
    /// An account.
    #[n(0)]
    Account(#[n(0)] AccountId),
    /// A device of an account.
    #[n(1)]
    Device(#[n(0)] AccountId, #[n(1)] DeviceId),
    /// An officer, by the hash of the approval key.
    #[n(2)]
    Officer(#[n(0)] Hash),
    /// A thread of the ledger.
    #[n(3)]
    Thread(#[n(0)] ThreadId),
    /// An appliance.
    #[n(4)]
    Appliance(#[n(0)] ApplianceId),
    /// Something else: what it is, and its name.
    #[n(5)]
    Named(#[n(0)] Key, #[n(1)] Text),
}

/// The value of a detail. There is none for bytes: what is too long or too secret stands here as a digest.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum Value {
    /// A number; the key says of what.
    #[n(0)]
    Number(#[n(0)] u64),
    /// Yes or no.
    #[n(1)]
    Flag(#[n(0)] bool),
    /// A text.
    #[n(2)]
    Text(#[n(0)] Text),
    /// A digest.
    #[n(3)]
    Digest(#[n(0)] Hash),
    /// A time.
    #[n(4)]
    Time(#[n(0)] Timestamp),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::Digest(hash) => hash.fmt(f),
            Self::Time(time) => f.write_str(&time.utc()),
        }
    }
}

/// Further facts: few, each with a key of its own, in the order of their keys.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Details(Vec<(Key, Value)>);

impl Details {
    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// These and one more.
    ///
    /// # Errors
    /// See [`EventError`].
    pub fn with(mut self, key: &str, value: Value) -> Result<Self, EventError> {
        self.insert(Key::new(key)?, value)?;
        Ok(self)
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`EventError::Repeated`], [`EventError::TooManyDetails`].
    pub fn insert(&mut self, key: Key, value: Value) -> Result<(), EventError> {
        match self.0.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(_) => Err(EventError::Repeated(key)),
            Err(_) if self.0.len() == limits::DETAILS_MAX => Err(EventError::TooManyDetails),
            Err(at) => {
                self.0.insert(at, (key, value));
                Ok(())
            }
        }
    }

    /// All of them, ascending by key.
    #[must_use]
    pub fn list(&self) -> &[(Key, Value)] {
        &self.0
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(other, _)| other.as_str() == key).map(|(_, value)| value)
    }

    /// Numbers of the journal's own events. Their keys are ours, so that none can be refused.
    pub(crate) fn numbers(list: &[(&str, u64)]) -> Self {
        let mut details = Self::none();
        for (key, number) in list {
            if let Ok(key) = Key::new(key) {
                let _ = details.insert(key, Value::Number(*number));
            }
        }
        details
    }
}

impl<C> Encode<C> for Details {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.array(self.0.len() as u64)?;
        for (key, value) in &self.0 {
            e.array(2)?;
            key.encode(e, c)?;
            value.encode(e, c)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Details {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let fault = |why: &str| decode::Error::message(why.to_owned()).at(at);
        let count = d.array()?.ok_or_else(|| fault("details of indefinite length"))?;
        let mut details = Self::none();
        for _ in 0..count {
            if d.array()? != Some(2) {
                return Err(fault("a detail is a key and a value"));
            }
            let (key, value) = (Key::decode(d, c)?, Value::decode(d, c)?);
            if details.0.last().is_some_and(|(last, _)| *last >= key) {
                return Err(fault("details are not in the order of their keys"));
            }
            details.insert(key, value).map_err(|error| fault(&error.to_string()))?;
        }
        Ok(details)
    }
}

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Event {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// What.
    #[n(1)]
    pub action: Action,
    /// Who.
    #[n(2)]
    pub actor: Actor,
    /// From where.
    #[n(3)]
    pub origin: Origin,
    /// On what, if on anything.
    #[n(4)]
    pub target: Option<Target>,
    /// How it ended.
    #[n(5)]
    pub outcome: Outcome,
    /// When.
    #[n(6)]
    pub when: When,
    /// Digest of the state before, if it changed one.
    #[n(7)]
    pub before: Option<Hash>,
    /// Digest of the state after, if it changed one.
    #[n(8)]
    pub after: Option<Hash>,
    /// Further facts.
    #[n(9)]
    pub details: Details,
}

impl Event {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// An event that went well, without target, digests and details; set those that there are.
    #[must_use]
    pub const fn new(action: Action, actor: Actor, origin: Origin, when: When) -> Self {
        Self {
            version: Self::VERSION,
            action,
            actor,
            origin,
            target: None,
            outcome: Outcome::Ok,
            when,
            before: None,
            after: None,
            details: Details::none(),
        }
    }

    /// Whether it may be written into the reserve when the disk is full. Not what was refused to somebody on the
    /// network: whoever can knock could use the reserve up.
    #[must_use]
    pub fn may_use_reserve(&self) -> bool {
        let knocking = matches!(self.origin, Origin::Network(_)) && self.outcome != Outcome::Ok;
        self.action.weight() == Weight::Security && !knocking
    }
}

impl Canonical for Event {
    const WHAT: &'static str = "audit event";
    const BYTES_MAX: usize = limits::EVENT_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.version == Self::VERSION { Ok(()) } else { Err("its version is not 1") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_event, when};
    use proptest::prelude::*;

    #[test]
    fn the_largest_event_fits() {
        let mut details = Details::none();
        for number in 0..limits::DETAILS_MAX {
            let key = format!("{:x<width$}{number:02}", "k", width = limits::KEY_BYTES_MAX - 2);
            let text = Text::new(&"x".repeat(limits::TEXT_BYTES_MAX)).unwrap();
            details = details.with(&key, Value::Text(text)).unwrap();
        }
        assert_eq!(details.clone().with("a", Value::Flag(true)), Err(EventError::TooManyDetails));
        let officers = (0..16).map(|byte| Hash([byte; 48])).collect();
        let address: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        let key = Key::new(&"k".repeat(limits::KEY_BYTES_MAX)).unwrap();
        let event = Event {
            target: Some(Target::Named(key, Text::new(&"x".repeat(limits::TEXT_BYTES_MAX)).unwrap())),
            outcome: Outcome::Refused(Code::new(&"c".repeat(limits::CODE_BYTES_MAX)).unwrap()),
            before: Some(Hash([1; 48])),
            after: Some(Hash([2; 48])),
            details,
            ..Event::new(
                Action::BreakGlass,
                Actor::Officers(Officers::new(officers).unwrap()),
                Origin::Network(address.into()),
                When {
                    wall: Timestamp(u64::MAX),
                    ledger: Some(LedgerTime { height: Height(u64::MAX), time: Timestamp(u64::MAX) }),
                },
            )
        };
        let bytes = event.to_bytes();
        assert!(bytes.len() <= limits::EVENT_BYTES_MAX, "{}", bytes.len());
        assert_eq!(Event::parse(&bytes), Ok(event));
    }

    #[test]
    fn officers_are_different_people() {
        let (a, b) = (Hash([1; 48]), Hash([2; 48]));
        assert_eq!(Officers::new(vec![b, a]), Officers::new(vec![a, b]));
        for wrong in [vec![], vec![a, a], (0..17).map(|byte| Hash([byte; 48])).collect()] {
            assert!(matches!(Officers::new(wrong), Err(EventError::Officers { .. })));
        }
    }

    #[test]
    fn one_host_has_one_address() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:7".parse().unwrap();
        let plain: SocketAddr = "192.0.2.1:7".parse().unwrap();
        assert_eq!(Address::from(mapped), Address::from(plain));
    }

    #[test]
    fn strangers_cannot_use_the_reserve_up() {
        let refused = Outcome::Refused(Code::new("wrong-password").unwrap());
        let network: SocketAddr = "192.0.2.1:7".parse().unwrap();
        let mut event = Event::new(Action::SignIn, Actor::Nobody, Origin::Network(network.into()), when(1));
        assert!(event.may_use_reserve());
        event.outcome = refused;
        assert!(!event.may_use_reserve());
        event.origin = Origin::Console;
        assert!(event.may_use_reserve());
        event.action = Action::SignOut;
        assert!(!event.may_use_reserve());
    }

    proptest! {
        #[test]
        fn an_event_comes_back(event in any_event()) {
            let bytes = event.to_bytes();
            prop_assert_eq!(Event::parse(&bytes), Ok(event));
            for cut in 0..bytes.len() {
                prop_assert!(Event::parse(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(event) = Event::parse(&bytes) {
                prop_assert_eq!(event.to_bytes(), bytes);
            }
        }

        #[test]
        fn a_flipped_byte_is_refused_or_another_event(event in any_event(), at: prop::sample::Index, by in 1_u8..) {
            let mut bytes = event.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            prop_assert_ne!(Event::parse(&bytes), Ok(event));
        }
    }
}
