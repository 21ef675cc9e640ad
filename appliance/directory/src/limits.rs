//! Every bound of this crate, with its reason. Units stand last in the names.

/// People of one directory: four times the largest that is measured, and 100 MiB in memory at 500 bytes each.
pub const PEOPLE_MAX: usize = 200_000;
/// A server's URL, a DN or a filter in the settings.
pub const SETTING_BYTES_MAX: usize = 1024;
/// Servers of one directory; each is tried in turn within a time-out of its own.
pub const SERVERS_MAX: usize = 8;
/// Subtrees that are searched.
pub const BASES_MAX: usize = 16;
/// Groups that stand for roles.
pub const ROLE_RULES_MAX: usize = 64;
/// A DN. Active Directory ends at 255 characters for each part; deeper trees than this are not seen.
pub const DN_BYTES_MAX: usize = 2048;
/// A login name: RFC 5321 gives an address 254 bytes, and user principal names look like one.
pub const LOGIN_BYTES_MAX: usize = 256;
/// A display name; a longer one is cut.
pub const NAME_BYTES_MAX: usize = 256;
/// A mail address (RFC 5321 section 4.5.3.1, and the path's brackets); a longer one is left out.
pub const MAIL_BYTES_MAX: usize = 254;
/// An id that never changes: 16 bytes for objectGUID and entryUUID, more for those of other makers.
pub const ID_BYTES_MAX: usize = 64;
/// A password. Nothing longer is sent to a directory.
pub const PASSWORD_BYTES_MAX: usize = zixt_types::limits::PASSWORD_BYTES_MAX;
/// One LDAP message: a group of 200,000 members has 16 MB.
pub const MESSAGE_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Elements of one message, values above all: a group of 200,000 members and some. An empty value has two bytes on the wire
/// and some hundred in memory, so bytes alone are no bound.
pub const ELEMENTS_MAX: usize = 250_000;
/// What an element costs in memory beside its bytes.
pub const ELEMENT_BYTES: usize = 64;
/// Servers that a reference or a referral names.
pub const REFERENCES_MAX: usize = 64;
/// Controls of one message.
pub const CONTROLS_MAX: usize = 16;
/// One message when somebody signs in: an entry with a dozen short attributes.
pub const SIGN_IN_MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// What a server may send when somebody signs in.
pub const SIGN_IN_BYTES_MAX: u64 = 1024 * 1024;
/// Entries beyond a size limit that are passed over; a server that goes on has not heard of the limit.
pub const ENTRIES_BEYOND_LIMIT_MAX: usize = 16;
/// Seconds for which nobody is signed in, at most, after the account that reads was refused. Each try is a wrong password to
/// the directory, which may lock the account.
pub const READER_REFUSED_S_MAX: u64 = 900;
/// An answer before the sign-in of the service account: results carry a sentence or two.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;
/// What a server may send in one synchronisation: 200,000 people of 5 kB.
pub const SYNC_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The cookie of a page: servers use 4 to 400 bytes.
pub const COOKIE_BYTES_MAX: usize = 4096;
/// A server's explanation, as it is kept for the record.
pub const DIAGNOSTIC_BYTES_MAX: usize = 256;
/// Groups that are read on the way from one that stands for a role to its members.
pub const GROUPS_MAX: usize = 50_000;
/// Members of all groups on the way to roles, one that is in two of them counted twice.
pub const MEMBERS_MAX: usize = 2_000_000;
/// Entries whose one changed version is read by itself. From more, reading everything is quicker.
pub const SINGLE_READS_MAX: usize = 2_000;
/// People who are asked for once more before they count as gone. Of more, these are asked for, and
/// if one of them is there, the list was not complete.
pub const ASKED_AGAIN_MAX: usize = 1_000;
/// Ids in one filter.
pub const IDS_IN_FILTER_MAX: usize = 50;
/// Seconds by which the clocks of a directory's servers and of this machine may differ, where versions are times.
pub const CLOCKS_DIFFER_S_MAX: u64 = 600;
/// People with a fault that are named in a report; more are counted.
pub const FAULTS_NAMED_MAX: usize = 100;
/// A stored snapshot: 200,000 people of 600 bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Sign-ins at a directory at one time, each with two connections.
pub const BINDS_MAX: usize = 64;
/// Parts of messages on their way from the connection to the search; the server is read no faster than that.
pub const IN_FLIGHT_PARTS_MAX: usize = 64;
/// A part: with 64 of them 4 MiB are under way, or one message that is longer.
pub const IN_FLIGHT_PART_BYTES: usize = 64 * 1024;
