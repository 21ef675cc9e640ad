//! Brings what custody carried out for the officers into the ledger, so that nobody has to carry transcripts by hand.

use crate::app::App;
use crate::custody::CustodyWatch;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use zixt_api::{AdminDecision, Bytes64, ErrorCode};
use zixt_audit::Origin;
use zixt_hsm_protocol::TakenDecision;

/// How often custody is asked for new decisions; a change of its state is asked about at once.
const POLL: Duration = Duration::from_secs(10);

/// Records decisions as they come, in their order, until `shutdown`. One that the ledger refuses for ever is said in the
/// log and does not keep the next ones back. Any other is waited for: a later number in the ledger would shut it out.
pub async fn run(app: Arc<App>, custody: Arc<CustodyWatch>, shutdown: CancellationToken) {
    let mut changes = custody.subscribe();
    let mut records = Records::default();
    loop {
        records.go_on(&app, &custody).await;
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// How far the ledger has custody's decisions.
#[derive(Default)]
pub(crate) struct Records {
    /// The next one to hand in.
    next: u64,
    /// The last one that had to wait, and for what, so that the log says it once.
    waits: Option<(u64, ErrorCode)>,
}

impl Records {
    /// Hands in what custody has, up to the first one that has to wait.
    pub(crate) async fn go_on(&mut self, app: &Arc<App>, custody: &Arc<CustodyWatch>) {
        loop {
            let (asked, next) = (Arc::clone(custody), self.next);
            let decisions = tokio::task::spawn_blocking(move || asked.custody().decisions(next)).await;
            let Ok(Ok(decisions)) = decisions else { return };
            if decisions.is_empty() {
                return;
            }
            for TakenDecision { sequence, transcript } in decisions {
                let request = AdminDecision { transcript: Bytes64(transcript), key: None };
                match app.decide(Origin::Inside, request).await {
                    Ok(_) => {}
                    Err(problem) if is_settled(problem.code) => {
                        log::error!("decision {sequence} is not recorded: {}", problem.detail);
                    }
                    Err(problem) => {
                        self.next = sequence;
                        if self.waits.replace((sequence, problem.code)) != Some((sequence, problem.code)) {
                            log::warn!("decision {sequence} waits: {}", problem.detail);
                        }
                        return;
                    }
                }
                self.next = sequence.saturating_add(1);
            }
        }
    }
}

/// Whether a decision that custody has carried out is never recorded, whatever is tried.
fn is_settled(code: ErrorCode) -> bool {
    // An administrator can hand the key in, and custody says what it uses as soon as it answers.
    code.is_final() && !matches!(code, ErrorCode::KeyMissing | ErrorCode::KeyNotActive)
}
