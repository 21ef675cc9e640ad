//! The push stream: newline-delimited JSON, one [`StreamLine`] a line, over a chunked HTTP response.

use crate::{Bytes64, Entry, EntryProof, Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest line: an entry with the largest inline attachment in base64, and its proofs.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A line of the stream.
///
/// Positions are places among all entries of the network: they ascend, and a device sees gaps. To resume, ask `?after=`
/// with the last position that was durably handled: that acknowledges it and everything before, and the appliance may
/// drop those events.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant, reason = "nearly all lines are events")]
pub enum StreamLine {
    /// An entry that concerns this device.
    Event {
        /// Its position in this device's stream.
        position: u64,
        /// The entry.
        entry: Entry,
        /// Its first attachment (the envelope); absent if it has none or its content was deleted by policy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attachment: Option<Bytes64>,
        /// Proof that it is recorded.
        proof: EntryProof,
    },
    /// The first opens the stream and says where it begins. The second says that the backlog is over: what comes from
    /// now on is new. Later ones say that the connection is alive: nothing happened for 20 seconds.
    Heartbeat {
        /// The last position sent, or the one asked for.
        position: u64,
        /// The ledger's height.
        height: u64,
    },
    /// The last line: why the appliance ends the stream. Without one the connection broke.
    End {
        /// The reason.
        problem: Problem,
    },
}
