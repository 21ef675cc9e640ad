//! The line that is being written: multi-byte text, edited by what a person sees as one character.

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use zixt_types::limits::TEXT_BYTES_MAX;

/// Text and cursor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Input {
    text: String,
    /// Byte index; always at a boundary.
    cursor: usize,
}

impl Input {
    /// What was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes the text and leaves the line empty.
    pub fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    /// Inserts at the cursor. False, and nothing happens, if the text would be longer than a message may be.
    pub fn insert(&mut self, text: &str) -> bool {
        if self.text.len() + text.len() > TEXT_BYTES_MAX {
            return false;
        }
        self.text.insert_str(self.cursor, text);
        self.cursor += text.len();
        true
    }

    /// Removes the character before the cursor.
    pub fn backspace(&mut self) {
        let from = self.before();
        self.text.replace_range(from..self.cursor, "");
        self.cursor = from;
    }

    /// Removes the character after the cursor.
    pub fn delete(&mut self) {
        let to = self.after();
        self.text.replace_range(self.cursor..to, "");
    }

    /// Removes the word before the cursor.
    pub fn delete_word(&mut self) {
        let head = self.text[..self.cursor].trim_end();
        let from = head
            .rfind(char::is_whitespace)
            .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
        self.text.replace_range(from..self.cursor, "");
        self.cursor = from;
    }

    /// Removes everything before the cursor.
    pub fn delete_to_start(&mut self) {
        self.text.replace_range(..self.cursor, "");
        self.cursor = 0;
    }

    /// Moves one character.
    pub fn left(&mut self) {
        self.cursor = self.before();
    }

    /// Moves one character.
    pub fn right(&mut self) {
        self.cursor = self.after();
    }

    /// Moves to the start of the line.
    pub fn home(&mut self) {
        self.cursor = self.text[..self.cursor].rfind('\n').map_or(0, |at| at + 1);
    }

    /// Moves to the end of the line.
    pub fn end(&mut self) {
        self.cursor = self.text[self.cursor..].find('\n').map_or(self.text.len(), |at| self.cursor + at);
    }

    /// The lines as they are shown in `width` columns, and the cursor's row and column among them.
    pub fn lay_out(&self, width: usize) -> (Vec<String>, (usize, usize)) {
        let mut rows = wrap(&self.text, width);
        // Where the text before the cursor ends is where the cursor stands: hard wrapping never looks ahead.
        let head = wrap(&self.text[..self.cursor], width);
        let mut row = head.len().saturating_sub(1);
        let mut column = head.last().map_or(0, |last| columns(last));
        if column >= width.max(1) {
            row += 1;
            column = 0;
            if rows.len() <= row {
                rows.push(String::new());
            }
        }
        (rows, (row, column))
    }

    fn before(&self) -> usize {
        boundaries(&self.text).into_iter().rfind(|at| *at < self.cursor).unwrap_or(0)
    }

    fn after(&self) -> usize {
        boundaries(&self.text).into_iter().find(|at| *at > self.cursor).unwrap_or(self.text.len())
    }
}

/// Columns that a text without line feeds takes.
pub fn columns(text: &str) -> usize {
    Line::raw(text).width()
}

/// What a person sees as single characters, in order. The text has no line feeds.
pub fn graphemes(text: &str) -> Vec<String> {
    Span::raw(text).styled_graphemes(Style::default()).map(|grapheme| grapheme.symbol.to_owned()).collect()
}

/// Breaks text hard at `width` columns and at line feeds. Never empty.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut rows = Vec::new();
    for line in text.split('\n') {
        let mut row = String::new();
        let mut used = 0;
        for grapheme in graphemes(line) {
            let wide = columns(&grapheme);
            if used + wide > width && !row.is_empty() {
                rows.push(std::mem::take(&mut row));
                used = 0;
            }
            used += wide;
            row.push_str(&grapheme);
        }
        rows.push(row);
    }
    rows
}

