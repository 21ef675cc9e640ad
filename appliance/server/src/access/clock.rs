//! The appliance's wall clock: the system's, and how far an officer has set it from that.
//!
//! There is no NTP in a network without connections, and a server that may set its machine's clock may do more than it has to.
//! So the clock that the appliance goes by is the system's plus a difference, which a security officer sets: sealed, recorded,
//! and in force again after a start as soon as custody gives the keys. Ledger time never goes back, whatever is set.

use super::{Access, AccessKeys, problems, put};
use crate::health;
use zixt_api::{ClockInfo, ErrorCode, Problem};
use zixt_identity::{Caller, Permission};
use zixt_storage::{AccessKind, StoreError};
use zixt_types::{Timestamp, limits};

/// The setting.
const OFFSET: &[u8] = b"clock-offset";
/// What is farther away than this from the ledger's time or from the system's clock is a slip of the hand, unless it is said
/// twice.
const FAR_MS: u64 = 31 * 86_400_000;

impl Access {
    /// Takes up what was set before.
    pub(super) async fn read_clock(&self, keys: &AccessKeys) -> Result<(), StoreError> {
        let Some(sealed) = self.store.access(AccessKind::Setting, OFFSET).await? else { return Ok(()) };
        let opened = keys.open(AccessKind::Setting, OFFSET, &sealed).ok();
        match opened.and_then(|bytes| bytes.as_slice().try_into().ok().map(i64::from_be_bytes)) {
            Some(offset) => health::set_offset(offset),
            None => log::error!("how far the clock was set is damaged: the system's clock counts"),
        }
        Ok(())
    }

    /// How the clocks stand.
    pub(crate) fn clock(&self) -> ClockInfo {
        let (system, wall, ledger) = (health::system_now(), health::now(), self.view.read().state.time);
        ClockInfo {
            wall: wall.0,
            system: system.0,
            ledger: ledger.0,
            offset_ms: health::offset(),
            ahead_of_ledger_ms: i64::try_from(i128::from(wall.0) - i128::from(ledger.0)).unwrap_or(i64::MAX),
        }
    }

    /// Sets the clock. Gives how it stood and how it stands.
    ///
    /// # Errors
    /// The caller may not now, or the time is far away and it was not said that this is meant.
    pub(crate) async fn set_clock(
        &self,
        caller: &Caller,
        time: Timestamp,
        far: bool,
    ) -> Result<(ClockInfo, ClockInfo), Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        {
            let now = self.now();
            let inner = self.inner()?;
            let actor = caller.acting(inner.own(caller)?, now.wall).map_err(problems::of_forbidden)?;
            actor.require(Permission::SetClock).map_err(problems::of_forbidden)?;
            actor.require_recent().map_err(problems::of_forbidden)?;
        }
        let before = self.clock();
        let is_far = |other: u64| time.0.abs_diff(other) > FAR_MS;
        if time.0 > limits::CLOCK_MS_MAX {
            return Err(Problem::new(ErrorCode::MalformedRequest, "there is no such time"));
        }
        if (is_far(before.ledger) || is_far(before.system)) && !far {
            return Err(Problem::new(
                ErrorCode::ClockFar,
                format!(
                    "{} is more than 31 days from the ledger's time or from the machine's clock",
                    time.utc()
                ),
            ));
        }
        let offset = i128::from(time.0) - i128::from(health::system_now().0);
        let offset = i64::try_from(offset)
            .map_err(|_| Problem::new(ErrorCode::MalformedRequest, "there is no such time"))?;
        let sealed = keys.seal(AccessKind::Setting, OFFSET, &offset.to_be_bytes());
        let sealed = sealed.map_err(|error| Problem::new(ErrorCode::StoreFailed, error.to_string()))?;
        self.write(&[put(AccessKind::Setting, OFFSET, sealed)]).await?;
        health::set_offset(offset);
        Ok((before, self.clock()))
    }
}
