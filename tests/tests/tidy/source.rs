//! Rules over the text of Rust files. A small scanner tells code, comments and string literals apart, so that a rule
//! about code is not tripped by a comment that names it.

use crate::repo::{table, ticked};
use std::collections::BTreeSet;

const LINES_MAX: usize = 1_500;
const LABELS_FILE: &str = "appliance/crypto/src/labels.rs";

/// The protocol name of our TLS links (ALPN): on the wire in the clear, never signed or hashed by us.
const PROTOCOL_NAME: &str = "zixt/1";

/// Domain-separation labels (`b"zixt/…"`, `"zixt/v1…"`) live in one file, where two equal ones are seen. Tests may
/// spell one out: an expected value that is built from the constant would change with it.
pub(crate) fn labels(path: &str, text: &str) -> Vec<String> {
    if path == LABELS_FILE {
        return Vec::new();
    }
    let is_label = |literal: &&Literal| {
        let reads_like_one =
            literal.text.starts_with("zixt/v1") || (literal.is_bytes && literal.text.starts_with("zixt/"));
        reads_like_one && literal.text != PROTOCOL_NAME && !in_test(path, text, literal)
    };
    let finding = |literal: &Literal| {
        format!("{path}:{}: the label {:?} belongs in {LABELS_FILE}", literal.line, literal.text)
    };
    scan(text).literals.iter().filter(is_label).map(finding).collect()
}

/// Tests that do not run: `#[ignore]`, `ZIXT-SKIP:` printed by a test that skips itself, and a test that says in its
/// own words that it skips. The first two are fine with a row in tests/SKIPPED.md; a row for nothing is not.
pub(crate) fn skipped(list: &str, files: &[(String, String)]) -> Vec<String> {
    let listed: BTreeSet<String> =
        table(list, "test").iter().filter_map(|row| ticked(row.first()?).into_iter().next()).collect();
    let mut findings = Vec::new();
    let mut found = BTreeSet::new();
    for row in table(list, "test") {
        if row.get(1).is_none_or(String::is_empty) {
            findings.push(format!("tests/SKIPPED.md gives no reason: {row:?}"));
        }
    }
    for (path, text) in files {
        let scanned = scan(text);
        for (at, attribute) in attributes(&scanned.code) {
            let words: Vec<_> = words(attribute).collect();
            let ignores = words.first() == Some(&"ignore")
                || (words.first() == Some(&"cfg_attr") && words.iter().skip(1).any(|word| *word == "ignore"));
            if ignores {
                let name = following_function(&scanned.code[at..]).unwrap_or("?");
                found.insert(format!("{path}::{name}"));
            }
        }
        for literal in &scanned.literals {
            if let Some(rest) = literal.text.strip_prefix("ZIXT-SKIP: ") {
                // Without a name it is a text that is put together, or looked for as here: scripts/test.sh reads
                // what such a text has become when it is printed.
                let name = rest.split(':').next().filter(|name| !name.is_empty());
                found.extend(name.map(|name| format!("{path}::{name}")));
            } else if literal.text.to_lowercase().starts_with("skip")
                && literal.printed
                && in_test(path, text, literal)
            {
                findings.push(format!(
                    "{path}:{}: a test prints that it skips; let it fail, or say ZIXT-SKIP and list it",
                    literal.line
                ));
            }
        }
    }
    findings.extend(
        found.difference(&listed).map(|test| format!("{test} is skipped and not in tests/SKIPPED.md")),
    );
    findings.extend(
        listed.difference(&found).map(|test| format!("tests/SKIPPED.md lists {test}, which is not skipped")),
    );
    findings
}

fn in_test(path: &str, text: &str, literal: &Literal) -> bool {
    let test_module = text.lines().position(|line| line.trim() == "#[cfg(test)]");
    path.starts_with("tests/")
        || path.contains("/tests/")
        || test_module.is_some_and(|line| literal.line > line)
}

/// An attribute that allows or expects a lint which the workspace denies says why.
pub(crate) fn allowances(path: &str, text: &str, denied: &[String]) -> Vec<String> {
    let code = scan(text).code;
    let mut findings = Vec::new();
    for (at, attribute) in attributes(&code) {
        let words: Vec<_> = words(attribute).collect();
        let allows = words.iter().any(|word| matches!(*word, "allow" | "expect"));
        let lint = words.iter().find(|word| denied.iter().any(|lint| lint == *word));
        if let Some(lint) = lint.filter(|_| allows && !words.contains(&"reason")) {
            findings.push(format!("{path}:{}: {lint} is allowed without a reason", line_of(&code, at)));
        }
    }
    findings
}

