//! An event on its way to the disk, and the caller that waits for it.

use super::error::AppendError;
use super::{Receipt, Shared, lock};
use crate::Event;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zixt_types::Canonical;

/// What the caller and the writer share about one event.
pub(super) struct Ticket {
    pub event: Vec<u8>,
    pub may_use_reserve: bool,
    state: Mutex<State>,
    changed: Condvar,
}

enum State {
    /// The writer has not looked at it yet.
    Queued,
    /// The writer is at it: from here on it may become durable.
    Taken,
    /// The caller went away.
    Abandoned,
    Done(Result<Receipt, AppendError>),
}

impl Ticket {
    pub fn new(event: &Event) -> Self {
        Self {
            event: event.to_bytes(),
            may_use_reserve: event.may_use_reserve(),
            state: Mutex::new(State::Queued),
            changed: Condvar::new(),
        }
    }

    /// The writer begins with it; `false` if nobody wants it any more.
    pub fn take(&self) -> bool {
        let mut state = lock(&self.state);
        let wanted = matches!(*state, State::Queued | State::Taken);
        if wanted {
            *state = State::Taken;
        }
        wanted
    }

    /// The writer has an answer; `false` if nobody waits for it any more.
    pub fn finish(&self, answer: Result<Receipt, AppendError>) -> bool {
        let mut state = lock(&self.state);
        if matches!(*state, State::Abandoned) {
            return false;
        }
        *state = State::Done(answer);
        drop(state);
        self.changed.notify_all();
        true
    }
}

/// An event that was handed to the writer. Whoever drops it without waiting has refused the action.
#[must_use = "the event is durable only when `wait` says so"]
pub struct Pending {
    shared: Arc<Shared>,
    ticket: Arc<Ticket>,
    began: Instant,
    wait: Duration,
    claimed: bool,
}

impl Pending {
    pub(super) fn new(shared: Arc<Shared>, ticket: Arc<Ticket>, began: Instant, wait: Duration) -> Self {
        Self { shared, ticket, began, wait, claimed: false }
    }

    /// Waits until the event is durable, or the bound is over.
    ///
    /// # Errors
    /// See [`AppendError`]; the caller refuses the action.
    pub fn wait(mut self) -> Result<Receipt, AppendError> {
        let mut state = lock(&self.ticket.state);
        loop {
            if let State::Done(answer) = &*state {
                self.claimed = true;
                return answer.clone();
            }
            let left = self.wait.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                // Under the same lock, so that the writer sees it if it comes later.
                *state = State::Abandoned;
                return Err(AppendError::Timeout(self.wait));
            }
            state = self.ticket.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = lock(&self.ticket.state);
        match &*state {
            State::Done(Ok(receipt)) if !self.claimed => {
                let receipt = *receipt;
                drop(state);
                self.shared.note(self.shared.unclaimed(receipt));
            }
            State::Done(_) => {}
            State::Queued | State::Taken | State::Abandoned => *state = State::Abandoned,
        }
    }
}
