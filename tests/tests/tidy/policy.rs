//! The rules of deny.toml and of the workspace manifest, applied to what is built. cargo-deny reads the same file
//! where it is installed; these need no program that a fresh Debian lacks.

use crate::graph::Built;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn licences(deny: &str, built: &BTreeSet<Built>) -> Vec<String> {
    let deny = parse(deny);
    let allowed: BTreeSet<String> = strings(&deny["licenses"]["allow"]).collect();
    let exceptions: Vec<(String, BTreeSet<String>)> = exceptions(&deny["licenses"]);
    let refused = |built: &&Built| {
        let more = exceptions.iter().filter(|(name, _)| *name == built.name).flat_map(|(_, more)| more);
        !Expression::new(&built.licence).allowed(&allowed.iter().chain(more).cloned().collect())
    };
    let finding = |built: &Built| format!("{} {} has licence '{}'", built.name, built.version, built.licence);
    let mut findings: Vec<String> = built.iter().filter(refused).map(finding).collect();
    for (name, _) in &exceptions {
        let needs_it =
            |built: &Built| built.name == *name && !Expression::new(&built.licence).allowed(&allowed);
        if !built.iter().any(needs_it) {
            findings.push(format!("deny.toml has an exception for {name}, which needs none"));
        }
    }
    findings
}

/// The licences that are allowed for one crate alone: `{ crate = "name", allow = ["…"] }`.
fn exceptions(licenses: &toml::Value) -> Vec<(String, BTreeSet<String>)> {
    let one = |item: &toml::Value| {
        let name = item.get("crate")?.as_str()?;
        Some((name.to_owned(), strings(item.get("allow")?).collect()))
    };
    let list = licenses.get("exceptions").and_then(toml::Value::as_array);
    list.into_iter().flatten().filter_map(one).collect()
}

pub(crate) fn sources(deny: &str, lock: &str) -> Vec<String> {
    let deny = parse(deny);
    let allowed: BTreeSet<String> =
        strings(&deny["sources"]["allow-registry"]).map(|url| format!("registry+{url}")).collect();
    let sources: BTreeSet<&str> = lock.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    let foreign = sources.into_iter().filter(|source| !allowed.contains(source.trim_matches('"')));
    foreign.map(|source| format!("Cargo.lock has a source that deny.toml does not allow: {source}")).collect()
}

pub(crate) fn forbidden(deny: &str, built: &BTreeSet<Built>) -> Vec<String> {
    let deny = parse(deny);
    let entries = entries(&deny["bans"]["deny"]);
    let hit = |built: &Built| {
        let (name, _, reason) = entries.iter().find(|(name, ..)| *name == built.name)?;
        Some(format!("{name} {} is built; forbidden: {reason}", built.version))
    };
    built.iter().filter_map(hit).collect()
}

/// Two versions of a crate are a finding unless all but one are on the list; so is a line that matches nothing.
pub(crate) fn duplicates(deny: &str, built: &BTreeSet<Built>) -> Vec<String> {
    let deny = parse(deny);
    let skip = entries(&deny["bans"]["skip"]);
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for built in built {
        versions.entry(&built.name).or_default().insert(&built.version);
    }
    let mut findings = Vec::new();
    for (name, wanted, reason) in &skip {
        let several = versions.get(name.as_str()).filter(|found| found.len() > 1);
        if !several.is_some_and(|found| found.iter().any(|version| fits(wanted, version))) {
            findings.push(format!("deny.toml skips {name}@{wanted}, which is no duplicate any more"));
        }
        if reason.is_empty() {
            findings.push(format!("deny.toml skips {name}@{wanted} without a reason"));
        }
    }
    for (name, found) in versions {
        let skipped = |version: &str| skip.iter().any(|(of, wanted, _)| of == name && fits(wanted, version));
        if found.iter().filter(|version| !skipped(version)).count() > 1 {
            let found: Vec<_> = found.into_iter().collect();
            findings.push(format!("{name} is built in versions {}", found.join(" and ")));
        }
    }
    findings
}

