//! Wakes the streams of devices that an entry concerns. What they are told they read from the store themselves, so a
//! missed wake-up costs nothing but time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use zixt_types::Member;

/// Streams that one device may have open: one to use, and old ones whose end nobody has noticed yet.
const STREAMS_PER_DEVICE_MAX: usize = 4;

/// The open streams.
#[derive(Debug, Default)]
pub struct Push {
    streams: Mutex<HashMap<Member, Open>>,
}

#[derive(Debug)]
struct Open {
    wake: watch::Sender<()>,
    count: usize,
}

impl Push {
    /// Opens a stream for a device; `None` if it has too many.
    pub fn subscribe(self: &Arc<Self>, member: Member) -> Option<Subscription> {
        let mut streams = self.lock();
        let open = streams.entry(member).or_insert_with(|| Open { wake: watch::Sender::new(()), count: 0 });
        if open.count >= STREAMS_PER_DEVICE_MAX {
            return None;
        }
        open.count += 1;
        Some(Subscription { push: Arc::clone(self), member, wake: open.wake.subscribe() })
    }

    /// Wakes these devices' streams.
    pub fn wake<'a>(&self, members: impl IntoIterator<Item = &'a Member>) {
        let streams = self.lock();
        if streams.is_empty() {
            return;
        }
        for member in members {
            if let Some(open) = streams.get(member) {
                open.wake.send_replace(());
            }
        }
    }

    /// How many streams are open.
    pub fn count(&self) -> usize {
        self.lock().values().map(|open| open.count).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Member, Open>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device's place among the streams; given back on drop.
#[derive(Debug)]
pub struct Subscription {
    push: Arc<Push>,
    member: Member,
    wake: watch::Receiver<()>,
}

impl Subscription {
    /// From now on, a wake-up counts. Call it before reading, so that nothing falls between reading and waiting.
    pub fn mark(&mut self) {
        self.wake.mark_unchanged();
    }

    /// Waits for a wake-up since [`Self::mark`].
    pub async fn woken(&mut self) {
        if self.wake.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut streams = self.push.lock();
        if let Some(open) = streams.get_mut(&self.member) {
            open.count -= 1;
            if open.count == 0 {
                streams.remove(&self.member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_types::{AccountId, DeviceId};

    #[tokio::test]
    async fn a_wake_up_between_reading_and_waiting_is_not_lost() {
        let push = Arc::new(Push::default());
        let member = Member { account: AccountId([1; 16]), device: DeviceId([2; 16]) };
        let mut stream = push.subscribe(member).unwrap();
        stream.mark();
        push.wake([&member]);
        stream.woken().await;
        let more: Vec<_> = (0..8).filter_map(|_| push.subscribe(member)).collect();
        assert_eq!(more.len(), STREAMS_PER_DEVICE_MAX - 1);
        drop((stream, more));
        assert_eq!(push.count(), 0);
    }
}
