//! What an event changes. A pure function: what is to be done outside comes back as effects.

use super::model::{Alarm, Head, Link, Mark, Message, Model, Overlay, Thread};
use super::view;
use crate::cli::escape::escape;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use zixt_types::{MessageId, ThreadId};

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A key.
    Key(KeyEvent),
    /// Text from the clipboard.
    Paste(String),
    /// The terminal has another size.
    Resize(u16, u16),
    /// The conversations as they are now.
    Threads(Vec<Head>),
    /// Messages from the store, older than those that are loaded.
    Older {
        /// Of which conversation.
        thread: ThreadId,
        /// In order.
        messages: Vec<Message>,
        /// Whether nothing older is there.
        complete: bool,
    },
    /// A message came, or one that is known changed.
    Message {
        /// In which conversation.
        thread: ThreadId,
        /// The message.
        message: Message,
    },
    /// A message of ours came further.
    Marked {
        /// In which conversation.
        thread: ThreadId,
        /// The message.
        id: MessageId,
        /// How far.
        mark: Mark,
        /// Its place in the ledger, if it has one now.
        seq: Option<u64>,
    },
    /// The connection changed.
    Link(Link),
    /// Everything that is wrong.
    Alarms(Vec<Alarm>),
    /// Something to say in the status line.
    Notice(String),
}

/// What is to be done outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send a text.
    Send(ThreadId, String),
    /// Load what is older than this place, or the last page.
    Load(ThreadId, Option<u64>),
    /// The person has seen what is in the conversation.
    Seen(ThreadId),
    /// End.
    Quit,
}

/// Applies an event.
pub fn update(model: &mut Model, event: Event) -> Vec<Effect> {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Release => Vec::new(),
        Event::Key(key) => on_key(model, key),
        Event::Paste(text) => {
            write(model, &escape(&text.replace("\r\n", "\n").replace('\r', "\n")));
            Vec::new()
        }
        Event::Resize(columns, rows) => {
            model.size = (columns, rows);
            clamp(model);
            Vec::new()
        }
        Event::Threads(heads) => on_threads(model, heads),
        Event::Older { thread, messages, complete } => {
            if let Some(thread) = model.thread_mut(thread) {
                thread.loading = false;
                thread.complete = complete;
                for message in messages {
                    thread.put(message);
                }
            }
            clamp(model);
            Vec::new()
        }
        Event::Message { thread, message } => on_message(model, thread, message),
        Event::Marked { thread, id, mark, seq } => {
            if let Some(thread) = model.thread_mut(thread)
                && let Some(known) = thread.messages.iter().find(|message| message.id == id).cloned()
            {
                thread.put(Message { mark, seq, ..known });
            }
            Vec::new()
        }
        Event::Link(link) => {
            model.link = link;
            Vec::new()
        }
        Event::Alarms(alarms) => {
            model.alarms = alarms;
            clamp(model);
            Vec::new()
        }
        Event::Notice(text) => {
            model.notice = Some(text);
            Vec::new()
        }
    }
}

/// Opens a conversation: its last page is loaded when it was not yet.
pub fn open(model: &mut Model, id: ThreadId) -> Vec<Effect> {
    model.open = Some(id);
    model.list = false;
    model.notice = None;
    let Some(thread) = model.current_mut() else { return Vec::new() };
    let mut effects = vec![Effect::Seen(id)];
    thread.head.unread = 0;
    if thread.messages.is_empty() && !thread.complete && !thread.loading {
        thread.loading = true;
        effects.push(Effect::Load(id, None));
    }
    effects
}

fn on_threads(model: &mut Model, heads: Vec<Head>) -> Vec<Effect> {
    let mut before = std::mem::take(&mut model.threads);
    for mut head in heads {
        let known = before.iter().position(|thread| thread.head.id == head.id);
        let mut thread = match known {
            Some(at) => before.swap_remove(at),
            None => Thread::new(head.clone()),
        };
        if model.open == Some(head.id) {
            head.unread = 0;
        }
        thread.head = head;
        model.threads.push(thread);
    }
    model.threads.sort_by_key(|thread| std::cmp::Reverse(thread.head.last_ms));
    match (model.current().is_some(), model.threads.first()) {
        (false, Some(first)) => open(model, first.head.id),
        _ => Vec::new(),
    }
}

