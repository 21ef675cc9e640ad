//! How often a user may ask for what a person or a schedule asks for. Signing is never held back: a vote that waits for its
//! turn would stop the network, and who may sign is on the allow-list.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use zixt_hsm_protocol::Request;

/// A bucket: how much it holds, and how long one more request takes to come back.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Requests at once.
    pub burst: u32,
    /// Time in which one more is allowed.
    pub every: Duration,
}

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Reads state.
    Look,
    /// Asks a device, writes, or costs much work.
    Change,
}

/// What a request counts as; nothing for those that are never held back. To lock is one: who wants the keys forgotten is
/// not to be told to wait.
#[must_use]
pub const fn kind(request: &Request) -> Option<Kind> {
    match request {
        Request::SignTls { .. }
        | Request::SignVote { .. }
        | Request::SignInvite { .. }
        | Request::SignRevocation { .. }
        | Request::UnsealRowKey
        | Request::Lock => None,
        Request::Status | Request::Recovery | Request::Decisions { .. } => Some(Kind::Look),
        Request::Doctor
        | Request::Quote { .. }
        | Request::SelfTest
        | Request::Unlock { .. }
        | Request::Provision { .. }
        | Request::BindGenesis { .. }
        | Request::AddProtector { .. }
        | Request::GenerateKey { .. }
        | Request::Decide { .. }
        | Request::Backup
        | Request::BeginRecovery { .. }
        | Request::FinishRecovery { .. }
        | Request::BackupKey { .. }
        | Request::BackupUnpacked { .. }
        | Request::ChangePin { .. }
        | Request::Reseal { .. } => Some(Kind::Change),
    }
}

/// A bucket for each user and kind. Users are those of the allow-list, so there are few.
#[derive(Debug, Default)]
pub struct Buckets(HashMap<(u32, Kind), Bucket>);

#[derive(Debug)]
struct Bucket {
    /// When it will be full again.
    full_at: Instant,
}

impl Buckets {
    /// Counts a request.
    ///
    /// # Errors
    /// How long to wait for the next one; this one is not counted.
    pub fn take(&mut self, uid: u32, kind: Kind, rate: Rate, now: Instant) -> Result<(), Duration> {
        let bucket = self.0.entry((uid, kind)).or_insert(Bucket { full_at: now });
        let full_at = bucket.full_at.max(now) + rate.every;
        let wait = full_at.saturating_duration_since(now).saturating_sub(rate.every * rate.burst);
        if !wait.is_zero() {
            return Err(wait);
        }
        bucket.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let (mut buckets, rate) = (Buckets::default(), Rate { burst: 3, every: Duration::from_secs(2) });
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..3 {
            assert_eq!(buckets.take(7, Kind::Look, rate, start), Ok(()));
        }
        assert_eq!(buckets.take(7, Kind::Look, rate, start), Err(Duration::from_secs(2)));
        assert_eq!(buckets.take(7, Kind::Look, rate, at(1)), Err(Duration::from_secs(1)));
        // Others, and other requests, are not held back by it.
        assert_eq!(buckets.take(8, Kind::Look, rate, start), Ok(()));
        assert_eq!(buckets.take(7, Kind::Change, rate, start), Ok(()));
        assert_eq!(buckets.take(7, Kind::Look, rate, at(2)), Ok(()), "what was refused was not counted");
        assert_eq!(buckets.take(7, Kind::Look, rate, at(2)), Err(Duration::from_secs(2)));
        for _ in 0..3 {
            assert_eq!(
                buckets.take(7, Kind::Look, rate, at(100)),
                Ok(()),
                "it never holds more than the burst"
            );
        }
        assert!(buckets.take(7, Kind::Look, rate, at(100)).is_err());
    }
}
