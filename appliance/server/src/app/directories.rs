//! Keeps accounts as directories have their people, with what the audit journal says of it.

use super::App;
use crate::access::Here;
use crate::audit::{self, with, with_text};
use crate::health::now;
use async_trait::async_trait;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use zixt_api::Problem;
use zixt_audit::{Action, Actor, Event, Origin, Outcome, Target, Value};
use zixt_directory::{Accounts, ApplyError, Clock, HeldPlan, Linked, Plan, Snapshot, Watch};
use zixt_types::Timestamp;

/// Until accounts are read there is nothing that a directory could change.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// A provider that does not answer is asked again after so long.
const DISCOVER_AGAIN: Duration = Duration::from_secs(15);

/// Watches every directory of the configuration until shutdown.
pub(crate) fn watch(app: &Arc<App>, shutdown: &CancellationToken) {
    for here in app.access.directories() {
        let (app, here, shutdown) = (Arc::clone(app), Arc::clone(here), shutdown.clone());
        tokio::spawn(async move {
            while !matches!(app.access.load().await, Ok(true)) {
                tokio::select! {
                    () = tokio::time::sleep(READ_AGAIN) => {}
                    () = shutdown.cancelled() => return,
                }
            }
            let accounts = Arc::new(LinkedAccounts { app: Arc::downgrade(&app), here: Arc::clone(&here) });
            let snapshot = here.snapshot();
            let watch = Watch::new(Arc::clone(&here.directory), accounts, Arc::new(WallClock), snapshot);
            here.watched(watch.handle());
            drop(app);
            tokio::select! {
                () = watch.run() => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        now()
    }
}

/// The accounts that are linked to one directory.
struct LinkedAccounts {
    app: Weak<App>,
    here: Arc<Here>,
}

impl LinkedAccounts {
    fn app(&self) -> Result<Arc<App>, ApplyError> {
        self.app.upgrade().ok_or_else(|| ApplyError("the appliance stops".to_owned()))
    }
}

fn failed(problem: Problem) -> ApplyError {
    ApplyError(problem.detail.into())
}

#[async_trait]
impl Accounts for LinkedAccounts {
    async fn linked(&self) -> Result<Linked, ApplyError> {
        self.app()?.access.linked(self.here.issuer()).map_err(failed)
    }

    async fn apply(&self, plan: &Plan, snapshot: &Snapshot) -> Result<(), ApplyError> {
        self.app()?.follow_directory(&self.here, plan, snapshot).await.map_err(failed)
    }

    async fn held(&self, held: &HeldPlan) -> Result<(), ApplyError> {
        let app = self.app()?;
        let mut event = app.event_of_directory(Action::DirectoryHeld, &self.here);
        with(&mut event, "plan", Value::Digest(held.digest()));
        with(&mut event, "suspends", Value::Number(held.suspends().count() as u64));
        event.outcome = Outcome::Refused(audit::code("held-back"));
        app.audit.record(event).await.map_err(failed)
    }
}

impl App {
    fn event_of_directory(&self, action: Action, here: &Here) -> Event {
        let mut event = self.audit.event(action, Actor::Appliance, Origin::Inside);
        with_text(&mut event, "directory", here.directory.config().name());
        event
    }

    /// Does what a plan says to the accounts here, and keeps what it rests on. Done in part, it goes on from there.
    async fn follow_directory(&self, here: &Here, plan: &Plan, snapshot: &Snapshot) -> Result<(), Problem> {
        let due = self.access.due(here, plan)?;
        for due in &due {
            let mut event = self.event_of_directory(due.action(), here);
            event.target = Some(Target::Account(due.account));
            let _room = self.audit.room(due.action())?;
            let done = self.access.carry_out_due(due).await?;
            let follows = done.outcome.is_ok();
            if let Err(why) = done.outcome {
                if !here.is_news(due.account) {
                    continue;
                }
                log::error!("directory {}: account {}: {why}", here.directory.config().name(), due.account);
                event.outcome = Outcome::Refused(audit::code("account-status"));
                with_text(&mut event, "because", &why);
            }
            self.audit.record(event).await?;
            here.told(due.account, follows);
        }
        self.access.keep_snapshot(here, snapshot).await?;
        if !due.is_empty() {
            let mut event = self.event_of_directory(Action::DirectorySynced, here);
            with(&mut event, "people", Value::Number(plan.people() as u64));
            with(&mut event, "accounts", Value::Number(due.len() as u64));
            self.audit.record(event).await?;
        }
        Ok(())
    }
}

/// Asks identity providers that have not answered yet, again and again.
pub(crate) fn discover(app: &Arc<App>, shutdown: &CancellationToken) {
    for idp in app.access.idps() {
        let (idp, shutdown) = (Arc::clone(idp), shutdown.clone());
        tokio::spawn(async move {
            while !idp.discover().await {
                tokio::select! {
                    () = tokio::time::sleep(DISCOVER_AGAIN) => {}
                    () = shutdown.cancelled() => return,
                }
            }
        });
    }
}
