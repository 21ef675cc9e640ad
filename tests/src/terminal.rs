//! A terminal as a person has it in front of them: a shell under tmux, which is typed into and looked at.

use crate::PATIENCE;
use std::ffi::OsStr;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A terminal with a shell in it. It goes away with its value, and whatever runs in it gets the signal of a terminal that
/// was closed.
pub struct Terminal {
    /// The socket of a tmux server of its own, so that nobody's sessions are touched.
    folder: TempDir,
}

impl Terminal {
    /// Opens a terminal of so many columns and rows; the shell has these variables beside those of the test.
    ///
    /// # Panics
    /// There is no tmux.
    #[must_use]
    pub fn open(size: (u16, u16), variables: &[(&str, &OsStr)]) -> Self {
        let folder = tempfile::Builder::new().prefix("zixt-tmux-").tempdir().expect("a folder");
        let terminal = Self { folder };
        let mut command = terminal.tmux();
        command
            .args(["new-session", "-d", "-x", &size.0.to_string(), "-y", &size.1.to_string(), "sh"])
            .envs(variables.iter().copied())
            .env("LC_ALL", "C.UTF-8")
            .env("HISTFILE", "/dev/null");
        // What the person who runs the tests has set is not part of them.
        for name in ["TMUX", "NO_COLOR", "ENV", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        let output = command.output().expect("tmux runs (Debian: tmux)");
        assert!(output.status.success(), "{}", crate::text(&output));
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.folder.path().join("socket")).args(["-u", "-f", "/dev/null"]);
        command
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } =
            self.tmux().args(arguments).output().expect("tmux runs (Debian: tmux)");
        assert!(status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    /// Types a line and presses Enter.
    pub fn enter(&self, line: &str) {
        self.ask(&["send-keys", "-l", "--", line]);
        self.press("Enter");
    }

    /// Presses a key, by tmux's name for it: `C-c`, `F1`, `Enter`.
    pub fn press(&self, key: &str) {
        self.ask(&["send-keys", key]);
    }

    /// What is on the screen.
    #[must_use]
    pub fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as wanted, and gives it back.
    ///
    /// # Panics
    /// It does not become so.
    pub fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait(what, || Some(self.screen()).filter(|screen| wanted(screen)))
    }

    /// Waits until a text is on the screen.
    pub fn sees(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// Makes the terminal's window larger or smaller.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.ask(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Whether a program draws on the other screen, which does not scroll and is gone with it.
    #[must_use]
    pub fn is_other_screen(&self) -> bool {
        self.ask(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    /// Waits until the shell has the terminal again, and gives back with which code the last program ended.
    pub fn ended(&self) -> i32 {
        self.wait("the shell has the terminal again", || {
            let foreground = self.ask(&["display-message", "-p", "#{pane_current_command}"]);
            (foreground.trim() == "sh").then_some(())
        });
        // Typed apart from what is looked for, because the terminal shows what is typed, too; possibly before the prompt.
        self.enter("printf 'ended %s=%s\\n' with $?");
        let code = |screen: &str| {
            screen.lines().rev().find_map(|line| line.split_once("ended with="))?.1.trim().parse().ok()
        };
        let screen = self.until("an exit code", |screen| code(screen).is_some());
        self.enter("clear");
        self.until("an empty screen", |screen| !screen.contains("ended"));
        code(&screen).expect("it was there")
    }

    fn wait<T>(&self, what: &str, mut wanted: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = wanted() {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{}", self.screen());
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone_already = self.tmux().arg("kill-server").output();
    }
}
