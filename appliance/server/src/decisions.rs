//! Brings what custody carried out for the officers into the ledger, so that nobody has to carry transcripts by hand.

use crate::app::App;
use crate::custody::CustodyWatch;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use zixt_api::{AdminDecision, Bytes64};

/// How often custody is asked for new decisions; a change of its state is asked about at once.
const POLL: Duration = Duration::from_secs(10);

/// Records decisions as they come, until `shutdown`. One that the ledger refuses is said in the log, and an administrator
/// can hand it in (`zixt-admin decide`); it does not keep the next ones back.
pub async fn run(app: Arc<App>, custody: Arc<CustodyWatch>, shutdown: CancellationToken) {
    let mut changes = custody.subscribe();
    let mut from = 0;
    loop {
        from = record(&app, &custody, from).await;
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// Records what custody has from a number on. Returns where to go on: at the first one that may succeed later.
async fn record(app: &Arc<App>, custody: &Arc<CustodyWatch>, from: u64) -> u64 {
    let mut next = from;
    let mut later = None;
    loop {
        let asked = Arc::clone(custody);
        let Ok(Ok(decisions)) = tokio::task::spawn_blocking(move || asked.custody().decisions(next)).await
        else {
            return later.unwrap_or(next);
        };
        let Some(last) = decisions.last() else { return later.unwrap_or(next) };
        next = last.sequence + 1;
        for decision in decisions {
            let request = AdminDecision { transcript: Bytes64(decision.transcript), key: None };
            match app.decide(request).await {
                Ok(_) => {}
                Err(problem) if problem.code.is_final() => {
                    log::error!("decision {} is not recorded: {}", decision.sequence, problem.detail);
                }
                // The ledger may have to know another key first, which a later decision brings.
                Err(_) => later = later.or(Some(decision.sequence)),
            }
        }
    }
}
