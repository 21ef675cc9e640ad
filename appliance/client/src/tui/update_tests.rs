use super::*;
use crate::tui::model::Kind;
use crate::tui::testing::{START_MS, head, id, message, model};
use ratatui::crossterm::event::KeyEvent;

fn press(model: &mut Model, code: KeyCode) -> Vec<Effect> {
    update(model, Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn chord(model: &mut Model, code: KeyCode, modifiers: KeyModifiers) -> Vec<Effect> {
    update(model, Event::Key(KeyEvent::new(code, modifiers)))
}

fn typed(model: &mut Model, text: &str) {
    for letter in text.chars() {
        assert!(press(model, KeyCode::Char(letter)).is_empty());
    }
}

#[test]
fn what_is_written_is_sent_once() {
    let mut model = model(80, 24);
    typed(&mut model, "Grüße, 日本");
    assert_eq!(press(&mut model, KeyCode::Enter), [Effect::Send(id(1), "Grüße, 日本".into())]);
    assert!(press(&mut model, KeyCode::Enter).is_empty());
    typed(&mut model, "   ");
    assert!(press(&mut model, KeyCode::Enter).is_empty());
}

#[test]
fn a_question_mark_is_text_once_something_is_written() {
    let mut model = model(80, 24);
    typed(&mut model, "why?");
    assert_eq!(model.overlay, None);
    assert_eq!(model.current().unwrap().input.text(), "why?");
    let _sent = press(&mut model, KeyCode::Enter);
    press(&mut model, KeyCode::Char('?'));
    assert_eq!(model.overlay, Some(Overlay::Help));
    typed(&mut model, "xyz");
    assert!(model.current().unwrap().input.is_empty());
    press(&mut model, KeyCode::Esc);
    assert_eq!(model.overlay, None);
}

#[test]
fn a_paste_is_not_sent_and_cannot_hide_anything() {
    let mut model = model(80, 24);
    assert!(update(&mut model, Event::Paste("one\r\ntwo\u{202e}\x1b[2J".into())).is_empty());
    assert_eq!(
        press(&mut model, KeyCode::Enter),
        [Effect::Send(id(1), "one\ntwo<U+202E><U+001B>[2J".into())]
    );
    let long = "x".repeat(zixt_types::limits::TEXT_BYTES_MAX + 1);
    update(&mut model, Event::Paste(long));
    assert!(model.current().unwrap().input.is_empty());
    assert!(model.notice.as_deref().unwrap().contains("too long"));
}

#[test]
fn lines_are_broken_by_alt_enter() {
    let mut model = model(80, 24);
    typed(&mut model, "a");
    chord(&mut model, KeyCode::Enter, KeyModifiers::ALT);
    typed(&mut model, "b");
    chord(&mut model, KeyCode::Char('j'), KeyModifiers::CONTROL);
    assert_eq!(model.current().unwrap().input.text(), "a\nb\n");
}

#[test]
fn a_message_is_shown_once_and_its_mark_never_goes_back() {
    let mut model = model(80, 24);
    let queued = message(9, "ada", Mark::Queued, "later");
    let put = |model: &mut Model, message: Message| update(model, Event::Message { thread: id(1), message });
    assert!(put(&mut model, queued.clone()).is_empty());
    let marked = Event::Marked { thread: id(1), id: queued.id, mark: Mark::Read, seq: Some(9) };
    update(&mut model, marked);
    put(&mut model, Message { mark: Mark::Recorded, seq: Some(9), ..queued.clone() });
    let thread = model.current().unwrap();
    let known: Vec<_> = thread.messages.iter().filter(|message| message.id == queued.id).collect();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].mark, known[0].seq), (Mark::Read, Some(9)));
    // The ledger's order holds, however they arrive.
    put(&mut model, message(7, "bob", Mark::None, "earlier"));
    let order: Vec<_> = model.current().unwrap().messages.iter().map(|message| message.seq).collect();
    assert_eq!(order, [Some(0), Some(1), Some(2), Some(3), Some(7), Some(9)]);
}

#[test]
fn messages_of_other_conversations_count_as_unread() {
    let mut model = model(80, 24);
    let mut late = message(200, "carol", Mark::None, "anyone?");
    late.at_ms = START_MS * 2;
    assert!(update(&mut model, Event::Message { thread: id(2), message: late }).is_empty());
    assert_eq!(model.threads[0].head.id, id(2));
    assert_eq!(model.threads[0].head.unread, 4);
    assert_eq!(model.open, Some(id(1)));
    let effects = press(&mut model, KeyCode::Tab);
    assert_eq!(model.open, Some(id(2)));
    assert_eq!(effects, [Effect::Seen(id(2))]);
    assert_eq!(model.threads[0].head.unread, 0);
    let own = message(201, "bob", Mark::None, "here");
    let effects = update(&mut model, Event::Message { thread: id(2), message: own });
    assert_eq!(effects, [Effect::Seen(id(2))]);
    press(&mut model, KeyCode::BackTab);
    assert_eq!(model.open, Some(id(1)));
}