/// Breaks text at spaces where it can, and at line feeds: the first row has `first` columns, the others `rest`.
pub fn flow(text: &str, first: usize, rest: usize) -> Vec<String> {
    let (mut room, rest) = (first.max(1), rest.max(1));
    let mut rows = Vec::new();
    for line in text.split('\n') {
        let mut row = String::new();
        for grapheme in graphemes(line) {
            if columns(&row) + columns(&grapheme) > room && !row.is_empty() {
                let is_space = grapheme == " ";
                let tail = row.rfind(' ').filter(|_| !is_space).map(|at| (at, row[at + 1..].to_owned()));
                let tail = tail.filter(|(at, tail)| {
                    !row[..*at].trim().is_empty() && columns(tail) + columns(&grapheme) <= rest
                });
                let next = tail.map_or_else(String::new, |(at, tail)| {
                    row.truncate(at);
                    tail
                });
                rows.push(std::mem::replace(&mut row, next));
                room = rest;
                if is_space {
                    continue;
                }
            }
            row.push_str(&grapheme);
        }
        rows.push(row);
        room = rest;
    }
    rows
}

/// Shortens a text without line feeds to `width` columns.
pub fn shorten(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 0;
    for grapheme in graphemes(text) {
        let wide = columns(&grapheme);
        if used + wide + 2 > width {
            break;
        }
        used += wide;
        short.push_str(&grapheme);
    }
    short.push_str(&".."[..2.min(width)]);
    short
}

/// Byte indices between characters, start and end included.
fn boundaries(text: &str) -> Vec<usize> {
    let mut all = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.strip_suffix('\n').unwrap_or(line);
        for grapheme in graphemes(bare) {
            at += grapheme.len();
            all.push(at);
        }
        if bare.len() < line.len() {
            at += 1;
            all.push(at);
        }
    }
    // A character that the splitting leaves out must not move the others' places.
    if at == text.len() { all } else { text.char_indices().map(|(at, _)| at).chain([text.len()]).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Input {
        let mut input = Input::default();
        assert!(input.insert(text));
        input
    }

    #[test]
    fn a_seen_character_is_one_step() {
        let mut input = written("aé👩‍👩‍👧日");
        input.left();
        input.backspace();
        assert_eq!(input.text(), "aé日");
        input.left();
        input.delete();
        assert_eq!(input.text(), "a日");
        input.right();
        input.right();
        assert!(input.insert("!"));
        assert_eq!(input.take(), "a日!");
        assert!(input.is_empty());
        input.backspace();
        input.delete();
        input.left();
        assert!(input.is_empty());
    }

    #[test]
    fn words_and_lines() {
        let mut input = written("one two\nthree  ");
        input.delete_word();
        assert_eq!(input.text(), "one two\n");
        input.home();
        input.left();
        input.home();
        assert!(input.insert("> "));
        input.end();
        input.delete_word();
        assert_eq!(input.text(), "> one \n");
        input.delete_to_start();
        assert_eq!(input.text(), "\n");
    }

    #[test]
    fn wrapping_counts_columns() {
        assert_eq!(wrap("日本語", 4), ["日本", "語"]);
        assert_eq!(wrap("ab\n\ncd", 9), ["ab", "", "cd"]);
        assert_eq!(wrap("", 9), [""]);
        assert_eq!(flow("12:00 ada: hello there", 14, 10), ["12:00 ada:", "hello", "there"]);
        assert_eq!(flow("one two\nthree", 9, 3), ["one two", "thr", "ee"]);
        assert_eq!(flow("日本語 a", 4, 2), ["日本", "語", "a"]);
        let (rows, cursor) = written("abcd").lay_out(4);
        assert_eq!((rows.len(), cursor), (2, (1, 0)));
        let mut input = written("ab\ncd");
        input.left();
        assert_eq!(input.lay_out(10).1, (1, 1));
        assert_eq!(shorten("日本語日本語", 8), "日本語..");
        assert_eq!(shorten("abc", 1), ".");
    }

    #[test]
    fn no_more_than_a_message_may_hold() {
        let mut input = written(&"x".repeat(TEXT_BYTES_MAX));
        assert!(!input.insert("y"));
        assert_eq!(input.text().len(), TEXT_BYTES_MAX);
    }
}