/// Files with unsafe code are those of tests/UNSAFE.md, no more and no fewer.
pub(crate) fn unsafe_code(list: &str, files: &[(String, String)]) -> Vec<String> {
    let listed: BTreeSet<String> = listed_files(list).into_iter().collect();
    let has_unsafe = |text: &str| words(&scan(text).code).any(|word| word == "unsafe");
    let found: BTreeSet<String> =
        files.iter().filter(|(_, text)| has_unsafe(text)).map(|(path, _)| path.clone()).collect();
    let mut findings: Vec<_> = found
        .difference(&listed)
        .map(|path| format!("{path} has unsafe code and is not in tests/UNSAFE.md"))
        .collect();
    findings.extend(
        listed.difference(&found).map(|path| format!("tests/UNSAFE.md lists {path}, which has none")),
    );
    findings
}

pub(crate) fn listed_files(list: &str) -> Vec<String> {
    table(list, "file").iter().filter_map(|row| ticked(row.first()?).into_iter().next()).collect()
}

pub(crate) fn length(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines <= LINES_MAX {
        Vec::new()
    } else {
        vec![format!("{path} has {lines} lines; at most {LINES_MAX}")]
    }
}

/// A Rust file taken apart.
struct Scanned {
    /// The file with comments and the insides of literals blanked; lines stay where they are.
    code: String,
    literals: Vec<Literal>,
}

/// A string literal.
struct Literal {
    line: usize,
    text: String,
    is_bytes: bool,
    /// It is the first argument of a printing macro.
    printed: bool,
}

fn scan(text: &str) -> Scanned {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut literals = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            end_of_comment(bytes, at)
        } else if let Some((body, end)) = string_at(bytes, at) {
            let before = text.get(..at).unwrap_or_default().trim_end_matches(['b', 'r', 'c']).trim_end();
            literals.push(Literal {
                line: line_of(text, at),
                text: text.get(body..end).unwrap_or_default().trim_end_matches(['"', '#']).to_owned(),
                is_bytes: at > 0 && bytes[at - 1] == b'b',
                printed: ["println!(", "print!(", "eprintln!(", "eprint!("]
                    .iter()
                    .any(|m| before.ends_with(m)),
            });
            end
        } else if rest[0] == b'\'' {
            end_of_char(text, at)
        } else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    Scanned { code: String::from_utf8_lossy(&code).into_owned(), literals }
}

