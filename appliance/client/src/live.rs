//! The connection that stays: events as they come, the outbox, and connecting again.

use crate::connection::{ConnectionError, Lines};
use crate::engine::Engine;
use crate::error::ClientError;
use crate::model::{ClientEvent, SyncReport};
use crate::shared::Core;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, timeout};
use zixt_api::{ErrorCode, StreamLine};

/// Silence after which a backlog counts as drained when no heartbeat says that it is: after events, which the appliance
/// sends without pauses.
const DRAINED: Duration = Duration::from_millis(300);
/// The same as long as no event came: the appliance may be reading the first one from its disk.
const EMPTY: Duration = Duration::from_secs(3);
/// For the first line, which the appliance sends at once.
const FIRST_LINE: Duration = Duration::from_secs(10);
/// Silence after which a stream counts as dead; the appliance sends heartbeats more often.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// First pause before connecting again; doubles up to the last.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The pause while the appliance does not let the account in.
const SHUT_OUT: Duration = Duration::from_secs(120);
/// People, key packages and rotation are looked after this often: a device that was revoked is out of every
/// conversation so soon, also of those in which nobody writes.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Handles everything that is there, sends what waits, and returns.
pub async fn sync_once(engine: &Mutex<Engine>) -> Result<SyncReport, ClientError> {
    housekeeping(engine).await?;
    drain(engine).await?;
    let mut engine = engine.lock().await;
    engine.flush().await?;
    engine.rotate_due().await?;
    engine.report().await
}

async fn drain(engine: &Mutex<Engine>) -> Result<(), ClientError> {
    let mut lines = open(engine).await?;
    let (mut first, mut events) = (true, false);
    loop {
        let patience = match (first, events) {
            (true, _) => FIRST_LINE,
            (false, false) => EMPTY,
            (false, true) => DRAINED,
        };
        let line = match timeout(patience, lines.next()).await {
            Err(_) if first => return Err(ConnectionError::Timeout.into()),
            Err(_) => return Ok(()),
            Ok(line) => line?,
        };
        let Some(line) = line else { return Ok(()) };
        match parse(&line)? {
            // The first says where the stream begins, a later one that there is nothing more.
            StreamLine::Heartbeat { .. } if std::mem::take(&mut first) => {}
            StreamLine::Heartbeat { .. } => return Ok(()),
            StreamLine::End { problem } => return Err(problem.into()),
            event @ StreamLine::Event { .. } => {
                (first, events) = (false, true);
                engine.lock().await.handle(event).await?;
            }
        }
    }
}

async fn open(engine: &Mutex<Engine>) -> Result<Box<dyn Lines>, ClientError> {
    let (api, cursor) = {
        let engine = engine.lock().await;
        (engine.core.api.clone(), engine.cursor())
    };
    api.stream(cursor).await
}

/// What every connection begins with: the ledger continues, people are who they were, keys are there.
async fn housekeeping(engine: &Mutex<Engine>) -> Result<(), ClientError> {
    let mut engine = engine.lock().await;
    let api = engine.core.api.clone();
    let result = async {
        engine.ledger.advance(&api).await?;
        engine.refresh_people().await?;
        engine.publish_keys().await
    }
    .await;
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(engine.noticed(error, None).await?),
    }
}

/// Runs until nobody listens any more.
pub async fn run(
    core: &Arc<Core>,
    engine: &Mutex<Engine>,
    events: mpsc::Sender<ClientEvent>,
) -> Result<(), ClientError> {
    // The engine never waits for a slow listener.
    let (sink, mut source) = mpsc::unbounded_channel();
    core.listen(Some(sink));
    let forward = async {
        while let Some(event) = source.recv().await {
            if events.send(event).await.is_err() {
                return;
            }
        }
    };
    let result = tokio::select! {
        () = forward => Ok(()),
        () = events.closed() => Ok(()),
        result = connect_forever(core, engine) => result,
    };
    core.listen(None);
    result
}

async fn connect_forever(core: &Core, engine: &Mutex<Engine>) -> Result<(), ClientError> {
    let mut backoff = BACKOFF_MIN;
    loop {
        let mut was_up = false;
        let error = match connected(core, engine, &mut was_up).await {
            Ok(()) => ConnectionError::Interrupted("the appliance ended the stream".to_owned()).into(),
            Err(error) => error,
        };
        match &error {
            ClientError::Store(_) => return Err(error),
            ClientError::Trust(fault) if matches!(**fault, crate::trust::TrustError::Fork(_)) => {
                return Err(error);
            }
            ClientError::Refused(problem)
                if matches!(problem.code, ErrorCode::CallerRevoked | ErrorCode::UnknownCaller) =>
            {
                return Err(error);
            }
            _ => {}
        }
        if was_up {
            backoff = BACKOFF_MIN;
        }
        core.emit(ClientEvent::ConnectionDown { reason: error.to_string() });
        // Who is not let in is not let in a moment later either, and each try is counted against the address.
        let shut_out = matches!(&error, ClientError::Refused(problem)
            if matches!(problem.code, ErrorCode::SignInRefused | ErrorCode::SignInLocked));
        sleep(if shut_out { SHUT_OUT } else { backoff }).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn connected(core: &Core, engine: &Mutex<Engine>, was_up: &mut bool) -> Result<(), ClientError> {
    housekeeping(engine).await?;
    let mut looked_after = Instant::now();
    let mut lines = open(engine).await?;
    let mut last_line = Instant::now();
    let (mut up, mut first) = (false, true);
    let mut flush = true;
    loop {
        if up && flush {
            flush = false;
            let mut engine = engine.lock().await;
            match engine.flush().await {
                Ok(_) => {}
                // The appliance is busy or locked: what waits, waits.
                Err(ClientError::Refused(problem)) if !problem.code.is_final() => {
                    log::info!("the outbox waits: {problem}");
                }
                Err(error) => return Err(error),
            }
        }
        let patience = if up { Duration::from_secs(15) } else { DRAINED };
        tokio::select! {
            line = lines.next() => {
                let Some(line) = line? else { return Ok(()) };
                last_line = Instant::now();
                match parse(&line)? {
                    StreamLine::End { problem } => return Err(problem.into()),
                    // The first says where the stream begins; the backlog follows.
                    StreamLine::Heartbeat { .. } if std::mem::take(&mut first) => continue,
                    StreamLine::Heartbeat { .. } => flush = true,
                    event @ StreamLine::Event { .. } => {
                        first = false;
                        engine.lock().await.handle(event).await?;
                        continue;
                    }
                }
            }
            () = core.wake.notified() => flush = true,
            () = sleep(patience) => flush = true,
        }
        if !up {
            // A pause: the backlog is drained.
            up = true;
            *was_up = true;
            core.emit(ClientEvent::ConnectionUp);
        }
        if last_line.elapsed() > SILENCE_MAX {
            return Err(ConnectionError::Timeout.into());
        }
        if looked_after.elapsed() > HOUSEKEEPING {
            looked_after = Instant::now();
            housekeeping(engine).await?;
            engine.lock().await.rotate_due().await?;
        }
    }
}

fn parse(line: &[u8]) -> Result<StreamLine, ConnectionError> {
    serde_json::from_slice(line).map_err(|error| ConnectionError::Protocol(error.to_string()))
}
