//! The repository as the checks see it: the files that git tracks, with the text they have now.

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Repo {
    root: PathBuf,
    tracked: Vec<String>,
}

impl Repo {
    pub(crate) fn open() -> Self {
        // At run time, so that one build serves every clone that shares a build folder.
        let manifest =
            std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the folder of the crate it tests");
        let root = Path::new(&manifest).parent().expect("the tests live in the root").to_owned();
        // CI may own the clone under another user than the one that runs it.
        let listing =
            output(Command::new("git").args(["-c", "safe.directory=*", "ls-files", "-z"]).current_dir(&root));
        let tracked = listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
        Self { root, tracked }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path))
            .unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
    }

    pub(crate) fn read_or_empty(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    /// Path and text of each tracked text file that is wanted. A file deleted but not yet committed is left out.
    pub(crate) fn tracked(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let read = |path: &String| Some((path.clone(), std::fs::read_to_string(self.root.join(path)).ok()?));
        self.tracked.iter().filter(|path| wanted(path)).filter_map(read).collect()
    }

    pub(crate) fn rust(&self) -> Vec<(String, String)> {
        self.tracked(|path| path.ends_with(".rs"))
    }

    /// What cargo prints, run in the root with the lock file as it is.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> String {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        output(Command::new(cargo).args(arguments).arg("--locked").current_dir(&self.root))
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("git and cargo print UTF-8")
}

/// The rows of every markdown table whose first header cell is `first`, each row as its cells.
pub(crate) fn table(markdown: &str, first: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut lines = markdown.lines().peekable();
    while let Some(line) = lines.next() {
        let is_header = cells(line).first().is_some_and(|cell| cell == first);
        if !is_header || lines.next_if(|line| line.starts_with("|-") || line.starts_with("| -")).is_none() {
            continue;
        }
        while let Some(line) = lines.next_if(|line| line.starts_with('|')) {
            rows.push(cells(line));
        }
    }
    rows
}

fn cells(line: &str) -> Vec<String> {
    let Some(inner) = line.trim().strip_prefix('|') else { return Vec::new() };
    inner.strip_suffix('|').unwrap_or(inner).split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// Everything between backticks.
pub(crate) fn ticked(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_by_their_first_header() {
        let text = "| a | b |\n|---|---|\n| `1`, `2` | x |\n\n| c |\n|---|\n| 3 |\n";
        assert_eq!(table(text, "a"), [["`1`, `2`".to_owned(), "x".to_owned()]]);
        assert_eq!(table(text, "c"), [["3"]]);
        assert!(table(text, "d").is_empty());
        assert_eq!(ticked("`1`, `2` and 3"), ["1", "2"]);
    }
}