fn end_of_comment(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// Where the inside of a string literal that starts at `start` begins, and where the literal ends.
fn string_at(bytes: &[u8], start: usize) -> Option<(usize, usize)> {
    if bytes[start] == b'"' {
        let mut at = start + 1;
        while at < bytes.len() && bytes[at] != b'"' {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        return Some((start + 1, (at + 1).min(bytes.len())));
    }
    if bytes[start] != b'r' {
        return None;
    }
    let hashes = bytes[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    let body = start + 1 + hashes + 1;
    let mut before = bytes[..start].iter().rev().copied();
    let first = before.next();
    let is_word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_prefix = matches!(first, Some(b'b' | b'c')) && !is_word(before.next());
    let ends_a_word = is_word(first) && !is_prefix;
    if ends_a_word || bytes.get(body - 1) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let length = bytes[body..].windows(close.len()).position(|window| window == close)?;
    Some((body, body + length + close.len()))
}

/// A quote starts a character or a lifetime; only the former is skipped.
fn end_of_char(text: &str, start: usize) -> usize {
    let mut inside = text.get(start + 1..).unwrap_or_default().char_indices();
    match inside.next() {
        Some((_, '\\')) => {
            inside.next();
            inside.find(|(_, c)| *c == '\'').map_or(text.len(), |(offset, _)| start + 1 + offset + 1)
        }
        Some(_) => match inside.next() {
            Some((offset, '\'')) => start + 1 + offset + 1,
            _ => start + 1,
        },
        None => text.len(),
    }
}

/// Place and inside of each `#[…]` and `#![…]`.
fn attributes(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices('#') {
        let rest = code[at + 1..].strip_prefix('!').unwrap_or(&code[at + 1..]);
        let Some(inside) = rest.strip_prefix('[') else { continue };
        let mut depth = 1;
        let end = inside.find(|c| {
            depth += match c {
                '[' => 1,
                ']' => -1,
                _ => 0,
            };
            depth == 0
        });
        found.extend(end.map(|end| (at, &inside[..end])));
    }
    found
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn following_function(code: &str) -> Option<&str> {
    let mut words = words(code).skip_while(|word| *word != "fn");
    words.next()?;
    words.next()
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Vec<(String, String)> {
        vec![("a/src/x.rs".to_owned(), text.to_owned())]
    }

    #[test]
    fn the_scanner_tells_code_from_the_rest() {
        let text = "fn a<'x>() { let c = '\"'; /* unsafe /* x */ */ let s = \"un\\\"safe\"; } // unsafe\n\
                    let r = br#\"raw \"quoted\" one\"#; let l: &'static str = r\"r\"; let e = '\\''; after();";
        let scanned = scan(text);
        assert!(!scanned.code.contains("unsafe"), "{}", scanned.code);
        assert!(
            scanned.code.contains(" static str") && scanned.code.contains("after();"),
            "{}",
            scanned.code
        );
        let literals: Vec<_> =
            scanned.literals.iter().map(|l| (l.text.as_str(), l.is_bytes, l.line)).collect();
        assert_eq!(literals, [("un\\\"safe", false, 1), ("raw \"quoted\" one", true, 2), ("r", false, 2)]);
    }

    #[test]
    fn labels_elsewhere_are_found() {
        assert_eq!(labels("a.rs", "const X: &[u8] = b\"zixt/x\";").len(), 1);
        assert_eq!(labels("a.rs", "const X: &str = \"zixt/v1/x\";").len(), 1);
        assert_eq!(
            labels("a.rs", "// b\"zixt/x\"\nlet p = \"run/zixt/x\"; let q = \"zixt/hsmd.sock\";").len(),
            0
        );
        assert_eq!(labels(LABELS_FILE, "const X: &[u8] = b\"zixt/x\";").len(), 0);
        assert_eq!(labels("a.rs", "#[cfg(test)]\nmod tests { const X: &[u8] = b\"zixt/x\"; }").len(), 0);
    }

    #[test]
    fn ignored_tests_need_a_row() {
        let list = "| test | reason |\n|---|---|\n| `a/src/x.rs::slow` | needs a card reader |\n";
        let text = "#[test]\n#[ignore = \"why\"]\nfn slow() {}\n";
        assert_eq!(skipped(list, &files(text)), [""; 0]);
        assert_eq!(skipped("", &files(text)), ["a/src/x.rs::slow is skipped and not in tests/SKIPPED.md"]);
        assert_eq!(skipped("", &files("#[cfg_attr(x, ignore)]\nfn other() {}\n")).len(), 1);
        assert_eq!(skipped(list, &files("#[test]\nfn slow() {}\n")).len(), 1, "a row for nothing");
        assert_eq!(skipped(&list.replace("needs a card reader", ""), &files(text)).len(), 1, "no reason");
        assert_eq!(skipped("", &files("// #[ignore]\nlet x = \"#[ignore]\";\n")), [""; 0]);
    }

    #[test]
    fn tests_that_skip_themselves_are_found() {
        let silent = "#[cfg(test)]\nmod tests { fn t() { eprintln!(\"skipping: no token\"); } }";
        assert_eq!(skipped("", &files(silent)).len(), 1);
        let aloud = "fn t() { println!(\"ZIXT-SKIP: t: no token\"); }";
        assert_eq!(skipped("", &files(aloud)).len(), 1);
        assert_eq!(skipped("", &files("fn program() { println!(\"skipped 3 files\"); }")), [""; 0]);
    }

    #[test]
    fn allowances_without_a_reason_are_found() {
        let denied = ["unwrap_used".to_owned()];
        assert_eq!(allowances("a.rs", "\n#![allow(clippy::unwrap_used)]", &denied).len(), 1);
        assert_eq!(allowances("a.rs", "#[expect(clippy::unwrap_used)]", &denied).len(), 1);
        assert_eq!(allowances("a.rs", "#[allow(clippy::unwrap_used, reason = \"[x]\")]", &denied).len(), 0);
        assert_eq!(allowances("a.rs", "#[allow(clippy::other)]", &denied).len(), 0);
        assert_eq!(allowances("a.rs", "#[deny(clippy::unwrap_used)]", &denied).len(), 0);
    }

    #[test]
    fn unsafe_code_off_the_list_is_found() {
        let list = "| file | why |\n|---|---|\n| `a/src/x.rs` | mlock |\n";
        assert_eq!(unsafe_code(list, &files("unsafe { x() }")), [""; 0]);
        assert_eq!(unsafe_code("", &files("unsafe { x() }")).len(), 1);
        assert_eq!(unsafe_code("", &files("#![forbid(unsafe_code)] // unsafe")), [""; 0]);
        assert_eq!(unsafe_code(list, &files("fn x() {}")).len(), 1);
    }

    #[test]
    fn long_files_are_found() {
        assert_eq!(length("a.rs", &"\n".repeat(LINES_MAX)).len(), 0);
        assert_eq!(length("a.rs", &"\n".repeat(LINES_MAX + 1)).len(), 1);
    }
}
