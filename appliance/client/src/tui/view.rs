//! Draws the model. Nothing is said by colour alone, and every text was escaped before it came here.

use super::input::{columns, flow, shorten, wrap};
use super::model::{Kind, Link, Looks, Mark, Message, Model, Overlay, Thread};
use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

/// Below this width the list of conversations and the messages take turns.
const NARROW_COLUMNS: u16 = 60;
/// Width of the list beside the messages.
const LIST_COLUMNS: u16 = 22;
/// Rows that the line being written may take.
const INPUT_ROWS_MAX: usize = 5;
/// Less than this shows nothing useful.
const SMALLEST: (u16, u16) = (20, 8);

/// The size of the pane of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pane {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// Where everything stands.
struct Areas {
    title: Rect,
    lab: Rect,
    alarm: Rect,
    list: Rect,
    rule: Rect,
    messages: Rect,
    record: Rect,
    input: Rect,
    status: Rect,
}

/// The size of the pane of messages, for scrolling.
pub fn pane(model: &Model) -> Pane {
    let area = areas(model, Rect::new(0, 0, model.size.0, model.size.1)).messages;
    Pane { width: usize::from(area.width), height: usize::from(area.height) }
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let alarm = if model.alarms.is_empty() { "" } else { "ALARM! " };
        frame.render_widget(Paragraph::new(format!("{alarm}window too small")), area);
        return;
    }
    let areas = areas(model, area);
    draw_title(frame, model, areas.title);
    bar(frame, areas.lab, "LAB NETWORK: not for production", model, Color::Yellow);
    draw_alarm(frame, model, areas.alarm);
    draw_list(frame, model, areas.list);
    let rule = if model.looks.unicode { "│" } else { "|" };
    for row in areas.rule.rows() {
        frame.render_widget(Span::styled(rule, Style::new().add_modifier(Modifier::DIM)), row);
    }
    draw_messages(frame, model, areas.messages);
    draw_record(frame, model, areas.record);
    draw_input(frame, model, areas.input);
    draw_status(frame, model, areas.status);
    if model.overlay.is_some() {
        draw_overlay(frame, model, areas);
    }
}

fn areas(model: &Model, area: Rect) -> Areas {
    let mut rows = Cutter { area, top: area.y, bottom: area.bottom() };
    let title = rows.top_rows(1);
    let lab = rows.top_rows(u16::from(model.lab));
    let alarm = rows.top_rows(alarm_lines(model, area.width).len());
    let status = rows.bottom_rows(1);
    let input = rows.bottom_rows(input_rows(model, area.width));
    let record = rows.bottom_rows(1);
    let middle = rows.rest();
    let (list, rule, messages) = if area.width >= NARROW_COLUMNS {
        let list = Rect { width: LIST_COLUMNS, ..middle };
        let rule = Rect { x: middle.x + LIST_COLUMNS, width: 1, ..middle };
        let left = LIST_COLUMNS + 1;
        (list, rule, Rect { x: middle.x + left, width: middle.width - left, ..middle })
    } else if model.list {
        (middle, Rect::ZERO, Rect { height: 0, ..middle })
    } else {
        (Rect::ZERO, Rect::ZERO, middle)
    };
    Areas { title, lab, alarm, list, rule, messages, record, input, status }
}

/// Cuts rows off both ends of an area; what does not fit gets none.
struct Cutter {
    area: Rect,
    top: u16,
    bottom: u16,
}

impl Cutter {
    fn top_rows(&mut self, rows: impl TryInto<u16>) -> Rect {
        let height = rows.try_into().unwrap_or(u16::MAX).min(self.bottom - self.top);
        let cut = Rect { y: self.top, height, ..self.area };
        self.top += height;
        cut
    }

    fn bottom_rows(&mut self, rows: impl TryInto<u16>) -> Rect {
        let height = rows.try_into().unwrap_or(u16::MAX).min(self.bottom - self.top);
        self.bottom -= height;
        Rect { y: self.bottom, height, ..self.area }
    }

    fn rest(self) -> Rect {
        Rect { y: self.top, height: self.bottom - self.top, ..self.area }
    }
}

