//! Rules over documents: what they name exists, and nothing names a machine.

use crate::repo::{table, ticked};
use std::collections::BTreeSet;

/// Commands in fenced `sh` blocks: a `make` target is in the Makefile, a script is a file, a program is a binary.
pub(crate) fn commands(
    path: &str,
    text: &str,
    makefile: &str,
    programs: &BTreeSet<String>,
    exists: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| Some(line.split_once(':').filter(|(_, rest)| !rest.starts_with('='))?.0.trim()))
        .collect();
    let mut findings = Vec::new();
    for (number, line) in shell_lines(text) {
        let words: Vec<_> = line.split_whitespace().skip_while(|word| is_prefix(word)).collect();
        let Some((command, arguments)) = words.split_first() else { continue };
        let missing = match *command {
            "make" => arguments
                .iter()
                .find(|word| !word.starts_with('-') && !word.contains('=') && !targets.contains(**word))
                .map(|target| format!("make target {target}")),
            script if script.trim_start_matches("./").starts_with("scripts/") => {
                let file = script.trim_start_matches("./");
                (!exists(file)).then(|| format!("script {file}"))
            }
            program if program.starts_with("zixt") && !program.contains('/') => {
                (!programs.contains(program)).then(|| format!("program {program}"))
            }
            _ => None,
        };
        findings.extend(missing.map(|what| format!("{path}:{number}: there is no {what}")));
    }
    findings
}

/// What may stand before the command itself.
fn is_prefix(word: &str) -> bool {
    word == "$" || word == "sudo" || word == "env" || (word.contains('=') && !word.starts_with('-'))
}

/// Number and text of each line in a fenced block that says it is for the shell.
fn shell_lines(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut inside = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            inside = if inside.is_some() { None } else { Some(language.trim() == "sh") };
        } else if inside == Some(true) {
            let command = line.split(" #").next().unwrap_or_default().trim();
            if !command.starts_with('#') {
                lines.extend(command.split("&&").map(|part| (index + 1, part)));
            }
        }
    }
    lines
}

/// The programs that docs/interfaces.md names are those that cargo builds, less those that the README says do not
/// exist yet. Each of the three lists is wrong when it names too much or too little.
pub(crate) fn binaries(interfaces: &str, readme: &str, built: &BTreeSet<String>) -> Vec<String> {
    let named: BTreeSet<String> = table(interfaces, "program")
        .iter()
        .filter_map(|row| ticked(row.first()?).into_iter().next())
        .collect();
    let promised: BTreeSet<String> = not_yet(readme).into_iter().collect();
    let mut findings = Vec::new();
    for name in named.difference(built).filter(|name| !promised.contains(*name)) {
        findings.push(format!("docs/interfaces.md names the program {name}, which no crate builds"));
    }
    for name in built.difference(&named) {
        findings.push(format!("docs/interfaces.md does not name the program {name}"));
    }
    for name in promised.intersection(built) {
        findings
            .push(format!("the README says that {name} does not exist yet, but it is built: remove its row"));
    }
    findings
}

/// The README's programs that are planned and not built.
pub(crate) fn not_yet(readme: &str) -> Vec<String> {
    table(readme, "program not built yet")
        .iter()
        .filter_map(|row| ticked(row.first()?).into_iter().next())
        .collect()
}

/// Decisions are `NNNN-title.md` from 0001 without a gap, have the parts of the template, and are linked.
pub(crate) fn decisions(index: &str, files: &[(String, String)]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut numbers = Vec::new();
    for (path, text) in files {
        let name = path.rsplit('/').next().unwrap_or_default();
        let number =
            name.split('-').next().filter(|digits| digits.len() == 4).and_then(|n| n.parse::<usize>().ok());
        let Some(number) = number.filter(|_| name.ends_with(".md")) else {
            findings.push(format!("{path} is not named like 0001-title.md"));
            continue;
        };
        numbers.push(number);
        if !text.starts_with(&format!("# {number:04}. ")) {
            findings.push(format!("{path} does not start with '# {number:04}. '"));
        }
        for part in ["## Context", "## Decision", "## Consequences"] {
            if !text.lines().any(|line| line == part) {
                findings.push(format!("{path} has no part '{part}'"));
            }
        }
        if !index.contains(&format!("({name})")) {
            findings.push(format!("{path} is not linked from docs/decisions/README.md"));
        }
    }
    numbers.sort_unstable();
    if let Some((expected, found)) = (1..).zip(&numbers).find(|(expected, found)| expected != *found) {
        findings.push(format!("decision {expected:04} is missing, or {found:04} is there twice"));
    }
    findings
}

/// Relative links lead to a file or folder.
pub(crate) fn links(path: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for part in text.split("](").skip(1) {
        let target = part.split([')', '#', ' ']).next().unwrap_or_default();
        if target.is_empty() || target.contains(':') || exists(&resolve(folder, target)) {
            continue;
        }
        findings.push(format!("{path} links to {target}, which does not exist"));
    }
    findings
}

fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A row names at least one test as `path::name`, the file exists and has a function of that name; files that the
/// second column names exist. `read` gives a file's text, or nothing.
pub(crate) fn security_features(text: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut findings = Vec::new();
    let rows = table(text, "Feature");
    if rows.is_empty() {
        findings.push("SECURITY_FEATURES.md has no row".to_owned());
    }
    for row in rows {
        let [feature, places, tests] = row.as_slice() else {
            findings.push(format!("a row of SECURITY_FEATURES.md has {} cells, not 3: {row:?}", row.len()));
            continue;
        };
        for place in ticked(places).iter().filter(|place| place.contains('/')) {
            if read(place).is_none() {
                findings.push(format!("'{feature}' is said to be enforced in {place}, which does not exist"));
            }
        }
        let tests = ticked(tests);
        if tests.is_empty() {
            findings.push(format!("'{feature}' names no test"));
        }
        for test in tests {
            let Some((path, name)) = test.split_once("::") else {
                findings.push(format!("'{feature}' names {test}, which is not path::test"));
                continue;
            };
            let name = name.rsplit("::").next().unwrap_or(name);
            let found = read(path).is_some_and(|text| text.contains(&format!("fn {name}(")));
            if !found {
                findings.push(format!("'{feature}' names the test {test}, which does not exist"));
            }
        }
    }
    findings
}

