//! Foreign text never controls the terminal.
//!
//! Names, titles, messages and an appliance's error texts are written by others. Whatever of them reaches a terminal
//! goes through [`escape`] or [`escape_line`]; whatever is printed as JSON goes through [`json`].

use std::fmt::Write as _;

/// Combining marks in a row that are shown; more would climb over the lines above.
const MARKS_MAX: usize = 4;

/// Text that is safe to print over several lines: line feeds stay, everything else that could move the cursor, reorder
/// the line or hide is shown as `<U+202E>`.
#[must_use]
pub fn escape(text: &str) -> String {
    clean(text, true)
}

/// Text that is safe to print and stays on one line.
#[must_use]
pub fn escape_line(text: &str) -> String {
    clean(text, false)
}

/// JSON text in which the same characters are written as `\u` escapes: the same document, harmless on a terminal.
#[must_use]
pub fn json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for letter in document.chars() {
        if is_hazard(letter) || is_joiner(letter) {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                let _infallible = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(letter);
        }
    }
    out
}

fn clean(text: &str, keep_lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    let mut before = '\0';
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let after = letters.peek().copied().unwrap_or('\0');
        marks = if is_mark(letter) { marks + 1 } else { 0 };
        match letter {
            '\n' if keep_lines => out.push('\n'),
            // A tab's width depends on the column: one that is drawn elsewhere than it is counted shifts the line.
            '\t' => out.push_str("    "),
            _ if is_joiner(letter) && joins(before, letter, after) => out.push(letter),
            _ if letter == '\n' || is_hazard(letter) || is_joiner(letter) || marks > MARKS_MAX => {
                let _infallible = write!(out, "<U+{:04X}>", u32::from(letter));
            }
            _ => out.push(letter),
        }
        before = letter;
    }
    out
}

/// Whether a character can control a terminal, reorder text, or be there without being seen.
fn is_hazard(letter: char) -> bool {
    match letter {
        // JSON text has line feeds of its own between values; inside strings serde_json escapes them.
        '\n' => false,
        _ if letter.is_control() => true,
        // Soft hyphen, combining grapheme joiner, Arabic letter mark, Hangul fillers, Mongolian vowel separators.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' => true,
        '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{ffa0}' => true,
        // Zero-width space, direction marks, line and paragraph separators, embeddings and overrides.
        '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        // Word joiner, invisible operators, isolates, deprecated format characters.
        '\u{2060}'..='\u{206f}' => true,
        // Byte order mark, interlinear annotation, noncharacters.
        '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}' => true,
        // Blank that looks like a space but is a letter (Braille), musical and shorthand controls.
        '\u{2800}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' => true,
        // Variation selectors other than the one of emoji; tags; private use, which a font may draw as anything.
        '\u{fe00}'..='\u{fe0e}' | '\u{e0000}'..='\u{e0fff}' | '\u{e000}'..='\u{f8ff}' => true,
        '\u{f0000}'..='\u{10ffff}' => true,
        _ => false,
    }
}

/// Characters without width that some scripts and emoji need: allowed only between those.
fn is_joiner(letter: char) -> bool {
    matches!(letter, '\u{200c}' | '\u{200d}' | '\u{fe0f}')
}

fn joins(before: char, joiner: char, after: char) -> bool {
    let emoji = |c: char| matches!(c, '\u{2190}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}' | '\u{fe0f}');
    let script = |c: char| matches!(c, '\u{620}'..='\u{6ff}' | '\u{750}'..='\u{77f}' | '\u{900}'..='\u{dff}');
    match joiner {
        '\u{fe0f}' => emoji(before) && before != '\u{fe0f}',
        '\u{200d}' => (emoji(before) && emoji(after)) || (script(before) && script(after)),
        _ => script(before) && script(after),
    }
}

fn is_mark(letter: char) -> bool {
    matches!(letter,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_stays() {
        for text in ["Hello, Ada!", "Grüße, Łódź", "日本語", "a\u{301}", "👩‍👩‍👧 ❤️", "می‌خواهم", "क्‍ष", "<U+202E>"]
        {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(escape("\x1b[2J\x1b]0;owned\x07"), "<U+001B>[2J<U+001B>]0;owned<U+0007>");
        assert_eq!(escape("a\rb\u{8}\u{7f}\u{9b}1A"), "a<U+000D>b<U+0008><U+007F><U+009B>1A");
        assert_eq!(escape("a\nb\tc"), "a\nb    c");
        assert_eq!(escape_line("a\nb"), "a<U+000A>b");
        assert_eq!(escape("a\u{2028}b"), "a<U+2028>b");
    }

    #[test]
    fn nothing_reorders_or_hides() {
        assert_eq!(escape("evil\u{202e}txt.exe"), "evil<U+202E>txt.exe");
        assert_eq!(escape("\u{2066}x\u{2069}\u{200f}"), "<U+2066>x<U+2069><U+200F>");
        assert_eq!(escape_line("a\u{200b}da"), "a<U+200B>da");
        assert_eq!(
            escape_line("ad\u{200d}a \u{feff}\u{3164}\u{e0041}"),
            "ad<U+200D>a <U+FEFF><U+3164><U+E0041>"
        );
        assert_eq!(
            escape(&format!("z{}", "\u{301}".repeat(6))),
            "z\u{301}\u{301}\u{301}\u{301}<U+0301><U+0301>"
        );
    }

    #[test]
    fn no_character_that_a_terminal_obeys_survives() {
        let all: String = ('\0'..=char::MAX).collect();
        assert!(!escape_line(&all).chars().any(|c| c.is_control() || is_hazard(c)));
        assert!(!json(&all).chars().any(|c| (c.is_control() && c != '\n') || is_hazard(c)));
    }

    #[test]
    fn json_says_the_same() {
        let text = "\u{202e}x\u{9b}\u{7f}\u{200d}\u{e0041} 👩 \"q\" \\ \x1b";
        let safe = json(&serde_json::to_string(text).unwrap());
        assert!(safe.contains("\\u202e") && safe.contains("\\udb40\\udc41"), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
    }
}