/// A whole line in reverse video, with a colour where that is welcome.
fn bar(frame: &mut Frame<'_>, area: Rect, text: &str, model: &Model, colour: Color) {
    let mut style = Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD);
    if model.looks.colour {
        style = style.fg(colour);
    }
    let width = usize::from(area.width);
    let mut text = shorten(&format!(" {text}"), width);
    text.push_str(&" ".repeat(width.saturating_sub(columns(&text))));
    frame.render_widget(Paragraph::new(text).style(style), area);
}

fn draw_title(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let mut text = format!("{} in {}", model.me, model.network);
    if let Some(thread) = model.current() {
        text = format!("{} | {text}", thread.head.title);
    }
    frame.render_widget(
        Paragraph::new(shorten(&format!(" {text}"), usize::from(area.width)))
            .style(Style::new().add_modifier(Modifier::BOLD)),
        area,
    );
}

fn alarm_lines(model: &Model, width: u16) -> Vec<String> {
    let Some(alarm) = model.alarms.last() else { return Vec::new() };
    let count = model.alarms.len();
    let text = format!("!!! ALARM ({count}): {}", alarm.what.replace('\n', " "));
    let mut lines = wrap(&text, usize::from(width).saturating_sub(2));
    if lines.len() > 2 {
        lines.truncate(2);
        if let Some(last) = lines.last_mut() {
            *last = shorten(&format!("{last}..."), usize::from(width).saturating_sub(2));
        }
    }
    lines.push("!!! F2: what to do".into());
    lines
}

fn draw_alarm(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    for (row, text) in area.rows().zip(alarm_lines(model, area.width)) {
        bar(frame, row, &text, model, Color::Red);
    }
}

