//! The sessions of a process with one token: an anchor that keeps the login, and a bounded pool for work.

use crate::error::{TokenError, session_lost};
use cryptoki::context::Pkcs11;
use cryptoki::error::Error;
use cryptoki::session::{Session, SessionState};
use cryptoki::slot::{Limit, Slot};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sessions at most besides the anchor: more threads than a token has cores wait for nothing but the token anyway.
const SESSIONS_MAX: usize = 32;
/// How long a thread waits for a session: longer than any token works, so that what hangs is the token.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// All sessions of one login. Lives in an [`std::sync::Arc`] that signers share; [`Sessions::close`] ends the login
/// whoever still holds it.
pub(crate) struct Sessions {
    pub(crate) pkcs11: Pkcs11,
    pub(crate) slot: Slot,
    /// What errors call the token.
    name: String,
    max: usize,
    pool: Mutex<Pool>,
    freed: Condvar,
}

struct Pool {
    /// Never used for work: with the last session of a process its login ends. `None` once the token is closed.
    anchor: Option<Session>,
    idle: Vec<Session>,
    /// Taken out.
    busy: usize,
}

/// One of the places that the pool has for sessions at work; free again when dropped.
struct Place<'a>(&'a Sessions);

/// One try with one session.
pub(crate) enum Attempt<E> {
    /// The session, or the handles that were found through it, are of no use any more.
    Lost(Error),
    /// Another session would fail the same way.
    Final(E),
}

/// An error of work in a session.
pub(crate) trait SessionError: From<TokenError> {
    /// Whether a token that is gone could have said this as well. Such tokens say 'general error', or find nothing, or
    /// open nothing.
    fn is_doubtful(&self) -> bool;
}

impl SessionError for TokenError {
    fn is_doubtful(&self) -> bool {
        matches!(
            self,
            // The last for the name, which an error value has not.
            Self::Failed(_) | Self::UnsealFailed | Self::KekMissing { .. } | Self::TokenAbsent { .. }
        )
    }
}

impl<E: From<TokenError>> Attempt<E> {
    pub(crate) fn of(error: Error) -> Self {
        if session_lost(&error) { Self::Lost(error) } else { Self::Final(TokenError::of(&error).into()) }
    }

    /// The error, where no other try follows.
    pub(crate) fn last(self) -> E {
        match self {
            Self::Lost(error) => TokenError::of(&error).into(),
            Self::Final(error) => error,
        }
    }
}

impl Attempt<TokenError> {
    pub(crate) fn of_decryption(error: Error) -> Self {
        if session_lost(&error) { Self::Lost(error) } else { Self::Final(TokenError::of_decryption(&error)) }
    }
}

impl<E> From<E> for Attempt<E> {
    fn from(error: E) -> Self {
        Self::Final(error)
    }
}

impl Sessions {
    /// Takes over the session that is logged in.
    pub(crate) fn new(pkcs11: Pkcs11, slot: Slot, name: String, limit: Limit, anchor: Session) -> Self {
        let pool = Mutex::new(Pool { anchor: Some(anchor), idle: Vec::new(), busy: 0 });
        Self { pkcs11, slot, name, max: sessions_max(limit), pool, freed: Condvar::new() }
    }

    /// Runs `attempt` in a session, and once more in a new one if the first was lost.
    pub(crate) fn run<T, E: SessionError>(
        &self,
        attempt: impl Fn(&Session) -> Result<T, Attempt<E>>,
    ) -> Result<T, E> {
        let outcome = match self.once(&attempt) {
            Ok(value) => Ok(value),
            Err(Attempt::Final(error)) => Err(error),
            Err(Attempt::Lost(_)) => {
                // The others were most likely lost with it.
                self.pool().idle.clear();
                self.once(&attempt).map_err(Attempt::last)
            }
        };
        outcome.map_err(|error| self.explained(error))
    }

    /// Runs `attempt` once, for what must not happen twice.
    pub(crate) fn run_once<T, E: SessionError>(
        &self,
        attempt: impl FnOnce(&Session) -> Result<T, E>,
    ) -> Result<T, E> {
        let (place, session) = self.take()?;
        let value = attempt(&session).map_err(|error| self.explained(error))?;
        place.give_back(session);
        Ok(value)
    }

    /// Gives a session away, for work whose objects shall end with it. Its place is taken until the work is done.
    pub(crate) fn lend<T, E: SessionError>(
        &self,
        work: impl FnOnce(Session) -> Result<T, E>,
    ) -> Result<T, E> {
        let (_place, session) = self.take()?;
        work(session).map_err(|error| self.explained(error))
    }

