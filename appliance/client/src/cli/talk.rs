//! Commands that talk: send, read, watch, groups, and the terminal chat.

use super::account::list;
use super::escape::{self, escape_line};
use super::exit::{Exit, Failure};
use super::output;
use super::session::Session;
use crate::tui::{self, clock};
use std::collections::BTreeSet;
use std::io::{Read as _, stdin};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use zixt_client::{ClientError, ClientEvent, Mark, MessageKind, MessageView, ThreadSummary};
use zixt_types::limits::TEXT_BYTES_MAX;
use zixt_types::{MessageId, ThreadId};

/// Pauses between two tries to send while the appliance is away.
const RETRY_MS_MIN: u64 = 100;
const RETRY_MS_MAX: u64 = 2_000;
/// Lines at the end of a conversation among which a message that was just sent is looked for.
const RECENT: usize = 1_000;
/// Events that wait to be printed; the client waits when it is full.
const EVENTS_WAITING_MAX: usize = 256;

/// `zixt send` and `zixt chat --message`
pub async fn send(session: &Session, to: &str, text: &str, queue: bool) -> Result<(), Failure> {
    let text = if text == "-" { text_of_stdin()? } else { text.to_owned() };
    let thread = session.find_or_start(to).await?;
    let id = session.client.send(thread, &text).await?;
    let view = if queue { view(session, thread, id).await? } else { recorded(session, thread, id).await? };
    session.output.result(&output::message(&view), || {
        let place = view.seq.map_or_else(String::new, |seq| format!(" as entry {seq}"));
        format!("{}{place}, message {}", output::mark(view.mark), view.id)
    })
}

fn text_of_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let limit = TEXT_BYTES_MAX as u64 + 2;
    stdin()
        .lock()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("standard input: {error}"), "Give text in UTF-8."))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() {
        return Err(Failure::usage("the text is empty", "Write something."));
    }
    Ok(text.to_owned())
}

/// Sends what is queued until this message is recorded. While the appliance is away it tries again until the timeout;
/// the message stays queued then.
async fn recorded(session: &Session, thread: ThreadId, id: MessageId) -> Result<MessageView, Failure> {
    let deadline = Instant::now() + session.timeout();
    let mut pause = RETRY_MS_MIN;
    let mut last: Option<Failure> = None;
    loop {
        let flushed = timeout_at(deadline, session.client.flush()).await;
        let view = view(session, thread, id).await?;
        if view.mark >= Mark::Recorded {
            return Ok(view);
        }
        if let MessageKind::Unreadable(reason) = &view.kind {
            return Err(Failure::new(
                Exit::Refused,
                format!("message {id}: {reason}"),
                "It will not be sent.",
            ));
        }
        match flushed {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let mut failure = Failure::from(error);
                if failure.exit != Exit::Away {
                    failure.what = format!("{} (message {id} is not recorded)", failure.what);
                    return Err(failure);
                }
                if last.is_none() {
                    let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
                    session.output.remark(&format!(
                        "The message is queued: {}; trying for {seconds} s more (Ctrl-C leaves it queued)",
                        failure.what
                    ));
                }
                last = Some(failure);
            }
            Err(_) => break,
        }
        // An alarm stopped the conversation meanwhile: it will not be sent, however long one waits.
        still_trusted(&session.summary(thread).await?)?;
        let wake = Instant::now() + Duration::from_millis(pause);
        if wake >= deadline {
            break;
        }
        sleep_until(wake).await;
        pause = (pause * 2).min(RETRY_MS_MAX);
    }
    let seconds = session.timeout().as_secs();
    let why = last.map_or_else(|| "no answer".to_owned(), |failure| failure.what);
    Err(Failure::new(
        Exit::Away,
        format!("message {id} was not recorded within {seconds} s: {why}"),
        "It stays queued on this device; the next command that reaches the appliance sends it (zixt sync). Do not \
         send it again.",
    ))
}

/// Fails if a trust alarm has stopped a conversation.
fn still_trusted(thread: &ThreadSummary) -> Result<(), Failure> {
    match &thread.blocked {
        Some(why) => Err(ClientError::Blocked(why.clone()).into()),
        None => Ok(()),
    }
}

async fn view(session: &Session, thread: ThreadId, id: MessageId) -> Result<MessageView, Failure> {
    let views = session.client.history(thread, None, RECENT).await?;
    views.into_iter().rev().find(|view| view.id == id).ok_or_else(|| {
        Failure::new(Exit::Internal, format!("message {id} is not among the last {RECENT}"), "See zixt read.")
    })
}

