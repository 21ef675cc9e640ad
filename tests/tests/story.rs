//! The main job end to end: the story that `make demo` tells.

use zixt_tests::{Appliance, story};

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
    appliance.stop_hsmd();
}

#[test]
fn the_cnsa_suite_carries_the_same_story() {
    let appliance = Appliance::lab_with(&["--suite", "cnsa"]);
    story::tell(&appliance, &mut |_| {});
}
