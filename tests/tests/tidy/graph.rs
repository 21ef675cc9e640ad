//! What links what: the layer table and the absences of ARCHITECTURE.md against the real dependency graph.
//!
//! `cargo metadata` names the workspace's own edges. For what is really built, `cargo tree` is asked: metadata also
//! lists optional dependencies of dependencies that no build ever enables.

use crate::repo::{Repo, table, ticked};
use std::collections::{BTreeMap, BTreeSet};

/// The crate that holds these tests and the measurements; it may use all, and nothing may use it.
pub(crate) const TESTS: &str = "zixt-tests";

/// A crate of the workspace, as cargo sees it.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) folder: String,
    /// Workspace crates that it uses, for building or running; those of its tests are apart.
    pub(crate) uses: Vec<String>,
    pub(crate) tests_use: Vec<String>,
    pub(crate) binaries: Vec<String>,
}

/// One crate of what is built.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Built {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) licence: String,
}

/// Compares the layer table with the workspace: both name the same crates, a crate uses only what its row lists, and
/// a row lists only crates of lower levels.
pub(crate) fn layers(architecture: &str, members: &[Member]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut rows = BTreeMap::new();
    for row in table(architecture, "level") {
        let [level, name, folder, _, uses] = row.as_slice() else {
            findings.push(format!("a row of the layer table has {} cells, not 5: {row:?}", row.len()));
            continue;
        };
        let (Ok(level), [name], [folder]) = (level.parse::<u32>(), &ticked(name)[..], &ticked(folder)[..])
        else {
            findings.push(format!("not a row of level, `crate`, `folder`: {row:?}"));
            continue;
        };
        if rows.insert(name.clone(), (level, folder.clone(), ticked(uses))).is_some() {
            findings.push(format!("{name} has two rows in the layer table"));
        }
    }
    for (name, (level, _, uses)) in &rows {
        for used in uses {
            match rows.get(used) {
                None => findings.push(format!("{name} may use {used}, which has no row")),
                Some((below, ..)) if below >= level => {
                    findings
                        .push(format!("{name} (level {level}) may use {used} (level {below}): not below it"));
                }
                Some(_) => {}
            }
        }
        if !members.iter().any(|member| member.name == *name) {
            findings.push(format!("{name} has a row in the layer table but is no crate"));
        }
    }
    for member in members {
        for used in member.uses.iter().chain(&member.tests_use).filter(|used| *used == TESTS) {
            findings.push(format!("{} uses {used}; nothing may", member.name));
        }
        if member.name == TESTS {
            continue;
        }
        let Some((_, folder, may_use)) = rows.get(&member.name) else {
            findings.push(format!("{} has no row in the layer table", member.name));
            continue;
        };
        if *folder != member.folder {
            findings.push(format!("{} lies in {}, its row says {folder}", member.name, member.folder));
        }
        for used in member.uses.iter().filter(|used| !may_use.contains(used)) {
            findings.push(format!("{} uses {used}, which its row does not allow", member.name));
        }
    }
    findings
}

