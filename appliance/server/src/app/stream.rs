//! The push stream of a device.

use super::read::entry_view;
use super::{App, Kept};
use crate::access::sign_in_needed;
use crate::problem;
use crate::push::Subscription;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use zixt_api::{ErrorCode, Problem, StreamLine};
use zixt_storage::{Delivery, Position};
use zixt_types::{Hash, Member, SessionId, limits};

/// Without an event, a heartbeat says that the connection is alive.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Events on their way to a consumer that is not reading.
const LINES_MAX: usize = 16;
/// A consumer that takes no line for so long is gone or hopeless.
const CONSUMER_WAIT_MAX: Duration = Duration::from_secs(30);

/// The lines of a stream, as they come.
pub type Events = mpsc::Receiver<Kept<StreamLine>>;

impl App {
    /// Opens the stream of the device that holds `tls`. `after` acknowledges; without it, the stream begins after what
    /// was acknowledged last.
    ///
    /// # Errors
    /// The device has too many streams.
    pub async fn stream(
        self: &Arc<Self>,
        caller: Member,
        tls: Hash,
        session: SessionId,
        after: Option<u64>,
    ) -> Result<Events, Problem> {
        let Some(subscription) = self.push.subscribe(caller) else {
            return Err(Problem::new(ErrorCode::TooManyStreams, "the device has as many streams as it may"));
        };
        let acknowledged =
            self.store.acknowledged(&caller).await.map_err(|error| problem::of_store(&error))?;
        let cursor = match after {
            // What is not there yet cannot have been received: it will be told when it comes.
            Some(after) => {
                let end = self.store.last_position().await.map_err(|error| problem::of_store(&error))?;
                Position(after).min(end)
            }
            None => acknowledged,
        };
        if cursor > acknowledged {
            let noted = self.store.acknowledge(&caller, cursor).await;
            noted.map_err(|error| problem::of_store(&error))?;
        }
        let (lines, events) = mpsc::channel(LINES_MAX);
        let ended = self.access.ended(session);
        let last = lines.clone();
        let stream = Stream { app: Arc::clone(self), caller, tls, cursor, upto: cursor, subscription, lines };
        tokio::spawn(async move {
            tokio::select! {
                () = stream.run() => {}
                // At once, whatever the stream does or waits for.
                () = ended => {
                    let _ = last.try_send(Kept::small(StreamLine::End { problem: sign_in_needed() }));
                }
            }
        });
        Ok(events)
    }
}

fn stopping() -> Problem {
    Problem::new(ErrorCode::ShuttingDown, "the appliance is about to stop")
}

struct Stream {
    app: Arc<App>,
    caller: Member,
    tls: Hash,
    /// The last event that was sent, or acknowledged before.
    cursor: Position,
    /// There is nothing for the device between the cursor and this.
    upto: Position,
    subscription: Subscription,
    lines: mpsc::Sender<Kept<StreamLine>>,
}

/// The stream is over and nobody listens.
struct Gone;

impl Stream {
    async fn run(mut self) {
        // Says at once that the stream stands and where it begins.
        let mut quiet = self.heartbeat().await;
        let mut backlog = true;
        let problem = loop {
            if quiet.is_err() {
                return;
            }
            self.subscription.mark();
            match self.app.caller(&self.tls) {
                Ok(member) if member == self.caller => {}
                _ => break Problem::new(ErrorCode::CallerRevoked, "the device was revoked"),
            }
            match self.catch_up().await {
                // Says that the backlog is over, so that whoever only fetches it need not wait for silence.
                Ok(Ok(())) if std::mem::take(&mut backlog) => {
                    if self.heartbeat().await.is_err() {
                        return;
                    }
                }
                Ok(Ok(())) => {}
                Ok(Err(Gone)) => return,
                // The store closes when the appliance stops.
                Err(_) if self.app.shutdown.is_cancelled() => break stopping(),
                Err(problem) => break problem,
            }
            quiet = tokio::select! {
                () = self.subscription.woken() => Ok(()),
                () = tokio::time::sleep(HEARTBEAT) => self.heartbeat().await,
                () = self.lines.closed() => return,
                () = self.app.shutdown.cancelled() => {
                    break stopping();
                }
            };
        };
        // The best that can be done; a consumer that does not read will see the connection end.
        let _ = self.lines.try_send(Kept::small(StreamLine::End { problem }));
    }

    /// Sends everything after the cursor.
    async fn catch_up(&mut self) -> Result<Result<(), Gone>, Problem> {
        loop {
            let page = self.app.store.mailbox(&self.caller, self.upto, limits::EVENTS_PAGE_MAX).await;
            let page = page.map_err(|error| problem::of_store(&error))?;
            if page.positions.is_empty() {
                self.upto = page.upto;
                return Ok(Ok(()));
            }
            // A large envelope comes alone: as it is stored, as it is sent, and copied once.
            let (bytes, takes) = (page.envelope_bytes, page.envelope_bytes * 10 / 3);
            let mut room = self.app.room_for(&self.app.rooms.lines, self.tls, bytes, takes).await?;
            let deliveries = self.app.store.deliveries(&page.positions).await;
            for Delivery { entry, envelope } in deliveries.map_err(|error| problem::of_store(&error))? {
                let position = entry.position;
                let line = StreamLine::Event {
                    position: position.0,
                    entry: entry_view(&entry),
                    attachment: envelope.map(|envelope| envelope.as_ref().clone().into()),
                    proof: self.app.prove(&entry).await?,
                };
                if self.send(Kept { value: line, room: room.take() }).await.is_err() {
                    return Ok(Err(Gone));
                }
                self.cursor = position;
            }
            self.upto = page.upto;
            if self.app.shutdown.is_cancelled() {
                return Ok(Ok(()));
            }
        }
    }

    async fn heartbeat(&self) -> Result<(), Gone> {
        let height = self.app.view.read().state.height.0;
        self.send(Kept::small(StreamLine::Heartbeat { position: self.cursor.0, height })).await
    }

    async fn send(&self, line: Kept<StreamLine>) -> Result<(), Gone> {
        match tokio::time::timeout(CONSUMER_WAIT_MAX, self.lines.send(line)).await {
            Ok(sent) => sent.map_err(|_| Gone),
            Err(_) => {
                log::info!("stream of device {}: closed, it is not read", self.caller.device);
                Err(Gone)
            }
        }
    }
}
