//! The sheet for paper: a share's words in a table, and the same as a QR code of block characters.

use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write as _;
use zeroize::Zeroizing;

/// Columns of words on a sheet.
const COLUMNS: usize = 6;
/// Light modules around a code (ISO/IEC 18004 asks for four).
const QUIET: i32 = 4;

/// Words as a table with numbers.
#[must_use]
pub fn words_table(words: &str) -> Zeroizing<String> {
    // A number of two digits, a stop, a space, eight letters and two spaces each; room for all, so that nothing moves.
    let mut text = Zeroizing::new(String::with_capacity(words.len() * 4));
    for (at, word) in words.split(' ').enumerate() {
        let end = if at % COLUMNS == COLUMNS - 1 { "\n" } else { "  " };
        let _infallible = write!(text, "{:2}. {word:<8}{end}", at + 1);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The modules of a QR code with its quiet zone, row by row; `true` is dark. `None` if the text is too long for one.
#[must_use]
pub fn modules(text: &str) -> Option<Vec<Vec<bool>>> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let range = || -QUIET..code.size() + QUIET;
    // Outside of the code every module is light.
    Some(range().map(|y| range().map(|x| code.get_module(x, y)).collect()).collect())
}

/// A QR code of half blocks, two rows a line. On a terminal it brings its own colours, because many are light on dark;
/// without, dark is what is printed.
#[must_use]
pub fn code(modules: &[Vec<bool>], terminal: bool) -> Zeroizing<String> {
    // Three bytes for each column of a line, and the colours; room for all, so that nothing moves.
    let mut text =
        Zeroizing::new(String::with_capacity(modules.len().div_ceil(2) * (3 * modules.len() + 16)));
    for pair in modules.chunks(2) {
        if terminal {
            text.push_str("\x1b[30;107m");
        }
        let (upper, lower) = (&pair[0], pair.get(1));
        for (x, upper) in upper.iter().enumerate() {
            let lower = lower.and_then(|row| row.get(x)).copied().unwrap_or(false);
            text.push(match (*upper, lower) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        if terminal {
            text.push_str("\x1b[0m");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_as_the_words() {
        let words: Vec<String> = (0..54).map(|n| format!("word{n}")).collect();
        let table = words_table(&words.join(" "));
        assert_eq!(table.lines().count(), 9);
        assert!(table.starts_with(" 1. word0"), "{}", &*table);
        let read: Vec<&str> = table.split_whitespace().filter(|part| !part.ends_with('.')).collect();
        assert_eq!(read, words);
    }

    #[test]
    fn a_code_shows_its_modules() {
        let text = format!("ZIXT-SHARE-1:{}", "5A".repeat(74));
        let modules = modules(&text).unwrap();
        let width = modules.len();
        assert!(modules.iter().all(|row| row.len() == width));
        assert!(width <= 72, "{width}: it fits on a terminal of 80 columns");
        let printed = code(&modules, false);
        for (y, row) in modules.iter().enumerate() {
            let line: Vec<char> = printed.lines().nth(y / 2).unwrap().chars().collect();
            for (x, dark) in row.iter().enumerate() {
                let shown = match line[x] {
                    '█' => true,
                    '▀' => y % 2 == 0,
                    '▄' => y % 2 == 1,
                    _ => false,
                };
                assert_eq!(shown, *dark, "{x} {y}");
            }
        }
        // The three finder patterns, each with a dark frame in its light one.
        for (x, y) in [(4, 4), (width - 11, 4), (4, width - 11)] {
            assert!((0..7).all(|n| modules[y][x + n] && modules[y + n][x]), "{x} {y}");
        }
        assert!(code(&modules, true).contains("\x1b[30;107m"));
        assert!(super::modules(&"x".repeat(5000)).is_none());
    }
}