/// `zixt chat NAME`
pub async fn chat(session: &Session, name: &str) -> Result<(), Failure> {
    let thread = session.find_or_start(name).await?;
    tui::run(&session.client, Some(thread)).await
}

/// `zixt tui [TO]`
pub async fn tui(session: &Session, to: Option<&str>) -> Result<(), Failure> {
    let first = match to {
        Some(to) => Some(session.find(to).await?.thread),
        None => None,
    };
    tui::run(&session.client, first).await
}

/// `zixt group create`
pub async fn create(session: &Session, title: &str, names: &[String]) -> Result<(), Failure> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let thread = session.wait(session.client.start_conversation(&names, Some(title))).await?;
    show_changed(session, thread).await
}

/// `zixt group add`
pub async fn add(session: &Session, to: &str, names: &[String]) -> Result<(), Failure> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let thread = current(session, to).await?;
    session.wait(session.client.add_members(thread, &names)).await?;
    show_changed(session, thread).await
}

/// Shows a group that was changed, unless a trust alarm came of what followed the change.
async fn show_changed(session: &Session, id: ThreadId) -> Result<(), Failure> {
    show_group(session, id).await?;
    still_trusted(&session.summary(id).await?)
}

/// `zixt group alias`
pub async fn alias(session: &Session, to: &str, title: Option<&str>) -> Result<(), Failure> {
    let thread = session.find(to).await?.thread;
    session.client.set_local_title(thread, title).await?;
    show_group(session, thread).await
}

/// `zixt group remove`
pub async fn remove(session: &Session, to: &str, names: &[String]) -> Result<(), Failure> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let thread = current(session, to).await?;
    session.wait(session.client.remove_members(thread, &names)).await?;
    show_changed(session, thread).await
}

/// A conversation, after everything that others changed in it was fetched.
async fn current(session: &Session, to: &str) -> Result<ThreadId, Failure> {
    session.sync().await?;
    Ok(session.find(to).await?.thread)
}

async fn show_group(session: &Session, id: ThreadId) -> Result<(), Failure> {
    let summary = session.summary(id).await?;
    session.output.result(&output::thread(&summary), || thread_line(&summary))
}

/// `zixt threads`
pub async fn threads(session: &Session) -> Result<(), Failure> {
    let threads = session.client.threads().await?;
    let document = list("threads", threads.iter().map(output::thread).collect());
    session.output.result(&document, || match threads.is_empty() {
        true => "No conversation yet. Start one: zixt chat NAME".to_owned(),
        false => threads.iter().map(thread_line).collect::<Vec<_>>().join("\n"),
    })
}

fn thread_line(thread: &ThreadSummary) -> String {
    let time = thread.last_time.map_or_else(
        || "                 ".to_owned(),
        |time| {
            let (date, time) = clock(time.0);
            format!("{date} {time}Z")
        },
    );
    let id: String = thread.thread.to_hex().chars().take(12).collect();
    let people: Vec<String> = thread.people.iter().map(|name| escape_line(name)).collect();
    let mut line = format!("{id}  {time}  {}  [{}]", escape_line(&thread.title), people.join(", "));
    if thread.unread > 0 {
        line.push_str(&format!("  {} unread", thread.unread));
    }
    if thread.queued > 0 {
        line.push_str(&format!("  {} queued", thread.queued));
    }
    if thread.removed {
        line.push_str("  (you were removed)");
    }
    if let Some(reason) = &thread.blocked {
        line.push_str(&format!("  STOPPED: {}", escape_line(reason)));
    }
    line
}

/// `zixt read`
pub async fn read(session: &Session, to: Option<&str>, limit: u32, follow: bool) -> Result<(), Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let chosen = match to {
        // With --follow the conversation may be one that has just begun.
        Some(to) if follow => vec![session.find_or_sync(to).await?],
        Some(to) => vec![session.find(to).await?],
        None => session.client.threads().await?,
    };
    let mut all = Vec::new();
    // The latest conversation comes last, next to the prompt.
    for thread in chosen.iter().rev() {
        let views = session.client.history(thread.thread, None, limit).await?;
        if session.output.json && follow {
            for view in &views {
                output::line(&escape::json(&output::message(view).to_string()))?;
            }
        } else if session.output.json {
            all.extend(views.iter().map(output::message));
        } else {
            output::line(&format!("== {}", thread_line(thread)))?;
            for view in &views {
                output::line(&output::message_line(view))?;
            }
        }
        session.client.mark_shown(thread.thread).await?;
    }
    if !follow {
        return if session.output.json {
            session.output.result(&list("messages", all), String::new)
        } else {
            Ok(())
        };
    }
    let wanted: Option<ThreadId> = to.and(chosen.first()).map(|thread| thread.thread);
    // What was queued and shown as such above is shown again once it is recorded; nothing else comes twice.
    let mut shown = BTreeSet::new();
    stream(session, async |event| follow_event(session, &event, wanted, &mut shown).await).await
}

