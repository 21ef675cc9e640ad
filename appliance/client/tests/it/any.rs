//! Whatever happens to three clients, in whatever order: lines are written, sent and fetched, members come and go, clients
//! are restarted, the appliance is away, answers get lost and events come twice.
//!
//! When all is well again, every line that was written stands once on each member's device, in one order for all and in
//! each author's own; nothing waits any more, and nobody raised an alarm.

use crate::appliance::{Appliance, Person};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use std::sync::Arc;
use zixt_client::Mark;
use zixt_types::ThreadId;

/// One thing that happens: what, and to whom.
#[derive(Clone, Copy, Debug)]
enum Event {
    Write(usize),
    Flush(usize),
    Sync(usize),
    Restart(usize),
    Add(usize),
    Remove(usize),
    Away(bool),
    LoseAnswers(bool),
    Twice(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let who = 0..2usize;
    prop_oneof![
        6 => who.clone().prop_map(Event::Write),
        3 => who.clone().prop_map(Event::Flush),
        4 => (0..3usize).prop_map(Event::Sync),
        2 => (0..3usize).prop_map(Event::Restart),
        1 => who.clone().prop_map(Event::Add),
        1 => who.prop_map(Event::Remove),
        2 => any::<bool>().prop_map(Event::Away),
        2 => any::<bool>().prop_map(Event::LoseAnswers),
        1 => any::<bool>().prop_map(Event::Twice),
    ]
}

const NAMES: [&str; 3] = ["ada", "bob", "cay"];

/// What is written by whom, and may be refused at once when nothing was stored.
struct Talk {
    appliance: Arc<Appliance>,
    people: [Person; 3],
    thread: ThreadId,
    written: [Vec<String>; 2],
    /// How often something did not get through at once.
    troubles: u32,
}

impl Talk {
    async fn begin() -> Self {
        let appliance = Appliance::new();
        let people = [
            appliance.enrol(NAMES[0]).await,
            appliance.enrol(NAMES[1]).await,
            appliance.enrol(NAMES[2]).await,
        ];
        let thread = people[0].client().start_conversation(&["bob"], None).await.unwrap();
        people[1].sync().await;
        Self { appliance, people, thread, written: Default::default(), troubles: 0 }
    }

    async fn happens(&mut self, event: Event) {
        let trouble = match event {
            Event::Write(who) => {
                let text = format!("{} {}", NAMES[who], self.written[who].len());
                // What was taken to be sent is kept, whatever else is going on.
                self.people[who].client().send(self.thread, &text).await.unwrap();
                self.written[who].push(text);
                false
            }
            Event::Flush(who) => self.people[who].client().flush().await.is_err(),
            Event::Sync(who) => self.people[who].client().sync_once().await.is_err(),
            Event::Restart(who) => {
                self.people[who].restart().await;
                false
            }
            Event::Add(who) => self.people[who].client().add_members(self.thread, &["cay"]).await.is_err(),
            Event::Remove(who) => {
                self.people[who].client().remove_members(self.thread, &["cay"]).await.is_err()
            }
            Event::Away(away) => {
                self.appliance.offline(away);
                false
            }
            Event::LoseAnswers(lose) => {
                self.appliance.lock().lose = if lose { vec!["/v1/submissions"] } else { Vec::new() };
                false
            }
            Event::Twice(twice) => {
                self.appliance.lock().twice = twice;
                false
            }
        };
        self.troubles += u32::from(trouble);
    }

    /// All is well again, and everybody catches up.
    async fn ends(&mut self) {
        self.appliance.offline(false);
        self.appliance.lock().lose.clear();
        self.appliance.lock().twice = false;
        // What one sends the other has to fetch, and a change of members may have to be made anew after another.
        for _ in 0..4 {
            for person in &self.people {
                person.client().sync_once().await.unwrap();
            }
        }
        let [ada, bob, cay] = &self.people;
        let told = ada.texts(self.thread).await;
        assert_eq!(told, bob.texts(self.thread).await, "all read the same, in the same order");
        for (who, written) in self.written.iter().enumerate() {
            let own: Vec<_> = told.iter().filter(|text| text.starts_with(NAMES[who])).cloned().collect();
            assert_eq!(own, *written, "every line of {} once, in order", NAMES[who]);
        }
        assert_eq!(told.len(), self.written.iter().map(Vec::len).sum::<usize>());
        // Who came and went reads a part of it; who was never there knows of nothing.
        let mut rest = told.iter();
        if cay.client().threads().await.unwrap().iter().any(|known| known.thread == self.thread) {
            for text in cay.texts(self.thread).await {
                assert!(rest.any(|other| *other == text), "{text:?} is out of order for cay, or twice");
            }
        }
        for person in [ada, bob] {
            let thread = person.client().threads().await.unwrap().remove(0);
            assert_eq!((thread.queued, &thread.blocked), (0, &None), "{}", person.client().profile().name);
            let history = person.client().history(self.thread, None, 1_000).await.unwrap();
            assert!(history.iter().all(|line| line.mark >= Mark::Recorded));
        }
        for person in &self.people {
            assert_eq!(person.alarms().await, [""; 0], "{}", person.client().profile().name);
        }
    }
}

#[test]
fn whatever_happens_everything_that_was_written_is_read_once_by_all() {
    let schedules = prop::collection::vec(event(), 4..28);
    let (lines, troubles) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 16, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&schedules, |schedule| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut talk = Talk::begin().await;
            for event in schedule {
                talk.happens(event).await;
            }
            talk.ends().await;
            lines.set(lines.get() + talk.written.iter().map(Vec::len).sum::<usize>());
            troubles.set(troubles.get() + talk.troubles);
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!("{} lines, {} troubles", lines.get(), troubles.get());
    assert!(lines.get() > 16 && troubles.get() > 4, "{} lines, {} troubles", lines.get(), troubles.get());
}