fn draw_list(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    if area.height == 0 {
        return;
    }
    let width = usize::from(area.width);
    let height = usize::from(area.height);
    let open = model.threads.iter().position(|thread| Some(thread.head.id) == model.open).unwrap_or(0);
    let skip = (open + 1).saturating_sub(height);
    let lines: Vec<Line<'_>> = model
        .threads
        .iter()
        .enumerate()
        .skip(skip)
        .take(height)
        .map(|(at, thread)| {
            let head = &thread.head;
            let pointer = if at == open { ">" } else { " " };
            let mut tail = String::new();
            if head.unread > 0 {
                tail.push_str(&format!(" ({})", head.unread));
            }
            if head.queued > 0 {
                tail.push_str(&format!(" {}{}", head.queued, glyph(Mark::Queued, model.looks).trim_end()));
            }
            if head.closed.is_some() {
                tail.push_str(" x");
            }
            let title = shorten(&head.title, width.saturating_sub(columns(&tail) + 2));
            let style = if at == open || head.unread > 0 {
                Style::new().add_modifier(Modifier::BOLD)
            } else {
                Style::new()
            };
            Line::styled(format!("{pointer} {title}{tail}"), style)
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_messages(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let height = usize::from(area.height);
    let Some(thread) = model.current() else {
        let text = "No conversation yet.\nEnd this (Ctrl-C) and start one:\n  zixt chat NAME";
        frame.render_widget(Paragraph::new(text), area);
        return;
    };
    let mut lines = lines(thread, usize::from(area.width), model.looks);
    let end = lines.len().saturating_sub(thread.scroll.min(lines.len().saturating_sub(height)));
    let start = end.saturating_sub(height);
    let mut shown: Vec<Line<'static>> = lines.drain(start..end).collect();
    if thread.scroll > 0
        && let Some(last) = shown.last_mut()
    {
        let below = match thread.below {
            0 => String::from("-- more below (PgDn) --"),
            new => format!("-- {new} new below (PgDn) --"),
        };
        *last = Line::styled(
            shorten(&below, usize::from(area.width)),
            Style::new().add_modifier(Modifier::REVERSED),
        );
    }
    frame.render_widget(Paragraph::new(shown), area);
}

/// All lines of a conversation in a pane of `width` columns.
pub fn lines(thread: &Thread, width: usize, looks: Looks) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let dim = Style::new().add_modifier(Modifier::DIM);
    if thread.loading {
        lines.push(Line::styled("(loading)", dim));
    } else if !thread.complete {
        lines.push(Line::styled("(PgUp: older messages)", dim));
    }
    let mut day = None;
    for message in &thread.messages {
        let (date, time) = clock(message.at_ms);
        if day.as_ref() != Some(&date) {
            lines.push(Line::styled(format!("--- {date} (UTC) ---"), dim));
            day = Some(date);
        }
        push_message(&mut lines, message, &time, width, looks);
    }
    lines
}

fn push_message(lines: &mut Vec<Line<'static>>, message: &Message, time: &str, width: usize, looks: Looks) {
    let (head, style) = match message.kind {
        Kind::Said => (format!("{time} {} {}: ", glyph(message.mark, looks), message.from), Style::new()),
        Kind::Event => (format!("{time} *  "), Style::new().add_modifier(Modifier::ITALIC)),
        Kind::Warning => (format!("{time} !! "), Style::new().add_modifier(Modifier::BOLD)),
    };
    let indent = if width >= 40 { 9 } else { 2 };
    let style = match message.mark {
        Mark::Refused if looks.colour => style.fg(Color::Red),
        _ => style,
    };
    let rows = flow(&format!("{head}{}", message.text), width, width.saturating_sub(indent));
    for (at, row) in rows.into_iter().enumerate() {
        let row = if at == 0 { row } else { format!("{}{row}", " ".repeat(indent)) };
        lines.push(Line::styled(row, style));
    }
}

/// The sign for how far a message has come: two columns, distinct without colour.
pub fn glyph(mark: Mark, looks: Looks) -> &'static str {
    match (mark, looks.unicode) {
        (Mark::None, _) => "  ",
        (Mark::Queued, true) => "… ",
        (Mark::Queued, false) => "..",
        (Mark::Sent, true) => "→ ",
        (Mark::Sent, false) => "->",
        (Mark::Recorded, true) => "✓ ",
        (Mark::Recorded, false) => "+ ",
        (Mark::Read, true) => "✓✓",
        (Mark::Read, false) => "++",
        (Mark::Refused, _) => "!!",
    }
}

fn draw_record(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let width = usize::from(area.width);
    let long = "On the record: what you send is signed by you and kept in the ledger.";
    let text = if width > columns(long) { long } else { "On the record: signed, kept." };
    let text = model.current().and_then(|thread| thread.head.closed.as_deref()).unwrap_or(text);
    let text = format!("-- {} ", shorten(text, width.saturating_sub(4)));
    let fill = "-".repeat(width.saturating_sub(columns(&text)));
    frame.render_widget(Paragraph::new(format!("{text}{fill}")), area);
}

fn input_layout(model: &Model, width: u16) -> (Vec<String>, (usize, usize)) {
    let width = usize::from(width).saturating_sub(2);
    model.current().map_or_else(|| (vec![String::new()], (0, 0)), |thread| thread.input.lay_out(width))
}

fn input_rows(model: &Model, width: u16) -> usize {
    input_layout(model, width).0.len().clamp(1, INPUT_ROWS_MAX)
}

fn draw_input(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let (rows, (row, column)) = input_layout(model, area.width);
    let height = usize::from(area.height);
    let skip = (row + 1).saturating_sub(height);
    let shown = rows.iter().enumerate().skip(skip).take(height);
    let lines: Vec<Line<'_>> =
        shown.map(|(at, text)| Line::raw(format!("{}{text}", if at == 0 { "> " } else { "  " }))).collect();
    frame.render_widget(Paragraph::new(lines), area);
    if model.overlay.is_none() && height > 0 {
        let x = area.x.saturating_add(u16::try_from(column + 2).unwrap_or(u16::MAX)).min(area.right() - 1);
        let y = area.y.saturating_add(u16::try_from(row - skip).unwrap_or(0)).min(area.bottom() - 1);
        frame.set_cursor_position(Position::new(x, y));
    }
}

fn draw_status(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let queued: u64 = model.threads.iter().map(|thread| thread.head.queued).sum();
    let mut parts = vec![match &model.link {
        Link::Connecting => String::from("connecting"),
        Link::Connected => String::from("connected"),
        Link::Away(_) if queued > 0 => format!("AWAY, {queued} queued"),
        Link::Away(_) => String::from("AWAY"),
    }];
    if let Some(notice) = &model.notice {
        parts.push(notice.clone());
    } else {
        if let Some(Thread { head, .. }) = model.current() {
            parts.push(format!("epoch {}", head.epoch));
            if !head.unverified.is_empty() {
                parts.push(format!("not verified: {}", head.unverified.join(", ")));
            }
            parts.push(format!("{} people: {}", head.members.len(), head.members.join(", ")));
        }
        if let Link::Away(reason) = &model.link {
            parts.insert(1, reason.clone());
        }
    }
    let help = " F1 help";
    let width = usize::from(area.width);
    let mut text = shorten(&parts.join(" | "), width.saturating_sub(columns(help) + 1));
    text.push_str(&" ".repeat(width.saturating_sub(columns(&text) + columns(help) + 1)));
    bar(frame, area, &format!("{text}{help}"), model, Color::Reset);
}

fn draw_overlay(frame: &mut Frame<'_>, model: &Model, areas: Areas) {
    // The alarm banner stays in sight under every overlay.
    let top = areas.alarm.bottom().max(areas.lab.bottom());
    let area = Rect { y: top, height: areas.status.y.saturating_sub(top), ..areas.title };
    frame.render_widget(Clear, area);
    let width = usize::from(area.width);
    let mut lines = Vec::new();
    for line in overlay_lines(model) {
        lines.extend(wrap(&line, width));
    }
    let shown: Vec<Line<'_>> =
        lines.into_iter().skip(model.overlay_scroll).take(usize::from(area.height)).map(Line::raw).collect();
    frame.render_widget(Paragraph::new(shown), area);
}

/// The lines of the overlay, before they are wrapped.
pub fn overlay_lines(model: &Model) -> Vec<String> {
    match model.overlay {
        None => Vec::new(),
        Some(Overlay::Help) => help_lines(model.looks),
        Some(Overlay::Alarms) if model.alarms.is_empty() => {
            vec!["No alarms: nothing wrong was found.".into(), String::new(), "Esc closes this.".into()]
        }
        Some(Overlay::Alarms) => {
            let mut lines = Vec::new();
            for (at, alarm) in model.alarms.iter().enumerate().rev() {
                lines.push(format!("!!! {}. {}", at + 1, alarm.what.replace('\n', " ")));
                lines.push(format!("    {}", alarm.advice));
            }
            lines.extend([String::new(), "Esc closes this; the alarm stays.".into()]);
            lines
        }
    }
}

fn help_lines(looks: Looks) -> Vec<String> {
    let marks = [
        (Mark::Queued, "queued on this device"),
        (Mark::Sent, "sent, not answered yet"),
        (Mark::Recorded, "recorded in the ledger, proof checked"),
        (Mark::Read, "seen by everybody's client (known once they write)"),
        (Mark::Refused, "not sent; the reason stands below it"),
    ];
    let keys = [
        ("Enter", "send"),
        ("Alt-Enter, Ctrl-J", "new line"),
        ("Tab, Shift-Tab", "next, previous conversation (also Ctrl-N, Ctrl-P)"),
        ("F3", "list of conversations on a narrow terminal"),
        ("PgUp, PgDn, Up, Down", "scroll; older messages are loaded"),
        ("Ctrl-Home, Ctrl-End", "to the top, to the latest"),
        ("Ctrl-W, Ctrl-U", "remove a word, everything before"),
        ("F2", "alarms and what to do"),
        ("F1, ?", "this help; Esc closes it"),
        ("Ctrl-C, Ctrl-Q", "end"),
    ];
    let mut lines = vec![String::from("Marks")];
    lines.extend(marks.map(|(mark, text)| format!("  {}  {text}", glyph(mark, looks))));
    lines.push("Keys".into());
    lines.extend(keys.map(|(key, text)| format!("  {key:<21} {text}")));
    lines.push("What you send is signed by this device and recorded for good.".into());
    lines
}

/// Date and time of day in UTC.
pub fn clock(at_ms: u64) -> (String, String) {
    let seconds = at_ms / 1000;
    let (day, of_day) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days since 1970 (Howard Hinnant's algorithm, eras of 400 years).
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (format!("{year:04}-{month:02}-{date:02}"), format!("{:02}:{:02}", of_day / 3600, of_day % 3600 / 60))
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
