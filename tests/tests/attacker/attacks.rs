//! The attacks, each with who finds it.

use super::World;
use super::database::{Database, Entry};
use std::fs;
use std::path::Path;
use zixt_crypto::digest;
use zixt_ledger::{Device, ThreadDetail};
use zixt_tests::copy::copy_folder;
use zixt_types::{AccountId, Author, Epoch, Hash, Payload, ThreadId, Timestamp};

/// What an attacker does.
#[derive(Clone, Copy)]
pub enum Tamper {
    /// Changes rows.
    Rows(fn(&World, &mut Database)),
    /// Changes files of the server's folder.
    Files(fn(&World, &Path)),
}
use Tamper::{Files, Rows};

/// What people do afterwards, if the server still serves them.
#[derive(Clone, Copy)]
pub enum Look {
    /// Somebody fetches what is new.
    Sync(&'static str),
    /// bob fetches and reads what alice wrote last.
    Mail,
    /// Somebody begins a conversation with bob.
    Begin(&'static str),
    /// dora looks somebody up.
    Named(&'static str),
    /// Somebody writes to somebody.
    Send(&'static str, &'static str),
    /// One makes evidence of the conversation with the other, and an auditor verifies it.
    Evidence(&'static str, &'static str),
}
use Look::{Begin, Evidence, Mail, Named, Send, Sync};

/// An attack.
pub struct Attack {
    pub name: &'static str,
    pub tamper: Tamper,
    pub looks: &'static [Look],
    pub found_by: &'static [&'static str],
}

const fn rows(
    name: &'static str,
    tamper: fn(&World, &mut Database),
    looks: &'static [Look],
    found_by: &'static [&'static str],
) -> Attack {
    Attack { name, tamper: Rows(tamper), looks, found_by }
}

/// Every attack.
pub const ATTACKS: &[Attack] = &[
    // Messages that wait for bob.
    rows("a message's bytes edited", edit_plainly, &[Mail], &["fsck: entries", "bob sync: 5 store-failed"]),
    rows(
        "a message's commitment edited, its row derived again",
        edit_body,
        &[Mail, Evidence("bob", "alice")],
        &["fsck: entries", "bob sync: 6 not-recorded", "bob evidence: 6 not-recorded"],
    ),
    rows(
        "the same, and the thread's head after it",
        edit_body_and_head,
        &[Mail],
        &["fsck: entries", "start"],
    ),
    rows(
        "a message given to another author",
        |w, db| {
            let (bob, at) = (w.bob, db.position(&w.talk, 0));
            db.change_body(at, |body| body.author = Author::Device(bob));
        },
        &[Mail],
        &["fsck: entries", "bob sync: 6 not-recorded"],
    ),
    rows(
        "a message's own clock set back",
        |w, db| {
            let at = db.position(&w.talk, 0);
            db.change_body(at, |body| body.sent_at = Timestamp(body.sent_at.0 - 3_600_000));
        },
        &[Mail],
        &["fsck: entries", "bob sync: 6 not-recorded"],
    ),
    rows(
        "a message's signature replaced by another's",
        |w, db| {
            let other = db.position(&w.talk, 1);
            let other = db.entry(other).signature;
            change(w, db, |entry| entry.signature = other);
        },
        &[Mail],
        &["fsck: entries", "bob sync: 6 not-recorded"],
    ),
    rows(
        "a message's ledger time changed",
        |w, db| {
            change(w, db, |entry| entry.place.time = Timestamp(entry.place.time.0 - 1));
        },
        &[Mail],
        &["fsck: entries", "bob sync: 6 not-recorded"],
    ),
    rows(
        "a message's salt changed",
        |w, db| change(w, db, |entry| entry.salt.0 = [0; 32]),
        &[Mail],
        &["fsck: headers", "bob sync: 6 not-recorded"],
    ),
    rows(
        "a message's link to the one before changed",
        |w, db| {
            change(w, db, |entry| entry.place.prev = Hash([5; 48]));
        },
        &[Mail],
        &["fsck: entries", "bob sync: 6 not-recorded"],
    ),
    rows(
        "a message put into another leaf",
        |w, db| {
            let at = db.position(&w.talk, 0);
            db.run(&format!("UPDATE entries SET leaf = leaf - 1 WHERE position = {at}"));
        },
        &[Mail],
        &["fsck: entries", "bob sync: 6 not-recorded"],
    ),
    rows(
        "a message put into another shard",
        |w, db| {
            let at = db.position(&w.talk, 0);
            db.run(&format!("UPDATE entries SET shard = 1 - min(shard, 1) WHERE position = {at}"));
        },
        &[Mail],
        &["fsck: entries", "bob sync: *"],
    ),
    rows(
        "a message put into a shard that there is not",
        |w, db| {
            let at = db.position(&w.talk, 0);
            db.run(&format!("UPDATE entries SET shard = 255 WHERE position = {at}"));
        },
        &[Mail],
        &["fsck: entries", "bob sync: 5 store-failed"],
    ),
    rows(
        "the last message deleted",
        |w, db| {
            let at = db.position(&w.talk, 0);
            db.run(&format!("DELETE FROM entries WHERE position = {at}"));
        },
        &[Evidence("alice", "bob"), Evidence("bob", "alice")],
        &["fsck: entries", "bob evidence: 6 withheld"],
    ),
    rows(
        "the last message but one deleted",
        |w, db| {
            let at = db.position(&w.talk, 1);
            db.run(&format!("DELETE FROM entries WHERE position = {at}"));
        },
        &[Mail],
        &["fsck: entries", "bob sync: 6 broken-chain"],
    ),
    rows(
        "the last two messages reordered, their rows derived again",
        reorder,
        &[Mail],
        &["fsck: entries", "bob sync: 6 not-recorded"],
    ),
    rows(
        "a message sent a second time",
        |w, db| {
            let at = db.position(&w.talk, 0);
            db.run(&format!(
                "INSERT INTO entries SELECT position + 1, height, thread, seq + 1, kind, shard, leaf, time, \
             envelope_bytes, message_id, hash, prev, salt, body, signature, possession FROM entries \
             WHERE position = {at}"
            ));
        },
        &[Sync("bob")],
        &["fsck: entries", "bob sync: 5 store-failed"],
    ),
    rows(
        "a message moved into another conversation",
        |w, db| {
            let (at, to) = (db.position(&w.talk, 0), db.thread(&w.group));
            db.run(&format!("UPDATE entries SET thread = {to}, seq = 99 WHERE position = {at}"));
        },
        &[Mail],
        &["fsck: entries", "bob sync: 5 store-failed"],
    ),
    rows(
        "bob is not told of the conversation any more",
        |w, db| {
            let no = db.thread(&w.talk);
            db.run(&format!("DELETE FROM memberships WHERE thread = {no} AND device = x'{}'", w.bob.device));
        },
        &[Sync("bob"), Evidence("bob", "alice")],
        &["fsck: memberships"],
    ),
    // Envelopes.
    rows(
        "the envelopes of two messages swapped",
        |w, db| {
            let (a, b) = (db.position(&w.talk, 0) * 4, db.position(&w.talk, 1) * 4);
            swap(db, "attachments", "bytes", &format!("id = {a}"), &format!("id = {b}"));
        },
        &[Mail],
        &["fsck: attachments", "bob sync: 6 damaged"],
    ),
    rows(
        "an envelope edited",
        |w, db| {
            let at = db.position(&w.talk, 0) * 4;
            db.run(&format!("UPDATE attachments SET bytes = zeroblob(length(bytes)) WHERE id = {at}"));
        },
        &[Mail],
        &["fsck: attachments", "bob sync: 6 damaged"],
    ),
    rows(
        "an envelope deleted",
        |w, db| {
            let at = db.position(&w.talk, 0) * 4;
            db.run(&format!("DELETE FROM attachments WHERE id = {at}"));
        },
        &[Mail],
        &["bob read: deleted by policy"],
    ),
    // Trees, headers, certificates.
    rows(
        "a leaf of a shard's tree changed",
        |w, db| {
            let at = db.position(&w.talk, 1);
            db.run(&format!(
                "UPDATE nodes SET hashes = CAST(zeroblob(48) || substr(hashes, 49) AS BLOB) WHERE (tree, leaf) = \
             (SELECT shard + 1, leaf FROM entries WHERE position = {at})"
            ));
        },
        &[Mail, Evidence("bob", "alice")],
        &["fsck: nodes", "bob sync: 6 not-recorded", "bob evidence: 6 not-recorded"],
    ),
    rows(
        "a node of the history tree changed",
        |_, db| {
            db.run(
                "UPDATE nodes SET hashes = CAST(zeroblob(48) || substr(hashes, 49) AS BLOB) WHERE tree = 0 AND leaf = \
             (SELECT max(leaf) - 1 FROM nodes WHERE tree = 0)",
            );
        },
        &[Sync("bob"), Sync("carol")],
        &["fsck: nodes", "bob sync: 6 history", "carol sync: 6 history"],
    ),
    rows(
        "the last header changed, its row derived again",
        |_, db| {
            change_header(db, "(SELECT max(height) FROM headers)");
        },
        &[],
        &["fsck: headers", "start"],
    ),
    rows(
        "an older header changed, its row derived again",
        |_, db| change_header(db, "3"),
        &[Sync("bob")],
        &["fsck: headers"],
    ),
    rows(
        "the last certificate replaced by an older one",
        |_, db| {
            db.run(
                "UPDATE headers SET certificate = (SELECT certificate FROM headers WHERE height = 3) \
             WHERE height = (SELECT max(height) FROM headers)",
            );
        },
        &[],
        &["fsck: headers", "start"],
    ),
    rows(
        "a bit of the last certificate flipped",
        |_, db| {
            let last = "WHERE height = (SELECT max(height) FROM headers)";
            let mut bytes = db.bytes(&format!("SELECT certificate FROM headers {last}"));
            let at = bytes.len() - 100;
            bytes[at] ^= 1;
            db.put(&format!("UPDATE headers SET certificate = ? {last}"), &bytes);
        },
        &[],
        &["fsck: headers", "start"],
    ),
    rows(
        "two headers swapped",
        |_, db| {
            for column in ["hash", "header", "certificate"] {
                swap(db, "headers", column, "height = 3", "height = 4");
            }
        },
        &[Sync("bob")],
        &["fsck: headers"],
    ),
    rows(
        "the last header deleted",
        |_, db| {
            db.run("DELETE FROM headers WHERE height = (SELECT max(height) FROM headers)");
        },
        &[],
        &["fsck: (file)", "start"],
    ),
    // What the server believes of threads, which no head binds.
    rows(
        "a ghost member in a conversation, who is told of everything",
        |w, db| {
            let dora = w.dora;
            db.change_thread(&w.talk, |thread| {
                if let ThreadDetail::Conversation(conversation) = &mut thread.detail {
                    conversation.members.push(dora);
                    conversation.members.sort_unstable();
                }
            });
            let no = db.thread(&w.talk);
            let (account, device) = (dora.account, dora.device);
            db.run(&format!("INSERT INTO memberships VALUES (x'{account}', x'{device}', {no}, 1, NULL)"));
        },
        &[Sync("dora"), Mail],
        &["fsck: threads"],
    ),
    rows(
        "a member taken out of a conversation",
        |w, db| {
            let bob = w.bob;
            db.change_thread(&w.talk, |thread| {
                if let ThreadDetail::Conversation(conversation) = &mut thread.detail {
                    conversation.members.retain(|member| *member != bob);
                }
            });
        },
        &[Send("bob", "alice")],
        &["fsck: threads", "bob send: 6 withheld"],
    ),
    rows(
        "a conversation's epoch set back",
        |w, db| {
            db.change_thread(&w.talk, |thread| {
                if let ThreadDetail::Conversation(conversation) = &mut thread.detail {
                    conversation.epoch = Epoch(0);
                }
            });
        },
        &[],
        &["fsck: threads"],
    ),
    rows(
        "counters forgotten, so that messages could be replayed",
        |w, db| {
            db.change_thread(&w.talk, |thread| thread.counters = Default::default());
        },
        &[Send("alice", "bob")],
        &["fsck: threads", "alice send: 6 false-refusal"],
    ),
    rows(
        "a ghost device with keys of its own",
        |w, db| {
            add_device(db, w.bob.account, |device| {
                device.keys.identity = Hash([1; 48]);
                device.id = digest::device_id(device.keys.identity);
            });
        },
        &[],
        &["fsck: threads", "start"],
    ),
    rows(
        "a ghost device: dora's, in bob's account",
        |w, db| {
            let dora = device_of(db, w.dora.account);
            add_device(db, w.bob.account, |device| *device = dora);
        },
        &[Begin("carol")],
        &["fsck: threads", "start"],
    ),
    rows(
        "the identity keys of two devices swapped",
        |w, db| {
            swap_keys(w, db, |a, b| std::mem::swap(&mut a.keys.identity, &mut b.keys.identity));
        },
        &[Send("alice", "bob")],
        &["fsck: threads", "start"],
    ),
    rows(
        "the TLS keys of two devices swapped",
        |w, db| {
            swap_keys(w, db, |a, b| std::mem::swap(&mut a.keys.tls, &mut b.keys.tls));
        },
        &[Sync("alice"), Send("alice", "bob")],
        &["fsck: threads", "start"],
    ),
    rows(
        "a revocation invented",
        |w, db| {
            let thread = digest::account_thread(w.bob.account);
            db.change_thread(&thread, |thread| {
                if let ThreadDetail::Account(account) = &mut thread.detail {
                    let at = account.devices[0].added_at;
                    account.devices[0].revoked = Some((at, zixt_types::RevokeReason::KeyCompromise));
                }
            });
        },
        &[Sync("bob")],
        &["fsck: threads", "start"],
    ),
    rows(
        "two accounts' threads swapped",
        |w, db| {
            let (a, b) = (digest::account_thread(w.alice.account), digest::account_thread(w.bob.account));
            let (state_a, state_b) = (db.state(&a), db.state(&b));
            db.put_state(&a, &state_b);
            db.put_state(&b, &state_a);
        },
        &[],
        &["fsck: threads", "start"],
    ),
    // Keys and names.
    rows(
        "two devices' public identity keys swapped",
        |w, db| swap_attached_keys(w, db, 0),
        &[],
        &["fsck: attachments", "start"],
    ),
    rows(
        "two devices' public MLS keys swapped",
        |w, db| swap_attached_keys(w, db, 1),
        &[Named("bob")],
        &["fsck: attachments", "dora verify: 5 store-failed"],
    ),
    rows(
        "two devices' key packages swapped",
        |w, db| {
            let (bob, carol) = (w.bob.device, w.carol.device);
            db.run(&format!("UPDATE key_packages SET device = x'00' WHERE device = x'{bob}'"));
            db.run(&format!("UPDATE key_packages SET device = x'{bob}' WHERE device = x'{carol}'"));
            db.run(&format!("UPDATE key_packages SET device = x'{carol}' WHERE device = x'00'"));
        },
        &[Begin("dora")],
        &["fsck: key_packages", "dora begin: 6 key-package"],
    ),
    rows(
        "a device's key packages edited",
        |w, db| {
            let bob = w.bob.device;
            db.run(&format!(
            "UPDATE key_packages SET package = zeroblob(length(package)) WHERE device = x'{bob}' AND package NOTNULL"
        ));
        },
        &[Begin("dora")],
        &["fsck: key_packages", "dora begin: 5 store-failed"],
    ),
    rows(
        "two names swapped",
        |w, db| swap_names(w, db, "sealed"),
        &[Named("bob")],
        &["fsck: names", "dora verify: 5 store-failed"],
    ),
    rows(
        "what two names are searched by swapped",
        |w, db| swap_names(w, db, "tag"),
        &[Named("bob")],
        &["fsck: names", "dora verify: 6 name"],
    ),
    rows(
        "the accounts of two names swapped",
        |w, db| {
            let (alice, bob) = (w.alice.account, w.bob.account);
            db.run(&format!("UPDATE names SET account = x'00' WHERE account = x'{alice}'"));
            db.run(&format!("UPDATE names SET account = x'{alice}' WHERE account = x'{bob}'"));
            db.run(&format!("UPDATE names SET account = x'{bob}' WHERE account = x'00'"));
        },
        &[Named("bob")],
        &["fsck: names", "dora verify: 5 store-failed"],
    ),
    // What nothing commits to: that it was deleted shows in what does not work any more.
    rows(
        "a name deleted",
        |w, db| db.run(&format!("DELETE FROM names WHERE account = x'{}'", w.bob.account)),
        &[Named("bob"), Begin("dora")],
        &["fsck: names", "dora verify: 64 usage", "dora begin: 64 usage"],
    ),
    rows(
        "all key packages of a device deleted",
        |w, db| db.run(&format!("DELETE FROM key_packages WHERE device = x'{}'", w.bob.device)),
        &[Begin("dora")],
        &["dora begin: 5 refused"],
    ),
    // The past, certified as it was.
    Attack {
        name: "the ledger set back by one height, and the consensus log with it",
        tamper: Files(|world, server| {
            put_back(&world.before_last, server, &["ledger.sqlite", "consensus.wal"])
        }),
        looks: &[Sync("alice")],
        found_by: &["alice sync: 6 went-back"],
    },
    Attack {
        name: "the ledger set back by several heights, and the consensus log with it",
        tamper: Files(|world, server| {
            put_back(&world.long_before, server, &["ledger.sqlite", "consensus.wal"])
        }),
        looks: &[Sync("alice"), Send("bob", "alice")],
        found_by: &["alice sync: 6 went-back", "bob send: 5 ledger-stopped"],
    },
    Attack {
        name: "the ledger set back by several heights, the consensus log kept",
        tamper: Files(|world, server| put_back(&world.long_before, server, &["ledger.sqlite"])),
        looks: &[Sync("alice")],
        found_by: &["alice sync: 6 went-back"],
    },
];

/// Deletions that nobody can find, because nothing commits to what was there, and that cost nobody anything.
pub const HARMLESS: &[Attack] = &[
    // Entries come twice, and clients drop what they have.
    rows(
        "all acknowledgements deleted",
        |_, db| db.run("DELETE FROM cursors"),
        &[Mail, Sync("alice"), Sync("carol"), Evidence("bob", "alice")],
        &[],
    ),
    // The next one, or the last resort, is handed out.
    rows(
        "one key package of a device deleted",
        |w, db| {
            db.run(&format!(
                "DELETE FROM key_packages WHERE id = (SELECT min(id) FROM key_packages WHERE device = x'{}')",
                w.bob.device
            ));
        },
        &[Begin("dora"), Mail],
        &[],
    ),
    rows(
        "all key packages of a device deleted but the last resort",
        |w, db| {
            db.run(&format!(
                "DELETE FROM key_packages WHERE device = x'{}' AND NOT last_resort",
                w.bob.device
            ));
        },
        &[Begin("dora"), Mail],
        &[],
    ),
];

fn edit_plainly(world: &World, db: &mut Database) {
    let at = db.position(&world.talk, 0);
    let mut body = db.entry(at).body;
    let last = body.len() - 1;
    body[last] ^= 1;
    db.put(&format!("UPDATE entries SET body = ? WHERE position = {at}"), &body);
}

fn edit_body(world: &World, db: &mut Database) {
    let at = db.position(&world.talk, 0);
    db.change_body(at, |body| {
        if let Payload::Message { content, .. } = &mut body.payload {
            *content = Hash([6; 48]);
        }
    });
}

fn edit_body_and_head(world: &World, db: &mut Database) {
    edit_body(world, db);
    let at = db.position(&world.talk, 0);
    let hash = db.entry(at).hash;
    db.change_thread(&world.talk, |thread| thread.head.hash = hash);
}

/// Changes the last message of the conversation, and derives its row again.
fn change(world: &World, db: &mut Database, change: impl FnOnce(&mut Entry)) {
    let at = db.position(&world.talk, 0);
    let mut entry = db.entry(at);
    change(&mut entry);
    db.write(&mut entry);
}

/// Puts the last two messages into each other's places, chained as they now stand.
fn reorder(world: &World, db: &mut Database) {
    let (second, first) = (db.position(&world.talk, 0), db.position(&world.talk, 1));
    let (mut a, mut b) = (db.entry(first), db.entry(second));
    std::mem::swap(&mut a.body, &mut b.body);
    std::mem::swap(&mut a.signature, &mut b.signature);
    db.write(&mut a);
    b.place.prev = a.hash;
    db.write(&mut b);
    let (a, b) = (first * 4, second * 4);
    swap(db, "attachments", "bytes", &format!("id = {a}"), &format!("id = {b}"));
}

fn swap(db: &mut Database, table: &str, column: &str, a: &str, b: &str) {
    let select = |at: &str| format!("SELECT {column} FROM {table} WHERE {at}");
    let (first, second) = (db.bytes(&select(a)), db.bytes(&select(b)));
    db.put(&format!("UPDATE {table} SET {column} = ? WHERE {a}"), &second);
    db.put(&format!("UPDATE {table} SET {column} = ? WHERE {b}"), &first);
}

fn change_header(db: &mut Database, height: &str) {
    use zixt_types::{Canonical as _, Header};
    let bytes = db.bytes(&format!("SELECT header FROM headers WHERE height = {height}"));
    let mut header = Header::parse(&bytes).expect("a header");
    header.map = Hash([4; 48]);
    db.put(&format!("UPDATE headers SET header = ? WHERE height = {height}"), &header.to_bytes());
    let hash = digest::header_hash(&header);
    db.put(&format!("UPDATE headers SET hash = ? WHERE height = {height}"), hash.as_ref());
}

fn device_of(db: &mut Database, account: AccountId) -> Device {
    let state = db.state(&digest::account_thread(account));
    state.account().expect("an account").devices[0].clone()
}

/// Adds a device to an account's state: one like its first, changed.
fn add_device(db: &mut Database, account: AccountId, change: impl FnOnce(&mut Device)) {
    let mut device = device_of(db, account);
    change(&mut device);
    db.change_thread(&digest::account_thread(account), |thread| {
        if let ThreadDetail::Account(account) = &mut thread.detail {
            account.devices.push(device);
        }
    });
}

/// Changes the first devices of alice and bob together.
fn swap_keys(world: &World, db: &mut Database, swap: impl FnOnce(&mut Device, &mut Device)) {
    let (mut a, mut b) = (device_of(db, world.alice.account), device_of(db, world.bob.account));
    swap(&mut a, &mut b);
    for (account, device) in [(world.alice.account, a), (world.bob.account, b)] {
        db.change_thread(&digest::account_thread(account), |thread| {
            if let ThreadDetail::Account(account) = &mut thread.detail {
                account.devices[0] = device;
            }
        });
    }
}

/// Swaps a public key that came with alice's and bob's device.
fn swap_attached_keys(world: &World, db: &mut Database, index: i64) {
    let [a, b] = [world.alice, world.bob].map(|member| {
        let thread: ThreadId = digest::account_thread(member.account);
        db.position(&thread, 0) * 4 + index
    });
    swap(db, "attachments", "bytes", &format!("id = {a}"), &format!("id = {b}"));
}

fn swap_names(world: &World, db: &mut Database, column: &str) {
    let row = |account: AccountId| format!("account = x'{account}'");
    let (alice, bob) = (row(world.alice.account), row(world.bob.account));
    let select = |at: &str| format!("SELECT {column} FROM names WHERE {at}");
    let (first, second) = (db.bytes(&select(&alice)), db.bytes(&select(&bob)));
    // Unique: out of the way first.
    db.put(&format!("UPDATE names SET {column} = ? WHERE {alice}"), b"elsewhere");
    db.put(&format!("UPDATE names SET {column} = ? WHERE {bob}"), &first);
    db.put(&format!("UPDATE names SET {column} = ? WHERE {alice}"), &second);
}

/// Puts older files in the place of the server's.
pub fn put_back(from: &Path, server: &Path, names: &[&str]) {
    let older = server.with_file_name("older");
    copy_folder(from, &older);
    for name in names {
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("{name}{suffix}");
            let _absent = fs::remove_file(server.join(&name));
            if older.join(&name).exists() {
                fs::rename(older.join(&name), server.join(&name)).expect("a rename");
            }
        }
    }
    fs::remove_dir_all(older).expect("a removal");
}