/// Paths of a builder's machine, and settings of a private registry, have no place in a tracked file.
pub(crate) fn machine_traces(path: &str, text: &str) -> Vec<String> {
    // In pieces, so that this file is not its own finding.
    const TRACES: &[&str] = &[
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("sparse", "+http"),
        concat!("replace", "-with"),
    ];
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for trace in TRACES {
            // After a word the same letters are the inside of some relative path, or of a URL.
            let absolute = |(at, _): (usize, &str)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | ')' | '>'))
            };
            if line.match_indices(trace).any(absolute) {
                findings.push(format!("{path}:{} names this machine: {trace}", index + 1));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn commands_that_do_not_exist_are_found() {
        let check = |line: &str| {
            let text = format!("make nonsense\n```sh\n{line}\n```\n```text\nmake nonsense\n```\n");
            let makefile = "X := 1\nrun: ## Run\n\techo\ntest-full: run\n";
            commands("README.md", &text, makefile, &set(&["zixt"]), &|path| path == "scripts/a.sh")
        };
        for good in [
            "make run",
            "sudo make test-full X=1 # comment",
            "make",
            "zixt send",
            "scripts/a.sh",
            "# make no",
        ] {
            assert_eq!(check(good), [""; 0], "{good}");
        }
        for bad in
            ["make walk", "cd x && make walk", "zixt-nothing --help", "./scripts/b.sh", "X=1 make run walk"]
        {
            assert_eq!(check(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn the_three_lists_of_programs_agree() {
        let interfaces = "| program | crate |\n|---|---|\n| `zixtd` | a |\n| `zixt` | b |\n";
        let readme = "| program not built yet | comes with |\n|---|---|\n| `zixt` | b |\n";
        assert_eq!(binaries(interfaces, readme, &set(&["zixtd"])), [""; 0]);
        assert_eq!(binaries(interfaces, "", &set(&["zixtd"])).len(), 1, "named, not built");
        assert_eq!(binaries(interfaces, readme, &set(&["zixtd", "zixt"])).len(), 1, "promised, but built");
        assert_eq!(binaries(interfaces, readme, &set(&["zixtd", "new"])).len(), 1, "built, not named");
    }

    #[test]
    fn decisions_out_of_order_are_found() {
        let file = |name: &str, title: &str| {
            (
                format!("docs/decisions/{name}"),
                format!("{title}\n\n## Context\n\n## Decision\n\n## Consequences\n"),
            )
        };
        let index = "[a](0001-a.md) [b](0002-b.md) [c](0003-c.md)";
        let sound = [file("0001-a.md", "# 0001. A"), file("0002-b.md", "# 0002. B")];
        assert_eq!(decisions(index, &sound), [""; 0]);
        assert_eq!(decisions("", &sound).len(), 2, "not linked");
        assert_eq!(decisions(index, &[sound[0].clone(), file("0003-c.md", "# 0003. C")]).len(), 1, "a gap");
        assert_eq!(decisions(index, &[file("0001-a.md", "# 0002. A")]).len(), 1, "wrong title");
        assert_eq!(decisions(index, &[file("a.md", "# 0001. A")]).len(), 1, "wrong name");
        assert_eq!(decisions(index, &[("d/0001-a.md".into(), "# 0001. A".into())]).len(), 3, "no parts");
    }

    #[test]
    fn links_to_nothing_are_found() {
        let exists = |path: &str| path == "docs/a.md";
        assert_eq!(
            links("docs/b.md", "[x](a.md) [y](../docs/a.md#z) [z](https://example.org)", &exists),
            [""; 0]
        );
        assert_eq!(links("b.md", "[x](a.md)", &exists).len(), 1);
    }

    #[test]
    fn features_without_a_test_are_found() {
        let read = |path: &str| (path == "a/b.rs").then(|| "fn proves_it() {}".to_owned());
        let check = |row: &str| {
            let text = format!("| Feature | Where enforced | Test |\n|---|---|---|\n{row}\n");
            security_features(&text, &read)
        };
        assert_eq!(check("| F | `a/b.rs` | `a/b.rs::proves_it` |"), [""; 0]);
        assert_eq!(check("| F | `a/b.rs` | `a/b.rs::tests::proves_it` |"), [""; 0]);
        assert_eq!(check("| F | `a/c.rs` | `a/b.rs::proves_it` |").len(), 1);
        assert_eq!(check("| F | `a/b.rs` | `a/b.rs::proves_not` |").len(), 1);
        assert_eq!(check("| F | `a/b.rs` | `a/c.rs::proves_it` |").len(), 1);
        assert_eq!(check("| F | `a/b.rs` | soon |").len(), 1);
        assert_eq!(check("| F | `a/b.rs` |").len(), 1);
        assert_eq!(check("").len(), 1, "an empty table");
    }

    #[test]
    fn traces_of_a_machine_are_found() {
        let root = concat!("/ro", "ot/");
        assert_eq!(machine_traces("a", &format!("x = \"{root}x\"")).len(), 1);
        assert_eq!(machine_traces("a", &format!("GET /v1{root}x and tree{root}")), [""; 0]);
        assert_eq!(machine_traces("a", concat!("registry = \"sparse", "+https://x\"")).len(), 1);
    }
}
