//! What administrators ask for.

use super::App;
use super::submit::parse;
use crate::{names, problem};
use std::sync::atomic::Ordering;
use zixt_api::{AdminInvitation, AdminStatus, ErrorCode, HeaderInfo, Problem, Receipt};
use zixt_crypto::digest;
use zixt_ledger::ThreadDetail;
use zixt_types::{Author, Payload};

impl App {
    /// Creates an account.
    ///
    /// # Errors
    /// The name is taken or is not the one that the entry commits to, or the entry was refused.
    pub async fn create_account(&self, request: AdminInvitation) -> Result<Receipt, Problem> {
        let submission = parse(request.submission)?;
        let (Payload::Invite { account, name: commitment, .. }, Author::Enroller(_)) =
            (&submission.body.payload, submission.body.author)
        else {
            return Err(Problem::new(
                ErrorCode::WrongKind,
                "an account begins with an enroller's invitation",
            ));
        };
        let (account, salt) = (*account, request.salt.0);
        if !names::is_allowed(&request.name) {
            return Err(Problem::new(ErrorCode::NameInvalid, "the name has letters that are not allowed"));
        }
        if digest::name_commitment(&salt, &request.name) != *commitment {
            return Err(Problem::new(ErrorCode::NameMismatch, "name and salt do not open the commitment"));
        }
        self.check_can_record()?;
        let sealing = self.custody.names().ok_or_else(|| problem::of_custody(self.custody.state()))?;
        let tag = sealing.tag(&request.name);
        let sealed = sealing.seal(account, &request.name, &salt).map_err(|error| {
            log::error!("{error}");
            Problem::new(ErrorCode::StoreFailed, "the name cannot be sealed")
        })?;

        let _alone = self.naming.lock().await;
        let holder = self.store.name_by_tag(tag.as_ref()).await.map_err(|error| problem::of_store(&error))?;
        if holder.is_some_and(|holder| holder.account != account) {
            return Err(Problem::new(ErrorCode::NameTaken, "the name is taken"));
        }
        // The entry first: a name without an account could never be given again. After a crash in between, the same
        // request repairs it.
        let receipt = self.record_one(submission).await?;
        let named = self.store.put_name(account, &sealed, tag.as_ref()).await;
        named.map_err(|error| problem::of_name(&error))?;
        log::info!("account {account} was created");
        Ok(receipt)
    }

    /// The appliance in short.
    #[must_use]
    pub fn status(&self) -> AdminStatus {
        let inner = self.view.read();
        let state = &inner.state;
        let (mut accounts, mut devices, mut conversations) = (0, 0, 0);
        for (_, thread) in state.threads() {
            match &thread.detail {
                ThreadDetail::Account(account) => {
                    accounts += 1;
                    devices += account.active_devices().count() as u64;
                }
                ThreadDetail::Conversation(_) => conversations += 1,
            }
        }
        AdminStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: state.genesis.network.clone(),
            genesis: state.genesis_hash.into(),
            lab: state.genesis.lab,
            suite: state.genesis.suite().name().to_owned(),
            suite_id: state.genesis.suite().id(),
            listen: self.about.listen.clone(),
            tls: self.about.tls.into(),
            latest: HeaderInfo { height: state.height.0, hash: state.header_hash.into(), time: state.time.0 },
            custody: self.custody.state(),
            custody_mode: self.about.custody_mode.clone(),
            store_writable: self.vitals.store_writable(),
            accounts,
            devices,
            conversations,
            connections: self.vitals.connections.load(Ordering::Relaxed),
            streams: self.push.count() as u64,
            queued: self.vitals.queued.load(Ordering::Relaxed),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}