/// A crate outside the workspace's lints would be outside its rules; only one with listed unsafe code may state its own.
pub(crate) fn lints(path: &str, manifest: &str, with_unsafe: &[String]) -> Vec<String> {
    let manifest = parse(manifest);
    let inherits =
        manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
    let folder = path.trim_end_matches("Cargo.toml");
    let excused = with_unsafe.iter().any(|file| file.starts_with(folder));
    let own_lints = manifest.get("lints").and_then(|lints| lints.get("rust")).is_some();
    match inherits {
        Some(true) => Vec::new(),
        _ if excused && own_lints => Vec::new(),
        _ => vec![format!(
            "{path} does not take the workspace's lints, and no file of it is in tests/UNSAFE.md"
        )],
    }
}

/// The lints that the workspace denies or forbids; allowing one of them somewhere needs a reason.
pub(crate) fn denied_lints(manifest: &str) -> Vec<String> {
    let manifest = parse(manifest);
    let mut denied = Vec::new();
    for tool in ["rust", "clippy"] {
        let lints = manifest["workspace"]["lints"][tool].as_table().cloned().unwrap_or_default();
        let strict = |level: &toml::Value| matches!(level.as_str(), Some("deny" | "forbid"));
        denied.extend(lints.into_iter().filter(|(_, level)| strict(level)).map(|(name, _)| name));
    }
    denied
}

fn parse(text: &str) -> toml::Table {
    text.parse().unwrap_or_else(|error| panic!("not TOML: {error}"))
}

fn strings(value: &toml::Value) -> impl Iterator<Item = String> {
    value
        .as_array()
        .cloned()
        .unwrap_or_default()
        .into_iter()
        .filter_map(|item| Some(item.as_str()?.to_owned()))
}

/// Name, version (may be empty) and reason of each `{ crate = "name@version", reason = "…" }`.
fn entries(value: &toml::Value) -> Vec<(String, String, String)> {
    let entry = |item: &toml::Value| {
        let spec = item.get("crate")?.as_str()?;
        let (name, version) = spec.split_once('@').unwrap_or((spec, ""));
        let reason = item.get("reason").and_then(toml::Value::as_str).unwrap_or_default();
        Some((name.to_owned(), version.to_owned(), reason.to_owned()))
    };
    value.as_array().into_iter().flatten().filter_map(entry).collect()
}

