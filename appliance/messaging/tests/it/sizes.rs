//! What things weigh. Sizes are exact for a suite and a number of members; the bounds here are a little above what was
//! measured, so that a change of format shows. `cargo test -p zixt-messaging sizes -- --nocapture` prints them.

use crate::world::*;
use zixt_types::{Canonical, MessageId, SuiteId};

fn check(what: &str, bytes: usize, expected: usize) {
    println!("{what}: {bytes} bytes");
    assert!(
        bytes <= expected + expected / 50 && bytes * 50 >= expected * 49,
        "{what}: {bytes}, expected {expected}"
    );
}

#[test]
fn sizes_of_the_standard_suite() {
    let mut world = World::new(SuiteId::Standard, 16);
    let package = world.peer(2).package(zixt_messaging::KeyPackageUse::OneTime);
    check("key package", package.public.len(), 11_792);
    check("sealed private part", package.private.sealed.len(), 11_958);
    let sent = MessageId([1; 16]);

    let (draft, _) = world.change(1, &[2], &[]);
    check("2: first commit", draft.envelope.len(), 24_672);
    check("2: welcome", draft.welcome.unwrap().len(), 5_307);
    check("2: tree", draft.tree.unwrap().len(), 15_445);
    check("2: state with a pending commit", draft.state.bytes(), 58_135);
    let message = world.peer(1).say(thread(1), sent, "hello").unwrap();
    check("2: content of 5 bytes", message.content.len(), 28);
    check("2: envelope of 5 bytes", message.envelope.len(), 3_726);
    check("2: state per message", message.state.bytes(), 8_496);
    let (draft, _) = world.change(1, &[], &[]);
    check("2: update", draft.envelope.len(), 14_430);

    let others: Vec<u8> = (3..=16).collect();
    let (draft, _) = world.change(1, &others, &[]);
    check("16: commit that adds 14", draft.envelope.len(), 196_625);
    check("16: welcome", draft.welcome.unwrap().len(), 27_890);
    check("16: tree", draft.tree.unwrap().len(), 116_980);
    check("16: state with a pending commit", draft.state.bytes(), 374_171);
    let message = world.peer(1).say(thread(1), MessageId([2; 16]), "hello").unwrap();
    check("16: envelope of 5 bytes", message.envelope.len(), 3_726);
    check("16: state per message", message.state.bytes(), 60_243);
}

#[test]
fn sizes_of_the_cnsa_suite() {
    let mut world = World::new(SuiteId::Cnsa, 2);
    let package = world.peer(2).package(zixt_messaging::KeyPackageUse::OneTime);
    check("key package", package.public.len(), 15_068);
    let (draft, _) = world.change(1, &[2], &[]);
    check("2: first commit", draft.envelope.len(), 32_864);
    check("2: welcome", draft.welcome.unwrap().len(), 6_625);
    check("2: tree", draft.tree.unwrap().len(), 19_363);
    let content = zixt_messaging::Content::text(MessageId([1; 16]), "hello", None).unwrap();
    check("content of 5 bytes", content.to_bytes().len(), 28);
    let message = world.peer(1).say(thread(1), MessageId([1; 16]), "hello").unwrap();
    check("2: envelope of 5 bytes", message.envelope.len(), 5_262);
}
