//! How bytes look in JSON.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, schema::SchemaType, schema::Type};
use utoipa::{PartialSchema, ToSchema};
use zixt_types::{
    AccountId, ApplianceId, DeviceId, Hash, LoginId, MessageId, RecoveryId, Salt, SessionId, ThreadId,
};

/// Bytes, in JSON as base64 with padding (RFC 4648 section 4).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes64(pub Vec<u8>);

impl fmt::Debug for Bytes64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes64({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Bytes64 {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Bytes64 {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Bytes64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Bytes64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 with padding")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes64, E> {
                BASE64_STANDARD
                    .decode(text)
                    .map(Bytes64)
                    .map_err(|_| E::custom("expected base64 with padding"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl PartialSchema for Bytes64 {
    fn schema() -> RefOr<Schema> {
        let mut object = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .description(Some("Bytes as base64 with padding (RFC 4648 section 4)"))
            .build();
        object.content_encoding = "base64".to_owned();
        object.into()
    }
}

impl ToSchema for Bytes64 {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Bytes64")
    }
}

/// Reads a list, but keeps no more than `MAX` elements and one: whoever counts them sees that they are too many, and
/// eight million empty ones take no memory.
pub(crate) fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> de::Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut kept = Vec::new();
            while let Some(element) = list.next_element()? {
                kept.push(element);
                if kept.len() > MAX {
                    while list.next_element::<de::IgnoredAny>()?.is_some() {}
                    break;
                }
            }
            Ok(kept)
        }
    }
    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}

/// An id that has a hexadecimal form.
pub trait HexId: Sized {
    /// Its name.
    const NAME: &'static str;
    /// Its length in bytes.
    const BYTES: usize;
    /// Its hexadecimal form.
    fn to_text(&self) -> String;
    /// Reads what [`Self::to_text`] wrote.
    fn from_text(text: &str) -> Option<Self>;
}

macro_rules! hex_ids {
    ($($name:ident),*) => {
        $(impl HexId for $name {
            const NAME: &'static str = stringify!($name);
            const BYTES: usize = $name::LEN;
            fn to_text(&self) -> String {
                self.to_hex()
            }
            fn from_text(text: &str) -> Option<Self> {
                Self::from_hex(text)
            }
        })*
    };
}

hex_ids!(AccountId, ApplianceId, DeviceId, Hash, LoginId, MessageId, RecoveryId, Salt, SessionId, ThreadId);

/// An id or hash, in JSON and in URLs as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hex<T>(pub T);

impl<T> From<T> for Hex<T> {
    fn from(id: T) -> Self {
        Self(id)
    }
}

impl<T: HexId> fmt::Display for Hex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_text())
    }
}

impl<T: HexId> Serialize for Hex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_text())
    }
}

impl<'de, T: HexId> Deserialize<'de> for Hex<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        T::from_text(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format_args!("expected a {} as {} hexadecimal digits", T::NAME, 2 * T::BYTES))
        })
    }
}

impl<T: HexId> PartialSchema for Hex<T> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .description(Some(format!("{} as hexadecimal", T::NAME)))
            .pattern(Some(format!("^[0-9a-f]{{{}}}$", 2 * T::BYTES)))
            .into()
    }
}

impl<T: HexId> ToSchema for Hex<T> {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed(T::NAME)
    }
}

// The names below also keep `ToSchema`'s derive from taking `Hex<…>` for a generic schema.

/// An account's id.
pub type AccountHex = Hex<AccountId>;
/// A device's id.
pub type DeviceHex = Hex<DeviceId>;
/// A message id.
pub type MessageHex = Hex<MessageId>;
/// A sign-in's id.
pub type LoginHex = Hex<LoginId>;
/// A session's id.
pub type SessionHex = Hex<SessionId>;
/// A recovery's id.
pub type RecoveryHex = Hex<RecoveryId>;
/// A thread's id.
pub type ThreadHex = Hex<ThreadId>;
/// A hash.
pub type HashHex = Hex<Hash>;
/// A salt.
pub type SaltHex = Hex<Salt>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_ids_round_trip_and_refuse_the_rest() {
        let bytes = Bytes64(vec![0xFF, 0xFE, 0x3E]);
        let json = serde_json::to_string(&bytes).unwrap();
        assert_eq!(json, "\"//4+\"");
        assert_eq!(serde_json::from_str::<Bytes64>(&json).unwrap(), bytes);
        assert!(serde_json::from_str::<Bytes64>("\"__4-\"").is_err());

        let id = Hex(DeviceId([0xAB; 16]));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<Hex<DeviceId>>(&json).unwrap(), id);
        let error = serde_json::from_str::<Hex<DeviceId>>("\"abc\"").unwrap_err();
        assert!(error.to_string().contains("DeviceId as 32 hexadecimal digits"), "{error}");
    }

    #[test]
    fn long_lists_are_counted_but_not_kept() {
        let request = |count: usize| format!(r#"{{"one_time":[{}]}}"#, vec![r#""AA==""#; count].join(","));
        let max = zixt_types::limits::KEY_PACKAGES_MAX;
        for (count, kept) in [(0, 0), (1, 1), (max, max), (max + 1, max + 1), (9 * max, max + 1)] {
            let upload: crate::KeyPackageUpload = serde_json::from_str(&request(count)).unwrap();
            assert_eq!(upload.one_time.len(), kept);
        }
        let item =
            format!(r#"{{"body":"","signature":"","attachments":[{}]}}"#, vec![r#""""#; 1000].join(","));
        let item: crate::SubmissionItem = serde_json::from_str(&item).unwrap();
        assert_eq!(item.attachments.len(), 5);
        let broken = format!(r#"{{"one_time":[{},}}"#, vec![r#""""#; 9 * max].join(","));
        assert!(serde_json::from_str::<crate::KeyPackageUpload>(&broken).is_err());
    }
}