/// `0.22` fits 0.22.1 but not 0.2.2 or 0.220.0.
fn fits(wanted: &str, version: &str) -> bool {
    version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A licence expression of SPDX, with the old `MIT/Apache-2.0` read as OR.
struct Expression {
    words: Vec<String>,
}

impl Expression {
    fn new(text: &str) -> Self {
        let spaced = text.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        Self { words: spaced.split_whitespace().rev().map(str::to_owned).collect() }
    }

    /// Whether the allowed licences are enough; what cannot be read is not allowed.
    fn allowed(mut self, allowed: &BTreeSet<String>) -> bool {
        self.either(allowed) == Some(true) && self.words.is_empty()
    }

    fn either(&mut self, allowed: &BTreeSet<String>) -> Option<bool> {
        let mut value = self.both(allowed)?;
        while self.next_is("OR") {
            value |= self.both(allowed)?;
        }
        Some(value)
    }

    fn both(&mut self, allowed: &BTreeSet<String>) -> Option<bool> {
        let mut value = self.one(allowed)?;
        while self.next_is("AND") {
            value &= self.one(allowed)?;
        }
        Some(value)
    }

    fn one(&mut self, allowed: &BTreeSet<String>) -> Option<bool> {
        if self.next_is("(") {
            let value = self.either(allowed)?;
            return self.next_is(")").then_some(value);
        }
        let mut licence =
            self.words.pop().filter(|word| !matches!(word.as_str(), "OR" | "AND" | "WITH" | ")"))?;
        if self.next_is("WITH") {
            licence = format!("{licence} WITH {}", self.words.pop()?);
        }
        Some(allowed.contains(&licence))
    }

    fn next_is(&mut self, word: &str) -> bool {
        let found = self.words.last().is_some_and(|next| next == word);
        if found {
            self.words.pop();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"]
        [sources]
        allow-registry = ["https://example.org/index"]
        [bans]
        deny = [{ crate = "bad", reason = "because" }]
        skip = [{ crate = "old@0.1", reason = "held back by x" }]
    "#;

    fn built(crates: &[(&str, &str, &str)]) -> BTreeSet<Built> {
        let one = |(name, version, licence): &(&str, &str, &str)| Built {
            name: (*name).into(),
            version: (*version).into(),
            licence: (*licence).into(),
        };
        crates.iter().map(one).collect()
    }

    #[test]
    fn an_exception_is_for_one_crate_that_needs_it() {
        let deny =
            DENY.replace("[sources]", "exceptions = [{ crate = \"a\", allow = [\"MPL-2.0\"] }]\n[sources]");
        let findings = |crates: &[(&str, &str, &str)]| licences(&deny, &built(crates)).len();
        assert_eq!(findings(&[("a", "1.0.0", "MPL-2.0"), ("b", "1.0.0", "MIT")]), 0);
        assert_eq!(findings(&[("a", "1.0.0", "MPL-2.0"), ("b", "1.0.0", "MPL-2.0")]), 1, "another crate");
        assert_eq!(findings(&[("a", "1.0.0", "GPL-3.0")]), 1, "another licence");
        assert_eq!(findings(&[("a", "1.0.0", "MIT")]), 1, "needed no more");
        assert_eq!(findings(&[("b", "1.0.0", "MIT")]), 1, "for nothing");
    }

    #[test]
    fn licence_expressions_are_understood() {
        for (licence, good) in [
            ("MIT", true),
            ("MIT/GPL-3.0", true),
            ("GPL-3.0 OR MIT", true),
            ("MIT AND GPL-3.0", false),
            ("MIT AND (GPL-3.0 OR ISC)", true),
            ("(MIT OR GPL-3.0) AND LGPL-2.1", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
            ("GPL-3.0 OR MIT AND GPL-2.0", false),
            ("", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT ISC", false),
        ] {
            let findings = licences(DENY, &built(&[("a", "1.0.0", licence)]));
            assert_eq!(findings.is_empty(), good, "{licence}");
        }
    }

    #[test]
    fn foreign_sources_are_found() {
        assert_eq!(sources(DENY, "source = \"registry+https://example.org/index\"\n"), [""; 0]);
        assert_eq!(sources(DENY, "source = \"git+https://example.org/x\"\n").len(), 1);
        assert_eq!(sources(DENY, "source = \"registry+https://example.org/other\"\n").len(), 1);
    }

    #[test]
    fn forbidden_crates_are_found() {
        assert_eq!(
            forbidden(DENY, &built(&[("bad", "1.0.0", "MIT")])),
            ["bad 1.0.0 is built; forbidden: because"]
        );
        assert_eq!(forbidden(DENY, &built(&[("good", "1.0.0", "MIT")])), [""; 0]);
    }

    #[test]
    fn duplicates_off_the_list_and_stale_lines_are_found() {
        let on_the_list = [("old", "0.1.7", "MIT"), ("old", "0.2.0", "MIT")];
        assert_eq!(duplicates(DENY, &built(&on_the_list)), [""; 0]);
        let third = [on_the_list[0], on_the_list[1], ("old", "0.3.0", "MIT")];
        assert_eq!(duplicates(DENY, &built(&third)), ["old is built in versions 0.1.7 and 0.2.0 and 0.3.0"]);
        assert_eq!(
            duplicates(DENY, &built(&[("old", "0.2.0", "MIT")])),
            ["deny.toml skips old@0.1, which is no duplicate any more"]
        );
        assert!(fits("0.1", "0.1.7") && !fits("0.1", "0.17.0") && !fits("0.1", "1.0.1"));
    }

    #[test]
    fn crates_outside_the_lints_are_found() {
        let with_unsafe = ["a/src/x.rs".to_owned()];
        assert_eq!(lints("b/Cargo.toml", "[lints]\nworkspace = true\n", &[]), [""; 0]);
        assert_eq!(lints("b/Cargo.toml", "[package]\nname = \"b\"\n", &with_unsafe).len(), 1);
        assert_eq!(lints("a/Cargo.toml", "[lints.rust]\nunsafe_code = \"deny\"\n", &with_unsafe), [""; 0]);
        assert_eq!(lints("a/Cargo.toml", "[package]\nname = \"a\"\n", &with_unsafe).len(), 1);
    }

    #[test]
    fn denied_lints_are_read() {
        let manifest =
            "[workspace.lints.rust]\na = \"forbid\"\nb = \"warn\"\n[workspace.lints.clippy]\nc = \"deny\"\n";
        assert_eq!(denied_lints(manifest), ["a", "c"]);
    }
}
