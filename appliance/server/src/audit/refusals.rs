//! Refusals before anybody is known: recorded, but so that nobody fills the journal by knocking. The first one of a caller
//! is recorded at once; those of the next minute are counted, and recorded as one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Time in which a caller's further refusals are counted only.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Callers that are told apart at the same time; all further ones are counted as one. Their records are at most twice as
/// many a minute.
const CALLERS_MAX: usize = 16;

/// Whom refusals are counted for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Refused {
    /// A user of this machine.
    Local(u32),
    /// A host of the network.
    Remote(IpAddr),
    /// Whoever came when there were too many others.
    Others,
}

/// Refusals of the present windows.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<Refused, u64>>);

impl Refusals {
    /// Counts a refusal. `Some` if it opens a window: it is to be recorded under that name, and the window to be closed
    /// after [`WINDOW`].
    pub fn count(&self, who: Refused) -> Option<Refused> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let who =
            if windows.contains_key(&who) || windows.len() < CALLERS_MAX { who } else { Refused::Others };
        match windows.get_mut(&who) {
            Some(more) => {
                *more = more.saturating_add(1);
                None
            }
            None => {
                windows.insert(who, 0);
                Some(who)
            }
        }
    }

    /// Closes a window and gives how many refusals were counted in it beside the first.
    pub fn close(&self, who: Refused) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&who).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_gets_one_record_and_the_rest_is_counted() {
        let refusals = Refusals::default();
        assert_eq!(refusals.count(Refused::Local(7)), Some(Refused::Local(7)));
        for _ in 0..1000 {
            assert_eq!(refusals.count(Refused::Local(7)), None);
        }
        assert_eq!(refusals.close(Refused::Local(7)), 1000);
        assert_eq!(refusals.count(Refused::Local(7)), Some(Refused::Local(7)));
    }

    #[test]
    fn many_callers_get_few_records() {
        let refusals = Refusals::default();
        let hosts = (0..10_000_u32).map(|host| Refused::Remote(std::net::Ipv4Addr::from(host).into()));
        let recorded: Vec<Refused> = hosts.filter_map(|host| refusals.count(host)).collect();
        assert_eq!(recorded.len(), CALLERS_MAX + 1);
        assert_eq!(recorded.last(), Some(&Refused::Others));
        assert_eq!(refusals.close(Refused::Others), 10_000 - recorded.len() as u64);
    }
}
