//! People talk: one to one and in groups, in both suites.

use crate::world::*;
use zixt_types::SuiteId;

#[test]
fn two_members_talk_in_both_suites() {
    for suite in SuiteId::ALL {
        let mut world = World::talking(suite, 2);
        for round in 0..3 {
            for author in [1, 2] {
                let sent = world.say(author, &format!("message {round} of {author}"));
                world.all_read(&sent);
            }
        }
        world.agree();
    }
}