async fn follow_event(
    session: &Session,
    event: &ClientEvent,
    wanted: Option<ThreadId>,
    shown: &mut BTreeSet<MessageId>,
) -> Result<(), Failure> {
    match event {
        ClientEvent::Message(view) if wanted.is_none_or(|wanted| wanted == view.thread) => {
            // Roster changes have no message id of their own to tell them apart.
            if view.kind == MessageKind::Text && !shown.insert(view.id) {
                return Ok(());
            }
            if session.output.json {
                output::line(&escape::json(&output::message(view).to_string()))?;
            } else {
                let line = output::message_line(view);
                let title = match wanted {
                    Some(_) => String::new(),
                    None => format!("[{}] ", escape_line(&session.summary(view.thread).await?.title)),
                };
                output::line(&format!("{title}{line}"))?;
            }
            session.client.mark_shown(view.thread).await?;
        }
        ClientEvent::Alarm(alarm) => eprintln!("!!! ALARM: {}", escape_line(&alarm.text)),
        ClientEvent::KeyChange { name, .. } => {
            session.output.remark(&format!("! the devices of {name} changed: zixt verify {name}"));
        }
        ClientEvent::SendFailed { reason, .. } => session.output.remark(&format!("! not sent: {reason}")),
        ClientEvent::ConnectionDown { reason } => session.output.remark(&format!("(away: {reason})")),
        ClientEvent::ConnectionUp => session.output.remark("(connected)"),
        _ => {}
    }
    Ok(())
}

/// `zixt watch`
pub async fn watch(session: &Session) -> Result<(), Failure> {
    stream(session, async |event| output::line(&escape::json(&output::event(&event).to_string()))).await
}

/// Runs the client and hands each event on, until Ctrl-C or SIGTERM.
async fn stream(
    session: &Session,
    mut handle: impl AsyncFnMut(ClientEvent) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let signals = |error: std::io::Error| Failure::new(Exit::Internal, format!("signals: {error}"), "");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let (sender, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
    let client = session.client.clone();
    let mut running = tokio::spawn(async move { client.run(sender).await });
    let ended = loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            event = events.recv() => match event {
                Some(event) => handle(event).await?,
                None => break Some((&mut running).await),
            },
        }
    };
    running.abort();
    match ended {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(error.into()),
        Some(Err(error)) => Err(Failure::new(Exit::Internal, error.to_string(), "Start it again.")),
    }
}

/// `zixt sync`: ends with a trust violation if it raised an alarm.
pub async fn sync(session: &Session) -> Result<(), Failure> {
    let report = session.sync().await?;
    session.output.result(&output::report(&report), || {
        format!(
            "{} new message(s), {} sent, {} queued; the ledger is at height {}",
            report.messages, report.sent, report.queued, report.height
        )
    })?;
    if report.alarms > 0 {
        return Err(Failure::new(
            Exit::Trust,
            format!("{} alarm(s) were raised", report.alarms),
            "Read them before you go on: zixt alarms",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_types::{Epoch, ThreadKind};

    #[test]
    fn waiting_ends_when_an_alarm_stops_the_conversation() {
        let mut thread = ThreadSummary {
            thread: ThreadId::new(ThreadKind::Conversation, &[1; 31]),
            title: "bob".into(),
            title_is_shared: false,
            people: Vec::new(),
            members: Vec::new(),
            epoch: Epoch(1),
            last_seq: None,
            last_time: None,
            last_text: None,
            unread: 0,
            queued: 1,
            removed: false,
            blocked: None,
        };
        assert_eq!(still_trusted(&thread), Ok(()));
        thread.blocked = Some("the receipt is for something else".into());
        let failure = still_trusted(&thread).unwrap_err();
        assert_eq!(failure.exit, Exit::Trust);
        assert!(failure.what.contains("the receipt"), "{failure}");
    }
}