/// Compares the table of what a crate never links with what it links. A name may end in `*`.
pub(crate) fn absences(architecture: &str, linked: impl Fn(&str) -> BTreeSet<String>) -> Vec<String> {
    let rows = table(architecture, "crate");
    let mut findings = Vec::new();
    if rows.is_empty() {
        findings.push("ARCHITECTURE.md has no table of absences".to_owned());
    }
    for row in rows {
        let (Some(crates), Some(never)) =
            (row.first().map(|cell| ticked(cell)), row.get(1).map(|cell| ticked(cell)))
        else {
            findings.push(format!("not a row of `crate`, `never links`: {row:?}"));
            continue;
        };
        for name in &crates {
            for found in
                linked(name).iter().filter(|found| never.iter().any(|pattern| matches(pattern, found)))
            {
                findings.push(format!("{name} links {found}"));
            }
        }
    }
    findings
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

pub(crate) fn workspace_crates(repo: &Repo) -> Vec<Member> {
    let metadata: serde_json::Value =
        serde_json::from_str(&repo.cargo(&["metadata", "--format-version=1", "--no-deps"]))
            .expect("cargo prints JSON");
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let root = repo.root().to_string_lossy().into_owned() + "/";
    let member = |package: serde_json::Value| {
        let own: Vec<_> =
            list(&package["dependencies"]).into_iter().filter(|used| used["path"].is_string()).collect();
        let of_kind = |tests: bool| {
            own.iter()
                .filter(|used| (used["kind"] == "dev") == tests)
                .map(|used| text(&used["name"]))
                .collect()
        };
        let is_binary = |target: &serde_json::Value| list(&target["kind"]).iter().any(|kind| kind == "bin");
        let manifest = text(&package["manifest_path"]);
        Member {
            name: text(&package["name"]),
            folder: manifest.replace(&root, "").trim_end_matches("/Cargo.toml").to_owned(),
            uses: of_kind(false),
            tests_use: of_kind(true),
            binaries: list(&package["targets"])
                .iter()
                .filter(|t| is_binary(t))
                .map(|t| text(&t["name"]))
                .collect(),
        }
    };
    list(&metadata["packages"]).into_iter().map(member).collect()
}

/// The programs of the product; what only measures or tests is not one.
pub(crate) fn binaries(repo: &Repo) -> BTreeSet<String> {
    let members = workspace_crates(repo).into_iter().filter(|member| member.name != TESTS);
    members.flat_map(|member| member.binaries).collect()
}

/// The names of all crates that end up in `name`'s programs, itself left out.
pub(crate) fn linked(repo: &Repo, name: &str) -> BTreeSet<String> {
    let tree =
        repo.cargo(&["tree", "--package", name, "--edges=normal", "--prefix=none", "--format={p}|{l}"]);
    parse_tree(&tree).into_iter().map(|built| built.name).filter(|found| found != name).collect()
}

/// Everything that a build of the workspace with its tests compiles for this machine.
pub(crate) fn built(repo: &Repo) -> BTreeSet<Built> {
    let edges = "--edges=normal,build,dev";
    parse_tree(&repo.cargo(&["tree", "--workspace", edges, "--prefix=none", "--format={p}|{l}"]))
}

/// Lines such as `name v1.2.3 (proc-macro)|MIT OR Apache-2.0 (*)`; the star marks a repetition.
fn parse_tree(text: &str) -> BTreeSet<Built> {
    let line = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ');
        let name = words.next()?.to_owned();
        let version = words.next()?.strip_prefix('v')?.to_owned();
        Some(Built { name, version, licence: licence.trim_end_matches(" (*)").to_owned() })
    };
    let built: BTreeSet<_> = text.lines().filter_map(line).collect();
    assert!(!built.is_empty(), "cargo tree printed no crate");
    built
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
| level | crate | folder | what | may use |
|---|---|---|---|---|
| 0 | `zixt-types` | `appliance/types` | ids | - |
| 1 | `zixt-crypto` | `appliance/crypto` | suites | `zixt-types` |
";

    fn member(name: &str, folder: &str, uses: &[&str]) -> Member {
        let uses = uses.iter().map(|used| (*used).to_owned()).collect();
        Member { name: name.into(), folder: folder.into(), uses, tests_use: Vec::new(), binaries: Vec::new() }
    }

    fn sound() -> Vec<Member> {
        vec![
            member("zixt-types", "appliance/types", &[]),
            member("zixt-crypto", "appliance/crypto", &["zixt-types"]),
            member("zixt-tests", "tests", &["zixt-crypto"]),
        ]
    }

    #[test]
    fn a_sound_workspace_has_no_finding() {
        assert_eq!(layers(TABLE, &sound()), [""; 0]);
    }

    #[test]
    fn an_upward_use_is_found() {
        let mut members = sound();
        members[0].uses.push("zixt-crypto".into());
        assert_eq!(layers(TABLE, &members), ["zixt-types uses zixt-crypto, which its row does not allow"]);
    }

    #[test]
    fn a_row_that_allows_an_upward_use_is_found() {
        let table = TABLE.replace("| ids | - |", "| ids | `zixt-crypto` |");
        assert!(layers(&table, &sound())[0].contains("not below it"));
    }

    #[test]
    fn crates_and_rows_without_the_other_are_found() {
        let mut members = sound();
        members.remove(1);
        members.push(member("zixt-mesh", "appliance/mesh", &[]));
        let findings = layers(TABLE, &members);
        assert!(findings.iter().any(|finding| finding.contains("zixt-crypto has a row")), "{findings:?}");
        assert!(findings.iter().any(|finding| finding.contains("zixt-mesh has no row")), "{findings:?}");
    }

    #[test]
    fn a_use_of_the_tests_is_found_even_from_tests() {
        let mut members = sound();
        members[0].tests_use.push("zixt-tests".into());
        assert_eq!(layers(TABLE, &members), ["zixt-types uses zixt-tests; nothing may"]);
    }

    #[test]
    fn a_link_that_must_be_absent_is_found() {
        let table = "| crate | never links | why |\n|---|---|---|\n| `a`, `b` | `mls-rs*`, `c` | x |\n";
        let linked = |name: &str| match name {
            "a" => BTreeSet::from(["mls-rs-core".to_owned(), "d".to_owned()]),
            _ => BTreeSet::from(["d".to_owned()]),
        };
        assert_eq!(absences(table, linked), ["a links mls-rs-core"]);
        assert_eq!(absences("no table", linked).len(), 1);
    }

    #[test]
    fn lines_of_the_tree_are_parsed() {
        let built = parse_tree("a v1.0.0 (proc-macro)|MIT OR Apache-2.0 (*)\n\nb v0.1.0 (/x/b)|Apache-2.0\n");
        let names: Vec<_> =
            built.iter().map(|b| (b.name.as_str(), b.version.as_str(), b.licence.as_str())).collect();
        assert_eq!(names, [("a", "1.0.0", "MIT OR Apache-2.0"), ("b", "0.1.0", "Apache-2.0")]);
    }
}