fn on_message(model: &mut Model, id: ThreadId, message: Message) -> Vec<Effect> {
    let is_open = model.open == Some(id);
    let width = view::pane(model).width;
    let looks = model.looks;
    let Some(thread) = model.thread_mut(id) else { return Vec::new() };
    let is_ours = message.mark != Mark::None;
    let at_ms = message.at_ms;
    let before = view::lines(thread, width, looks).len();
    let is_new = thread.put(message);
    let grown = view::lines(thread, width, looks).len().saturating_sub(before);
    if !is_new {
        return Vec::new();
    }
    thread.head.last_ms = thread.head.last_ms.max(at_ms);
    if is_ours {
        thread.scroll = 0;
        thread.below = 0;
    } else if thread.scroll > 0 {
        // Who reads further up keeps the place.
        thread.scroll += grown;
        thread.below += 1;
    }
    if !is_open && !is_ours {
        thread.head.unread += 1;
    }
    model.threads.sort_by_key(|thread| std::cmp::Reverse(thread.head.last_ms));
    if is_open && !is_ours { vec![Effect::Seen(id)] } else { Vec::new() }
}

fn on_key(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    match key.code {
        KeyCode::Char('c' | 'q') if control => return vec![Effect::Quit],
        KeyCode::F(1) => toggle(model, Overlay::Help),
        KeyCode::F(2) => toggle(model, Overlay::Alarms),
        _ if model.overlay.is_some() => on_overlay_key(model, key.code),
        KeyCode::Char('?') if model.current().is_none_or(|thread| thread.input.is_empty()) => {
            toggle(model, Overlay::Help);
        }
        KeyCode::F(3) => model.list = !model.list,
        KeyCode::Tab => return step(model, 1),
        KeyCode::BackTab => return step(model, -1),
        KeyCode::Char('n') if control => return step(model, 1),
        KeyCode::Char('p') if control => return step(model, -1),
        KeyCode::Down if alt => return step(model, 1),
        KeyCode::Up if alt => return step(model, -1),
        KeyCode::PageUp => return scroll(model, page(model)),
        KeyCode::PageDown => return scroll(model, -page(model)),
        KeyCode::Up => return scroll(model, 1),
        KeyCode::Down => return scroll(model, -1),
        KeyCode::Home if control => return scroll(model, isize::MAX),
        KeyCode::End if control => return scroll(model, isize::MIN),
        KeyCode::Enter if alt || key.modifiers.contains(KeyModifiers::SHIFT) => write(model, "\n"),
        KeyCode::Char('j') if control => write(model, "\n"),
        KeyCode::Enter => return send(model),
        _ => edit(model, key, control, alt),
    }
    Vec::new()
}

fn edit(model: &mut Model, key: KeyEvent, control: bool, alt: bool) {
    if let KeyCode::Char(letter) = key.code
        && !control
        && !alt
    {
        // A joiner is judged by its neighbours when the text is sent; everything else at once.
        let text = letter.to_string();
        let typed = if matches!(letter, '\u{200c}' | '\u{200d}' | '\u{fe0f}') { text } else { escape(&text) };
        write(model, &typed);
        return;
    }
    let Some(thread) = model.current_mut() else { return };
    match key.code {
        KeyCode::Backspace if alt || control => thread.input.delete_word(),
        KeyCode::Backspace => thread.input.backspace(),
        KeyCode::Delete => thread.input.delete(),
        KeyCode::Left => thread.input.left(),
        KeyCode::Right => thread.input.right(),
        KeyCode::Home => thread.input.home(),
        KeyCode::End => thread.input.end(),
        KeyCode::Char('a') if control => thread.input.home(),
        KeyCode::Char('e') if control => thread.input.end(),
        KeyCode::Char('h') if control => thread.input.backspace(),
        KeyCode::Char('w') if control => thread.input.delete_word(),
        KeyCode::Char('u') if control => thread.input.delete_to_start(),
        _ => {}
    }
}

