//! Ends, in the ledger, the devices of accounts that have ended or were recovered. Groups remove a revoked device and renew
//! their keys when their members see it.

use super::App;
use crate::health::now;
use crate::problem;
use crate::sequencer::Unrecorded;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use zixt_api::Problem;
use zixt_audit::{Action, Actor, Origin, Target};
use zixt_crypto::{digest, fill_random};
use zixt_ledger::Submission;
use zixt_types::{
    AccountId, Author, Body, Canonical as _, DeviceId, KeyPurpose, MessageId, Payload, RevokeReason,
};

/// How often it is looked for what could not be done at once: custody was locked, or the server was killed.
const AGAIN: Duration = Duration::from_secs(30);

/// Looks after it until shutdown.
pub(crate) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    loop {
        app.revoke_leavers().await;
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

impl App {
    /// Ends the devices of all who have left, as far as it goes now. The rest waits.
    pub(crate) async fn revoke_leavers(&self) {
        let _alone = self.leaving.lock().await;
        let due = self.access.devices_to_revoke();
        // While nothing can be recorded, nothing is tried, and nothing said of it again and again.
        if due.is_empty() || self.check_can_record().is_err() || self.audit.check().is_err() {
            return;
        }
        for (account, reason) in due {
            // One that does not work keeps no other back.
            if let Err(problem) = self.revoke_devices(account, reason).await {
                log::warn!("devices of account {account} are not revoked yet: {}", problem.detail);
            }
        }
    }

    async fn revoke_devices(&self, account: AccountId, reason: RevokeReason) -> Result<(), Problem> {
        let active: Vec<DeviceId> = {
            let view = self.view.read();
            let known = view.state.account(account);
            known.into_iter().flat_map(|known| known.active_devices()).map(|device| device.id).collect()
        };
        for device in active {
            let mut event = self.audit.event(Action::DeviceRevoked, Actor::Appliance, Origin::Inside);
            event.target = Some(Target::Device(account, device));
            let done = self.revoke_device(account, device, reason).await;
            event.outcome = crate::audit::outcome(&done);
            // It is tried again and again; that it did not work is recorded once in a while.
            if done.is_ok() || self.repeats.tell((Action::DeviceRevoked, Some(account), None)).is_some() {
                self.audit.record(event).await?;
            }
            done?;
            log::info!("device {device} of account {account} was revoked");
        }
        Ok(())
    }

    async fn revoke_device(
        &self,
        account: AccountId,
        device: DeviceId,
        reason: RevokeReason,
    ) -> Result<(), Problem> {
        self.check_can_record()?;
        let enroller = self.custody.present(KeyPurpose::Enroller).map(|key| key.hash);
        let enroller = enroller.ok_or_else(|| problem::of_custody(self.custody.state()))?;
        let mut message_id = [0; MessageId::LEN];
        fill_random(&mut message_id).map_err(|_| problem::of_unrecorded(&Unrecorded::Stopped))?;
        let author = Author::Enroller(enroller);
        let thread = digest::account_thread(account);
        let body = {
            let state = &self.view.read().state;
            Body {
                version: Body::VERSION,
                suite: state.genesis.suite(),
                genesis: state.genesis_hash,
                thread,
                author,
                counter: state.thread(&thread).map_or(0, |thread| thread.counter(&author)),
                message_id: MessageId(message_id),
                sent_at: now(),
                last_seen: None,
                payload: Payload::DeviceRevoke { device, reason },
            }
        };
        let (custody, signed) = (Arc::clone(&self.custody), body.clone());
        let signature = tokio::task::spawn_blocking(move || custody.custody().sign_revocation(&signed)).await;
        let signature = signature.map_err(|_| problem::of_unrecorded(&Unrecorded::Stopped))?;
        let signature = signature.map_err(|error| {
            log::warn!("custody signs no revocation: {}", crate::logging::chain(&*error));
            problem::of_custody(self.custody.state())
        })?;
        let submission = Submission::parse(body.to_bytes(), signature, None, Vec::new());
        let submission = submission.map_err(|error| problem::of_submission(&error))?;
        self.record_one(submission).await.map(|_| ())
    }
}
