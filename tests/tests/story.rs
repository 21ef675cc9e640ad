//! The main job end to end: the story that `make demo` tells.

use zixt_tests::{Appliance, story, text};

#[test]
fn people_talk_and_an_auditor_proves_it() {
    let mut appliance = Appliance::lab();
    let mut told = String::new();
    story::tell(&appliance, &mut |line| {
        told.push_str(line);
        told.push('\n');
    });
    assert_eq!(told.matches("refused (").count(), 4, "{told}");
    appliance.stop_zixtd();
    appliance.fsck();
    let mut told = String::new();
    story::fork(&mut appliance, &mut |line| {
        told.push_str(line);
        told.push('\n');
    });
    assert!(told.contains("PROVEN") && told.contains("has two headers"), "{told}");
}

#[test]
fn the_cnsa_suite_carries_the_same_story() {
    let appliance = Appliance::lab_with(&["--suite", "cnsa"]);
    story::tell(&appliance, &mut |_| {});
}

#[test]
fn a_tpm_carries_the_same_story() {
    let mut appliance = Appliance::lab_on_tpm();
    story::tell(&appliance, &mut |_| {});
    let keys = appliance.hsm(&["list"]);
    assert!(keys.contains("TPM") && !keys.contains("HSM"), "{keys}");
    appliance.stop_zixtd();
    appliance.fsck();
    appliance.stop_hsmd();
}

/// Who was added and removed before they came back is told of a conversation that is over for them. They read what was
/// there until then, no alarm is raised, and everything else goes on.
#[test]
fn who_was_added_and_removed_while_away_goes_on() {
    let appliance = Appliance::lab();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| appliance.person(name));
    carol.must(&["sync"]);
    alice.must(&["group", "create", "project", "bob", "carol"]);
    alice.must(&["send", "project", "with carol"]);
    alice.must(&["group", "remove", "project", "carol"]);
    alice.must(&["send", "project", "without carol"]);
    alice.must(&["send", "carol", "sorry, a mistake"]);

    carol.must(&["sync"]);
    assert!(carol.must(&["read", "alice"]).contains("sorry, a mistake"));
    let project = carol.run(&["read", "project"]);
    assert!(!text(&project).contains("without carol"), "{}", text(&project));
    assert_eq!(carol.json(&["alarms"])["alarms"], serde_json::json!([]));
    bob.must(&["sync"]);
    assert!(bob.must(&["read", "project"]).contains("without carol"));
    // Once more, from where it ended.
    carol.must(&["send", "alice", "never mind"]);
    alice.must(&["sync"]);
    assert!(alice.must(&["read", "carol"]).contains("never mind"));
}