fn on_overlay_key(model: &mut Model, code: KeyCode) {
    let last = view::overlay_lines(model).len().saturating_sub(1);
    let scroll = model.overlay_scroll;
    match code {
        KeyCode::Esc | KeyCode::Enter | KeyCode::Char('?' | 'q') => model.overlay = None,
        KeyCode::Down => model.overlay_scroll = (scroll + 1).min(last),
        KeyCode::Up => model.overlay_scroll = scroll.saturating_sub(1),
        KeyCode::PageDown => model.overlay_scroll = (scroll + 10).min(last),
        KeyCode::PageUp => model.overlay_scroll = scroll.saturating_sub(10),
        _ => {}
    }
}

fn toggle(model: &mut Model, overlay: Overlay) {
    model.overlay = if model.overlay == Some(overlay) { None } else { Some(overlay) };
    model.overlay_scroll = 0;
}

fn write(model: &mut Model, text: &str) {
    let Some(thread) = model.current_mut() else { return };
    if let Some(reason) = &thread.head.closed {
        model.notice = Some(reason.clone());
    } else if !thread.input.insert(text) {
        model.notice = Some("The message would be too long; nothing was added".into());
    } else {
        model.notice = None;
    }
}

fn send(model: &mut Model) -> Vec<Effect> {
    let Some(thread) = model.current_mut() else { return Vec::new() };
    if thread.head.closed.is_some() || thread.input.text().trim().is_empty() {
        return Vec::new();
    }
    thread.scroll = 0;
    thread.below = 0;
    // What was seen is what is signed.
    let text = escape(&thread.input.take());
    vec![Effect::Send(thread.head.id, text)]
}

/// Opens the conversation `by` places further down the list.
fn step(model: &mut Model, by: isize) -> Vec<Effect> {
    let count = model.threads.len();
    let at = model.threads.iter().position(|thread| Some(thread.head.id) == model.open).unwrap_or(0);
    let Some(next) = at.wrapping_add_signed(by).wrapping_add(count).checked_rem(count) else {
        return Vec::new();
    };
    let list = model.list;
    let id = model.threads[next].head.id;
    let effects = open(model, id);
    // Stepping through the list on a narrow terminal leaves the list open.
    model.list = list;
    effects
}

fn page(model: &Model) -> isize {
    isize::try_from(view::pane(model).height.saturating_sub(1).max(1)).unwrap_or(1)
}

/// Moves `by` lines up. Near the top, what is older is loaded.
fn scroll(model: &mut Model, by: isize) -> Vec<Effect> {
    let pane = view::pane(model);
    let looks = model.looks;
    let Some(thread) = model.current_mut() else { return Vec::new() };
    let top = view::lines(thread, pane.width, looks).len().saturating_sub(pane.height);
    thread.scroll = thread.scroll.saturating_add_signed(by).min(top);
    if thread.scroll == 0 {
        thread.below = 0;
    }
    let is_near_top = thread.scroll + pane.height >= top;
    if by > 0 && is_near_top && !thread.complete && !thread.loading {
        thread.loading = true;
        let oldest = thread.messages.iter().find_map(|message| message.seq);
        return vec![Effect::Load(thread.head.id, oldest)];
    }
    Vec::new()
}

/// Keeps the scroll position inside the text after something changed its height.
fn clamp(model: &mut Model) {
    let pane = view::pane(model);
    let looks = model.looks;
    if let Some(thread) = model.current_mut() {
        let top = view::lines(thread, pane.width, looks).len().saturating_sub(pane.height);
        thread.scroll = thread.scroll.min(top);
    }
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