#[test]
fn drafts_stay_with_their_conversation() {
    let mut model = model(80, 24);
    typed(&mut model, "for bob");
    press(&mut model, KeyCode::Tab);
    typed(&mut model, "for all");
    press(&mut model, KeyCode::Tab);
    assert_eq!(press(&mut model, KeyCode::Enter), [Effect::Send(id(1), "for bob".into())]);
}

#[test]
fn scrolling_back_loads_older_ones_and_keeps_the_place() {
    let mut model = model(80, 24);
    let thread = model.current_mut().unwrap();
    thread.complete = false;
    thread.messages = (50..150).map(|number| message(number, "bob", Mark::None, "text")).collect();
    assert!(press(&mut model, KeyCode::PageUp).is_empty());
    let up = model.current().unwrap().scroll;
    assert!(up > 10);
    update(&mut model, Event::Message { thread: id(1), message: message(150, "bob", Mark::None, "new") });
    assert_eq!((model.current().unwrap().scroll, model.current().unwrap().below), (up + 1, 1));
    let effects = chord(&mut model, KeyCode::Home, KeyModifiers::CONTROL);
    assert_eq!(effects, [Effect::Load(id(1), Some(50))]);
    assert!(press(&mut model, KeyCode::PageUp).is_empty(), "asked twice");
    let older = (0..50).map(|number| message(number, "bob", Mark::None, "old")).collect();
    let at = model.current().unwrap().scroll;
    update(&mut model, Event::Older { thread: id(1), messages: older, complete: true });
    assert_eq!(model.current().unwrap().messages.len(), 151);
    assert_eq!(model.current().unwrap().scroll, at);
    chord(&mut model, KeyCode::End, KeyModifiers::CONTROL);
    assert_eq!((model.current().unwrap().scroll, model.current().unwrap().below), (0, 0));
    // The last of them is shown when one writes oneself.
    press(&mut model, KeyCode::PageUp);
    typed(&mut model, "x");
    press(&mut model, KeyCode::Enter);
    assert_eq!(model.current().unwrap().scroll, 0);
}

#[test]
fn the_first_conversation_opens_by_itself_and_is_loaded() {
    let mut model = model(80, 24);
    model.threads.clear();
    model.open = None;
    assert!(press(&mut model, KeyCode::Tab).is_empty());
    typed(&mut model, "nowhere");
    assert!(press(&mut model, KeyCode::Enter).is_empty());
    let effects = update(&mut model, Event::Threads(vec![head(2, "b", &[]), head(1, "a", &[])]));
    assert_eq!(effects, [Effect::Seen(id(1)), Effect::Load(id(1), None)]);
    assert!(update(&mut model, Event::Threads(vec![head(1, "a", &[])])).is_empty());
    assert_eq!(model.threads.len(), 1);
}

#[test]
fn nothing_is_written_where_one_was_removed() {
    let mut model = model(80, 24);
    model.current_mut().unwrap().head.closed = Some("You were removed".into());
    typed(&mut model, "hello");
    assert!(model.current().unwrap().input.is_empty());
    assert_eq!(model.notice.as_deref(), Some("You were removed"));
    assert!(press(&mut model, KeyCode::Enter).is_empty());
}

#[test]
fn alarms_stay_until_the_client_says_otherwise() {
    let mut model = model(80, 24);
    let alarm = Alarm { what: "fork".into(), advice: "stop".into() };
    update(&mut model, Event::Alarms(vec![alarm]));
    for code in [KeyCode::Esc, KeyCode::F(2), KeyCode::Esc, KeyCode::Enter] {
        press(&mut model, code);
        assert_eq!(model.alarms.len(), 1);
    }
    assert_eq!(chord(&mut model, KeyCode::Char('c'), KeyModifiers::CONTROL), [Effect::Quit]);
}

#[test]
fn no_event_breaks_any_size() {
    for (columns, rows) in [(0, 0), (1, 1), (20, 8), (40, 12), (80, 24), (500, 3)] {
        let mut model = model(80, 24);
        update(&mut model, Event::Resize(columns, rows));
        let text = "日本語 ".repeat(100);
        update(&mut model, Event::Paste(text.clone()));
        let long = Message { kind: Kind::Warning, ..message(99, "bob", Mark::None, &text) };
        update(&mut model, Event::Message { thread: id(1), message: long });
        for code in [KeyCode::PageUp, KeyCode::Up, KeyCode::Down, KeyCode::F(3), KeyCode::Tab, KeyCode::F(1)]
        {
            press(&mut model, code);
            let backend = ratatui::backend::TestBackend::new(columns, rows);
            let mut terminal = ratatui::Terminal::new(backend).unwrap();
            terminal.draw(|frame| view::draw(frame, &model)).unwrap();
        }
    }
}
