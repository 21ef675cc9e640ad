//! The terminal chat as two people use it: two live `zixt chat`, each in a terminal, typed into and looked at.
#![allow(clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

use nix::sys::signal::{Signal, kill};
use std::ffi::OsStr;
use zixt_tests::terminal::Terminal;
use zixt_tests::{Appliance, PASSPHRASE, Person, processes_of};

const SIZE: (u16, u16) = (100, 30);

/// A terminal in which a person runs `zixt` with these arguments.
fn terminal(person: &Person<'_>, arguments: &str) -> Terminal {
    let terminal = Terminal::open(SIZE, &[("ZIXT_PASSPHRASE", OsStr::new(PASSPHRASE))]);
    let program = person.command().get_program().to_owned();
    terminal.enter(&format!("{} --store {} {arguments}", program.display(), person.store.display()));
    terminal.sees("connected");
    assert!(terminal.is_other_screen());
    terminal
}

/// The mark before a line that was said: between the time and the author.
fn mark(screen: &str, said: &str) -> Option<String> {
    let line = screen.lines().find(|line| line.contains(said))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let author = words.iter().position(|word| word.ends_with(':') && word.len() > 1)?;
    words.get(author.checked_sub(1)?).map(|mark| (*mark).to_owned())
}

/// The terminal is as it was before: it shows what is typed, takes whole lines, and has its own screen.
fn is_given_back(terminal: &Terminal) {
    assert!(!terminal.is_other_screen());
    terminal.enter("stty -a | tr ' ;' '\\n\\n' | grep -xE -e '-?(icanon|echo|isig|icrnl|opost)' | sort");
    let modes = |screen: &str| -> Vec<String> {
        let words = ["icanon", "echo", "isig", "icrnl", "opost"];
        let is_mode = |line: &&str| words.contains(&line.trim_start_matches('-'));
        screen.lines().map(str::trim).filter(is_mode).map(str::to_owned).collect()
    };
    let screen = terminal.until("the terminal's modes", |screen| modes(screen).len() == 5);
    assert_eq!(modes(&screen), ["echo", "icanon", "icrnl", "isig", "opost"], "{screen}");
}

#[test]
fn two_people_chat_in_two_terminals() {
    let appliance = Appliance::lab();
    let [alice, bob] = ["alice", "bob"].map(|name| appliance.person(name));
    let at_alice = terminal(&alice, "chat bob");
    let at_bob = terminal(&bob, "tui");

    // A line typed on one side appears on the other, and is marked as recorded where it was typed.
    at_alice.enter("Grüße aus dem Keller.");
    at_bob.sees("alice: Grüße aus dem Keller.");
    at_alice.until("recorded", |screen| mark(screen, "alice: Grüße").as_deref() == Some("✓"));
    // It is read when bob's client says so, which it does when he writes.
    at_bob.enter("Here too.");
    at_alice.sees("bob: Here too.");
    at_alice.until("read", |screen| mark(screen, "alice: Grüße").as_deref() == Some("✓✓"));
    at_bob.until("recorded", |screen| mark(screen, "bob: Here").as_deref() == Some("✓"));

    // What is typed and not sent is nobody's business but the author's.
    at_alice.press("x");
    at_alice.sees("> x");
    assert!(!at_bob.screen().contains("alice: x"));
    at_alice.press("C-u");

    // Another size of the window is drawn anew, down to one that is narrow.
    at_bob.resize(40, 12);
    let narrow = at_bob.until("a narrow screen", |screen| {
        screen.contains("bob: Here too.") && screen.lines().all(|line| line.chars().count() <= 40)
    });
    assert!(narrow.contains("LAB NETWORK"), "{narrow}");
    at_bob.resize(SIZE.0, SIZE.1);
    at_bob.sees("On the record: what you send is signed by you");
    at_bob.press("F1");
    at_bob.sees("recorded in the ledger, proof checked");
    at_bob.press("Escape");
    at_bob.until("the help is closed", |screen| !screen.contains("proof checked"));

    // Ctrl-C ends it well, and the terminal is as it was.
    at_alice.press("C-c");
    assert_eq!(at_alice.ended(), 0);
    is_given_back(&at_alice);
    // A signal does, too.
    let running = processes_of(&bob.store);
    let [(pid, _)] = &running[..] else { panic!("one program has bob's store: {running:?}") };
    kill(*pid, Signal::SIGTERM).expect("it runs");
    assert_eq!(at_bob.ended(), 0);
    is_given_back(&at_bob);

    // What was said is on both devices.
    for person in [&alice, &bob] {
        let history = person.must(&["read"]);
        assert!(history.contains("Grüße aus dem Keller.") && history.contains("Here too."), "{history}");
    }
}

/// Queued lines are marked so while the appliance is away, and go out when it returns.
#[test]
fn a_line_that_was_typed_while_the_appliance_is_away_is_sent_when_it_returns() {
    let mut appliance = Appliance::lab();
    {
        let [alice, bob] = ["alice", "bob"].map(|name| appliance.person(name));
        alice.must(&["send", "bob", "Before."]);
        bob.must(&["sync"]);
    }
    let at_alice = terminal(&appliance.known("alice"), "chat bob");
    appliance.stop_zixtd();
    at_alice.sees("AWAY");
    at_alice.enter("While it was away.");
    at_alice.until("queued", |screen| mark(screen, "alice: While").as_deref() == Some("…"));
    appliance.start_zixtd();
    at_alice.until("recorded", |screen| mark(screen, "alice: While").as_deref() == Some("✓"));
    let bob = appliance.known("bob");
    bob.must(&["sync"]);
    assert!(bob.must(&["read", "alice"]).contains("While it was away."));
    at_alice.press("C-q");
    assert_eq!(at_alice.ended(), 0);
    is_given_back(&at_alice);
}

/// A program that cannot go on says why on the terminal's own screen, with its documented exit code.
#[test]
fn what_stops_the_chat_is_told_on_a_terminal_that_works() {
    let appliance = Appliance::lab();
    let [alice, bob] = ["alice", "bob"].map(|name| appliance.person(name));
    alice.must(&["send", "bob", "Hello."]);
    bob.must(&["sync"]);
    let first = terminal(&alice, "chat bob");
    let second = Terminal::open(SIZE, &[("ZIXT_PASSPHRASE", OsStr::new(PASSPHRASE))]);
    let program = alice.command().get_program().to_owned();
    second.enter(&format!("{} --store {} chat bob", program.display(), alice.store.display()));
    second.sees("another zixt program uses");
    assert_eq!(second.ended(), 9);
    is_given_back(&second);
    first.press("C-c");
    assert_eq!(first.ended(), 0);
}
