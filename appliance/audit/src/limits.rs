//! Every bound of the journal, with its reason. Units stand last in the names.

/// One text: a name, a path, a distinguished name of a directory. Longer ones are cut and say so.
pub const TEXT_BYTES_MAX: usize = 256;
/// A key of a detail: RFC 5424 section 6 allows SD-NAMEs of 32 characters, and two are for the prefix `d_`.
pub const KEY_BYTES_MAX: usize = 30;
/// A stable error code.
pub const CODE_BYTES_MAX: usize = 64;
/// Details of one event: more would be a document, whose digest belongs here.
pub const DETAILS_MAX: usize = 16;
/// Officers who act together: enough for every M in use; a genesis with more names them in its transcript.
pub const OFFICERS_MAX: usize = 16;
/// An event: 16 details of 300 bytes, 16 officers and a target come to 6.1 kB.
pub const EVENT_BYTES_MAX: usize = 8 * 1024;
/// Events that wait for the writer. Each holds at most an event's bytes: 4 MiB in the worst case.
pub const QUEUE_EVENTS_MAX: usize = 512;
/// Events that share one fdatasync.
pub const GROUP_EVENTS_MAX: usize = 256;
/// Events that nobody waits for and that found no room yet: of more the oldest are dropped, and counted.
pub const OWN_EVENTS_MAX: usize = 64;
/// A segment. It is preallocated, so this is also what is kept in reserve for a full disk: some 16,000 events
/// that take a sector each.
pub const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// The smallest segment: room for the largest event several times.
pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
/// The largest segment: one is walked through at each start.
pub const SEGMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Time between two tries to set a reserve aside again while the disk is full.
pub const RESERVE_RETRY_MS: u64 = 10_000;
/// An export: as large as evidence may be.
pub const EXPORT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Roots in one export: a root every minute for a week.
pub const EXPORT_ROOTS_MAX: usize = 16 * 1024;
/// Records that a follower reads before it stores its cursor.
pub const FOLLOW_EVENTS_MAX: usize = 256;
/// First pause of a follower after a failure; it doubles with each further one.
pub const BACKOFF_MS_MIN: u64 = 1_000;
/// Longest pause of a follower.
pub const BACKOFF_MS_MAX: u64 = 60_000;
/// A syslog message: RFC 5425 section 4.3.1 wants receivers to take 8192 bytes.
pub const SYSLOG_BYTES_MAX: usize = 8192;
/// Records that syslog sends again after a lost connection: what was in the buffers of both ends may never have arrived.
pub const SYSLOG_OVERLAP_EVENTS: u64 = 256;
