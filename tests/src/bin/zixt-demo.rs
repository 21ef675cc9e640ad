//! `make demo`: the main job as a story, with the release programs, printed as it happens.

use std::io::Write as _;
use zixt_tests::{Appliance, story};

fn main() {
    let programs = std::env::current_exe().ok().and_then(|path| path.parent().map(std::path::Path::to_owned));
    println!("A lab appliance starts: a SoftHSM token, zixt-hsmd, zixtd.");
    let mut appliance = Appliance::lab_of(programs, &[]);
    let say = &mut |line: &str| {
        println!("{line}");
        // A closed pipe is no reason to stop the story.
        let _unbuffered = std::io::stdout().flush();
    };
    story::tell(&appliance, say);
    story::fork(&mut appliance, say);
    println!("\nThe demo is over; its appliance and its stores are deleted.");
}
