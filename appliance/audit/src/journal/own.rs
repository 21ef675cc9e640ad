//! Events that nobody waits for: the journal's own and those of sinks.

use crate::{Event, Key, Value, limits};
use std::collections::VecDeque;

/// They wait here until there is room for them. Bounded: of too many the oldest are dropped and counted.
#[derive(Default)]
pub(super) struct Own {
    events: VecDeque<Event>,
    dropped: u64,
}

impl Own {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub fn push(&mut self, event: Event) {
        if self.events.len() >= limits::OWN_EVENTS_MAX {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(event);
    }

    /// Puts back what could not be written, in front.
    pub fn put_back(&mut self, events: Vec<Event>) {
        for event in events.into_iter().rev() {
            if self.events.len() >= limits::OWN_EVENTS_MAX {
                self.dropped += 1;
            } else {
                self.events.push_front(event);
            }
        }
    }

    /// All of them. The first one says how many were dropped before it.
    pub fn take(&mut self) -> Vec<Event> {
        let mut events: Vec<Event> = self.events.drain(..).collect();
        if let Some(first) = events.first_mut().filter(|_| self.dropped > 0)
            && let Ok(key) = Key::new("dropped")
            && first.details.insert(key, Value::Number(self.dropped)).is_ok()
        {
            self.dropped = 0;
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;

    #[test]
    fn the_oldest_are_dropped_and_counted() {
        let mut own = Own::default();
        for number in 0..limits::OWN_EVENTS_MAX as u64 + 5 {
            own.push(event(number));
        }
        let taken = own.take();
        assert_eq!(taken.len(), limits::OWN_EVENTS_MAX);
        assert_eq!(taken[0].details.get("dropped"), Some(&Value::Number(5)));
        assert_eq!(taken[1].details.get("dropped"), None);
        own.put_back(taken);
        assert_eq!(own.take().len(), limits::OWN_EVENTS_MAX);
        assert!(own.is_empty());
    }
}