    fn once<T, E: SessionError>(
        &self,
        attempt: &impl Fn(&Session) -> Result<T, Attempt<E>>,
    ) -> Result<T, Attempt<E>> {
        let (place, session) = self.take().map_err(E::from)?;
        let value = attempt(&session)?;
        // Only after success: a session with a failed operation may still have it open.
        place.give_back(session);
        Ok(value)
    }

    /// An idle session or a new one. A new one is logged in, because the process is.
    fn take(&self) -> Result<(Place<'_>, Session), TokenError> {
        let deadline = Instant::now() + WAIT_MAX;
        let mut pool = self.pool();
        loop {
            if pool.anchor.is_none() {
                return Err(TokenError::not_logged_in());
            }
            if let Some(session) = pool.idle.pop() {
                pool.busy += 1;
                return Ok((Place(self), session));
            }
            if pool.busy < self.max {
                pool.busy += 1;
                drop(pool);
                let place = Place(self);
                let opened = self.pkcs11.open_rw_session(self.slot);
                return Ok((place, opened.map_err(|error| TokenError::of(&error))?));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(TokenError::Failed(format!(
                    "all its {} sessions are at work and none was free for {} s",
                    self.max,
                    WAIT_MAX.as_secs()
                )));
            }
            pool = self.freed.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the login: logs out, which makes every handle to a private object invalid, and closes what is idle.
    pub(crate) fn close(&self) {
        let mut pool = self.pool();
        let idle = std::mem::take(&mut pool.idle);
        let Some(anchor) = pool.anchor.take() else { return };
        drop(pool);
        self.freed.notify_all();
        if let Err(error) = anchor.logout() {
            // The sessions' end logs out too; a token that is gone needs neither.
            log::debug!("logging out of the token: {error}");
        }
        drop(idle);
    }

    /// Whether the token answers and the process is logged in to it.
    pub(crate) fn health(&self) -> Result<(), TokenError> {
        if let Err(error) = self.pkcs11.get_token_info(self.slot) {
            log::warn!("the token does not answer: {error}");
            return Err(self.absent());
        }
        let pool = self.pool();
        let anchor = pool.anchor.as_ref().ok_or_else(TokenError::not_logged_in)?;
        match logged_in(anchor) {
            Ok(true) => Ok(()),
            Ok(false) => Err(TokenError::not_logged_in()),
            Err(error) if session_lost(&error) => Err(TokenError::not_logged_in()),
            Err(error) => Err(TokenError::of(&error)),
        }
    }

    /// What an error comes from, if the token is gone or the login has ended: this asks it.
    fn explained<E: SessionError>(&self, error: E) -> E {
        if !error.is_doubtful() {
            return error;
        }
        match self.health() {
            Err(absent @ TokenError::TokenAbsent { .. }) => absent.into(),
            Ok(()) | Err(_) => error,
        }
    }

    fn absent(&self) -> TokenError {
        TokenError::TokenAbsent { wanted: self.name.clone() }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pool = self.pool();
        f.debug_struct("Sessions")
            .field("token", &self.name)
            .field("logged_in", &pool.anchor.is_some())
            .field("idle", &pool.idle.len())
            .field("busy", &pool.busy)
            .finish()
    }
}

impl Place<'_> {
    fn give_back(self, session: Session) {
        let mut pool = self.0.pool();
        if pool.anchor.is_some() {
            pool.idle.push(session);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.pool().busy -= 1;
        self.0.freed.notify_one();
    }
}

/// Whether the session's process is logged in as the user. A token hides private objects from who is not, and then
/// says that there is no such object.
pub(crate) fn logged_in(session: &Session) -> Result<bool, Error> {
    let state = session.get_session_info()?.session_state();
    Ok(matches!(state, SessionState::RwUser | SessionState::RoUser))
}

/// How many sessions besides the anchor. A token that allows few gets few.
fn sessions_max(limit: Limit) -> usize {
    match limit {
        Limit::Max(max) if max > 0 => usize::try_from(max - 1).unwrap_or(SESSIONS_MAX).clamp(1, SESSIONS_MAX),
        Limit::Max(_) | Limit::Unavailable | Limit::Infinite => SESSIONS_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_anchor_is_counted_and_no_token_gets_no_session() {
        let cases = [(0, 32), (1, 1), (2, 1), (3, 2), (33, 32), (34, 32), (u64::MAX, 32)];
        for (limit, expected) in cases {
            assert_eq!(sessions_max(Limit::Max(limit)), expected, "{limit}");
        }
        assert_eq!(sessions_max(Limit::Infinite), SESSIONS_MAX);
        assert_eq!(sessions_max(Limit::Unavailable), SESSIONS_MAX);
    }
}
