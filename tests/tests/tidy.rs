//! Tests over the source itself: what the documents promise about the code is compared with the code.
//!
//! Each check is a function from text to a list of findings, so that it can be shown to fail: the tests of the
//! modules feed it with faults, the tests of this file feed it with the repository and expect no finding.
#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests; a repository that cannot be read is a failed test"
)]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/policy.rs"]
mod policy;
#[path = "tidy/repo.rs"]
mod repo;
#[path = "tidy/source.rs"]
mod source;

use repo::Repo;

/// Fails with all findings at once, each on its line.
fn expect_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} finding(s):\n  {}", findings.len(), findings.join("\n  "));
}

#[test]
fn crates_use_only_the_layers_below_as_architecture_says() {
    let repo = Repo::open();
    expect_none(graph::layers(&repo.read("ARCHITECTURE.md"), &graph::workspace_crates(&repo)));
}

#[test]
fn crates_never_link_what_architecture_says_they_never_link() {
    let repo = Repo::open();
    expect_none(graph::absences(&repo.read("ARCHITECTURE.md"), |name| graph::linked(&repo, name)));
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let repo = Repo::open();
    let listed = source::listed_files(&repo.read("tests/UNSAFE.md"));
    let manifests = repo.tracked(|path| path.ends_with("Cargo.toml") && path != "Cargo.toml");
    expect_none(manifests.iter().flat_map(|(path, text)| policy::lints(path, text, &listed)).collect());
}

#[test]
fn dependencies_have_allowed_licences() {
    let repo = Repo::open();
    expect_none(policy::licences(&repo.read("deny.toml"), &graph::built(&repo)));
}

#[test]
fn dependencies_come_from_the_one_registry() {
    let repo = Repo::open();
    expect_none(policy::sources(&repo.read("deny.toml"), &repo.read("Cargo.lock")));
}

#[test]
fn forbidden_crates_are_not_built() {
    let repo = Repo::open();
    expect_none(policy::forbidden(&repo.read("deny.toml"), &graph::built(&repo)));
}

#[test]
fn duplicate_versions_are_on_the_list() {
    let repo = Repo::open();
    expect_none(policy::duplicates(&repo.read("deny.toml"), &graph::built(&repo)));
}

#[test]
fn labels_live_in_one_file() {
    expect_none(Repo::open().rust().iter().flat_map(|(path, text)| source::labels(path, text)).collect());
}

#[test]
fn no_test_is_skipped_off_the_list() {
    let repo = Repo::open();
    expect_none(source::skipped(&repo.read("tests/SKIPPED.md"), &repo.rust()));
}

#[test]
fn denied_lints_are_allowed_only_with_a_reason() {
    let repo = Repo::open();
    let denied = policy::denied_lints(&repo.read("Cargo.toml"));
    expect_none(
        repo.rust().iter().flat_map(|(path, text)| source::allowances(path, text, &denied)).collect(),
    );
}

#[test]
fn unsafe_code_is_on_the_list() {
    let repo = Repo::open();
    expect_none(source::unsafe_code(&repo.read("tests/UNSAFE.md"), &repo.rust()));
}

#[test]
fn source_files_stay_readable() {
    expect_none(Repo::open().rust().iter().flat_map(|(path, text)| source::length(path, text)).collect());
}

#[test]
fn files_name_no_machine() {
    let files = Repo::open().tracked(|path| path != "Cargo.lock");
    expect_none(files.iter().flat_map(|(path, text)| documents::machine_traces(path, text)).collect());
}

#[test]
fn documented_commands_exist() {
    let repo = Repo::open();
    let makefile = repo.read("Makefile");
    let binaries = graph::binaries(&repo);
    let documents =
        repo.tracked(|path| path == "README.md" || (path.starts_with("docs/") && path.ends_with(".md")));
    let exists = |path: &str| repo.exists(path);
    let readme = repo.read("README.md");
    let promised = documents::not_yet(&readme).into_iter().collect();
    let programs = &binaries | &promised;
    let check =
        |(path, text): &(String, String)| documents::commands(path, text, &makefile, &programs, &exists);
    expect_none(documents.iter().flat_map(check).collect());
}

#[test]
fn binaries_are_those_of_the_interfaces_document() {
    let repo = Repo::open();
    let (interfaces, readme) = (repo.read("docs/interfaces.md"), repo.read("README.md"));
    expect_none(documents::binaries(&interfaces, &readme, &graph::binaries(&repo)));
}

#[test]
fn decisions_are_numbered_and_linked() {
    let repo = Repo::open();
    let files = repo.tracked(|path| path.starts_with("docs/decisions/") && !path.ends_with("/README.md"));
    expect_none(documents::decisions(&repo.read("docs/decisions/README.md"), &files));
}

#[test]
fn links_between_documents_resolve() {
    let repo = Repo::open();
    let files = repo.tracked(|path| path.ends_with(".md") && !path.starts_with("tests/vectors/"));
    let exists = |path: &str| repo.exists(path);
    expect_none(files.iter().flat_map(|(path, text)| documents::links(path, text, &exists)).collect());
}

#[test]
fn security_features_name_tests_that_exist() {
    let repo = Repo::open();
    let read = |path: &str| repo.exists(path).then(|| repo.read_or_empty(path));
    expect_none(documents::security_features(&repo.read("SECURITY_FEATURES.md"), &read));
}
