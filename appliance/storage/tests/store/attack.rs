//! The owner of the database as attacker: rows are edited, deleted, added and swapped in every table, and each time it
//! is written down who notices.

use crate::Place;
use crate::sample::World;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use zixt_ledger::{Account, Thread, ThreadDetail};
use zixt_storage::{Finding, FindingKind, FsckReport, LoadError, Position, Store, StoreError, fsck};
use zixt_types::{AccountId, DeviceId, Seq, ThreadId};

/// A filled store and the world that filled it.
async fn filled() -> (Place, World) {
    let mut world = World::new();
    for count in [1, 6, 2] {
        world.messages(count, 200);
    }
    let place = Place::new();
    let store = place.open().await;
    for (block, certificate) in &world.blocks {
        store.commit_batch(block, certificate).await.unwrap();
    }
    let device = world.bob.member.device;
    let bobs = |rest: &[u8]| package(&world.bob.mls, rest);
    let one_time = [bobs(b"one"), bobs(b"two"), bobs(b"three"), bobs(b"four")];
    store.put_key_packages(&device, &one_time, Some(&bobs(b"last"))).await.unwrap();
    let alices = package(&world.alice.mls, b"one");
    store.put_key_packages(&world.alice.member.device, &[alices], None).await.unwrap();
    put_names(&store, &world).await;
    store.acknowledge(&world.bob.member, Position(3)).await.unwrap();
    store.close().await.unwrap();
    (place, world)
}

pub(crate) async fn put_names(store: &Store, world: &World) {
    for person in [&world.alice, &world.bob] {
        put_name(store, person.member.account).await;
    }
}

async fn put_name(store: &Store, account: AccountId) {
    let (sealed, tag) = (format!("sealed {account}"), format!("tag of {account}"));
    store.put_name(account, sealed.as_bytes(), tag.as_bytes()).await.unwrap();
}

/// As much of an MLS key package as says who made it.
fn package(key: &[u8], rest: &[u8]) -> Vec<u8> {
    [&[0, 1, 0, 5, 0, 1, 0, 1, 1, 5, 1, 5, 0x47, 0xA0][..], key, rest].concat()
}

async fn check(store: &Store, world: &World) -> FsckReport {
    let network = &world.network;
    let genesis = (*network.state.genesis).clone();
    fsck(store, genesis, network.keyring.clone(), &*network.backend, Some(&judge_name)).await.unwrap()
}

/// The test's names are sealed by writing whose they are.
fn judge_name(account: &Account, tag: &[u8], sealed: &[u8]) -> Result<(), &'static str> {
    let text = |what: &str| format!("{what} {}", account.id);
    if tag != text("tag of").as_bytes() {
        return Err("another tag");
    }
    if sealed == text("sealed").as_bytes() { Ok(()) } else { Err("another name") }
}

async fn load(store: &Store, world: &World) -> Result<(), LoadError> {
    let network = &world.network;
    let genesis = (*network.state.genesis).clone();
    store.load(genesis, network.keyring.clone(), &*network.backend).await.map(|_| ())
}

/// The attacker's own connection, without any rule of ours.
async fn attacker(place: &Place) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&place.path)
        .foreign_keys(false)
        .disable_statement_logging()
        .connect()
        .await
        .unwrap()
}

/// Runs the statements on a copy of the store and says what is found.
pub(crate) async fn after(place: &Place, world: &World, sql: &str) -> (FsckReport, Result<(), LoadError>) {
    let copy = Place::new();
    std::fs::copy(&place.path, &copy.path).unwrap();
    let mut connection = attacker(&copy).await;
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    assert!(
        done.rows_affected() > 0 || sql.contains("CREATE") || sql.contains("DROP"),
        "{sql} changes nothing"
    );
    connection.close().await.unwrap();
    let store = copy.open().await;
    let found = (check(&store, world).await, load(&store, world).await);
    store.close().await.unwrap();
    found
}

#[tokio::test]
async fn an_untouched_store_is_clean() {
    let (place, world) = filled().await;
    let store = place.open().await;
    let report = check(&store, &world).await;
    assert!(report.is_clean() && report.findings.is_empty(), "{:#?}", report.findings);
    let state = &world.network.state;
    assert_eq!((report.heights, report.derived_to), (state.height.0, state.height));
    assert_eq!(report.derived_hash, Some(state.header_hash));
    load(&store, &world).await.unwrap();
}

/// Statement, the table that fsck has to name, and whether start-up refuses it too.
const ATTACKS: &[(&str, &str, bool)] = &[
    // A bit of a body, a signature, a salt, a place.
    (
        "UPDATE entries SET body = unhex(substr(hex(body), 1, 400) || 'A5' || substr(hex(body), 403)) WHERE position = 9",
        "entries",
        false,
    ),
    ("UPDATE entries SET signature = zeroblob(length(signature)) WHERE position = 9", "entries", false),
    (
        "UPDATE entries SET signature = (SELECT signature FROM entries WHERE position = 10) WHERE position = 9",
        "entries",
        false,
    ),
    ("UPDATE entries SET salt = zeroblob(32) WHERE position = 9", "headers", false),
    ("UPDATE entries SET time = time + 1 WHERE position = 9", "entries", false),
    ("UPDATE entries SET leaf = leaf + 1 WHERE position = 9", "entries", false),
    ("UPDATE entries SET shard = 3 - shard WHERE position = 9", "entries", false),
    ("UPDATE entries SET height = height + 1 WHERE position = 9", "entries", false),
    ("UPDATE entries SET kind = 1 WHERE position = 9", "entries", false),
    ("UPDATE entries SET message_id = zeroblob(16) WHERE position = 9", "entries", false),
    ("UPDATE entries SET envelope_bytes = 1 WHERE position = 9", "entries", false),
    ("UPDATE entries SET hash = zeroblob(48) WHERE position = 9", "entries", false),
    ("UPDATE entries SET prev = zeroblob(48) WHERE position = 9", "entries", false),
    ("UPDATE entries SET possession = NULL WHERE position = 3", "entries", true),
    // Whole entries: deleted, reordered, moved to another thread.
    ("DELETE FROM entries WHERE position = 9", "entries", false),
    (
        "UPDATE entries SET position = -9 WHERE position = 9; UPDATE entries SET position = 9 WHERE position = 10; \
      UPDATE entries SET position = 10 WHERE position = -9",
        "entries",
        false,
    ),
    (
        "UPDATE entries SET seq = 1000 WHERE position = 9; UPDATE entries SET seq = seq - 1 WHERE position = 10",
        "entries",
        false,
    ),
    // Thread 1 is an account, and start-up derives accounts from their entries.
    ("UPDATE entries SET thread = 1, seq = 99 WHERE position = 9", "entries", true),
    ("UPDATE entries SET signature = zeroblob(length(signature)) WHERE position = 8", "entries", true),
    ("DELETE FROM entries WHERE position = 8", "entries", true),
    ("DELETE FROM entries WHERE position = 1", "entries", true),
    ("UPDATE entries SET seq = 7 WHERE position = 8", "entries", true),
    (
        "INSERT INTO entries SELECT 1000, height, thread, 1000, kind, shard, leaf, time, envelope_bytes, message_id, hash, \
      prev, salt, body, signature, possession FROM entries WHERE position = 9",
        "entries",
        false,
    ),
    // The last height's entries only.
    ("DELETE FROM entries WHERE position = (SELECT max(position) FROM entries)", "entries", false),
    // Content.
    ("UPDATE attachments SET bytes = zeroblob(length(bytes) + 1) WHERE id = 36", "attachments", false),
    (
        "UPDATE attachments SET bytes = (SELECT bytes FROM attachments WHERE id = 40) WHERE id = 36",
        "attachments",
        false,
    ),
    ("DELETE FROM attachments WHERE id = 12", "attachments", true),
    ("UPDATE attachments SET bytes = zeroblob(length(bytes)) WHERE id = 12", "attachments", true),
    ("UPDATE attachments SET bytes = zeroblob(length(bytes)) WHERE id = 14", "attachments", false),
    ("UPDATE attachments SET bytes = zeroblob(length(bytes)) WHERE id = 15", "entries", false),
    ("INSERT INTO attachments VALUES (37, x'00')", "attachments", false),
    ("INSERT INTO attachments VALUES (4000, x'00')", "attachments", false),
    // Headers and certificates.
    (
        "UPDATE headers SET header = (SELECT header FROM headers WHERE height = 4) WHERE height = 3",
        "headers",
        false,
    ),
    (
        "UPDATE headers SET certificate = (SELECT certificate FROM headers WHERE height = 4) WHERE height = 3",
        "headers",
        false,
    ),
    ("UPDATE headers SET hash = zeroblob(48) WHERE height = 3", "headers", false),
    ("UPDATE headers SET first = first + 1 WHERE height = 3", "headers", false),
    ("DELETE FROM headers WHERE height = 3", "headers", false),
    ("DELETE FROM headers WHERE height = 1", "headers", false),
    ("DELETE FROM headers WHERE height = (SELECT max(height) FROM headers)", "entries", true),
    ("DELETE FROM headers WHERE height = (SELECT max(height) - 1 FROM headers)", "headers", true),
    (
        "INSERT INTO headers SELECT 1000, hash, header, certificate, first FROM headers WHERE height = 3",
        "headers",
        true,
    ),
    (
        "INSERT INTO headers SELECT -1, hash, header, certificate, first FROM headers WHERE height = 3",
        "headers",
        false,
    ),
    (
        "UPDATE headers SET height = -3 WHERE height = 3; UPDATE headers SET height = 3 WHERE height = 4; \
      UPDATE headers SET height = 4 WHERE height = -3",
        "headers",
        false,
    ),
    // Trees.
    ("UPDATE nodes SET hashes = zeroblob(length(hashes)) WHERE tree = 0 AND leaf = 2", "nodes", false),
    ("UPDATE nodes SET hashes = zeroblob(length(hashes) + 48) WHERE tree = 0 AND leaf = 2", "nodes", false),
    ("DELETE FROM nodes WHERE tree = 0 AND leaf = 2", "nodes", false),
    (
        "DELETE FROM nodes WHERE tree = 0 AND leaf = (SELECT max(leaf) FROM nodes WHERE tree = 0)",
        "nodes",
        true,
    ),
    ("INSERT INTO nodes SELECT tree, 1000, hashes FROM nodes WHERE tree = 0 AND leaf = 0", "nodes", true),
    ("INSERT INTO nodes SELECT 100, leaf, hashes FROM nodes WHERE tree = 0 AND leaf = 0", "nodes", false),
    // Threads: the head is bound, accounts are derived again; conversations' rosters and counters are fsck's.
    ("DELETE FROM threads WHERE no = 3", "threads", true),
    ("UPDATE threads SET state = x'00' WHERE no = 3", "threads", true),
    (
        "UPDATE threads SET state = unhex(substr(hex(state), 1, 2 * length(state) - 2) || '05') WHERE no = 3",
        "threads",
        false,
    ),
    ("UPDATE threads SET state = (SELECT state FROM threads WHERE no = 2) WHERE no = 1", "threads", true),
    ("UPDATE threads SET thread = unhex('02' || substr(hex(thread), 3)) WHERE no = 1", "threads", true),
    ("INSERT INTO threads SELECT 99, zeroblob(32), state FROM threads WHERE no = 3", "threads", true),
    // Who is told.
    ("DELETE FROM memberships WHERE rowid_of = 1", "memberships", false),
    ("UPDATE memberships SET last = 1000", "memberships", false),
    ("UPDATE memberships SET first = first + 1", "memberships", false),
    (
        "INSERT INTO memberships SELECT account, device, 1, 1, NULL FROM memberships LIMIT 1",
        "memberships",
        false,
    ),
    // Beside the ledger.
    ("UPDATE cursors SET position = 1000", "cursors", false),
    ("INSERT INTO cursors VALUES (zeroblob(16), zeroblob(16), 1)", "cursors", false),
    ("UPDATE key_packages SET package = x'00' WHERE last_resort = 0", "key_packages", false),
    ("INSERT INTO key_packages VALUES (99, zeroblob(16), zeroblob(48), 0, NULL)", "key_packages", false),
    (
        "INSERT INTO key_packages SELECT 99, (SELECT device FROM key_packages WHERE id = 1), digest, 0, package \
      FROM key_packages WHERE id = 6",
        "key_packages",
        false,
    ),
    (
        "UPDATE key_packages SET device = CASE device WHEN (SELECT min(device) FROM key_packages) \
      THEN (SELECT max(device) FROM key_packages) ELSE (SELECT min(device) FROM key_packages) END",
        "key_packages",
        false,
    ),
    (
        "UPDATE names SET account = zeroblob(16) WHERE account = (SELECT max(account) FROM names)",
        "names",
        false,
    ),
    ("UPDATE names SET sealed = (SELECT max(sealed) FROM names)", "names", false),
    ("UPDATE names SET tag = x'00' WHERE account = (SELECT max(account) FROM names)", "names", false),
    ("DELETE FROM names WHERE account = (SELECT max(account) FROM names)", "names", false),
    // The schema and the file.
    ("CREATE TRIGGER later AFTER INSERT ON entries BEGIN DELETE FROM entries; END", "(schema)", false),
    ("CREATE TABLE notes (note TEXT)", "(schema)", false),
    ("CREATE VIEW talks AS SELECT 1", "(schema)", false),
    ("DROP INDEX entries_by_message", "(schema)", false),
    (
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'UNIQUE INDEX', 'INDEX') \
      WHERE name = 'entries_by_seq'",
        "(schema)",
        false,
    ),
];

#[tokio::test]
async fn every_attack_is_found_and_named() {
    let (place, world) = filled().await;
    let mut wrong = Vec::new();
    for (sql, table, refused) in ATTACKS {
        let sql = sql.replace(
            "WHERE rowid_of = 1",
            "WHERE (account, device, thread) IN (SELECT account, device, thread FROM memberships LIMIT 1)",
        );
        let (report, loaded) = after(&place, &world, &sql).await;
        let named = report.findings.iter().any(|finding| finding.table == *table);
        if report.is_clean() || !named || loaded.is_err() != *refused {
            let found: Vec<_> = report.findings.iter().map(|found| format!("{found:?}")).collect();
            wrong.push(format!(
                "{sql}\n  wanted {table}, load {refused}\n  load: {loaded:?}\n  {}",
                found.join("\n  ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What nothing commits to can be deleted unseen. What that costs, and who finds what follows, is shown by the attacks on
/// the whole appliance.
#[tokio::test]
async fn deletions_of_key_packages_and_acknowledgements_are_not_seen() {
    let (place, world) = filled().await;
    for sql in ["DELETE FROM key_packages", "DELETE FROM cursors"] {
        let (report, loaded) = after(&place, &world, sql).await;
        loaded.unwrap();
        assert!(report.findings.is_empty(), "{sql}: {:#?}", report.findings);
    }
}

/// A name is missed as soon as its account has a device: before, a crash may have come between the entry and the name.
#[tokio::test]
async fn a_name_that_was_deleted_is_missed_as_soon_as_its_account_has_a_device() {
    let (place, mut world) = filled().await;
    let store = place.open().await;
    let (invitation, submission) = world.network.invite("carol");
    world.record(submission);
    let (block, certificate) = world.blocks.last().unwrap();
    store.commit_batch(block, certificate).await.unwrap();
    assert!(check(&store, &world).await.is_clean());
    let (carol, submission) = world.network.device(invitation.account, Ok(&invitation));
    world.record(submission);
    let (block, certificate) = world.blocks.last().unwrap();
    store.commit_batch(block, certificate).await.unwrap();
    let report = check(&store, &world).await;
    let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
    let account = carol.member.account.to_string();
    assert_eq!((finding.kind, finding.table, &finding.key), (FindingKind::Missing, "names", &account));
    put_name(&store, carol.member.account).await;
    assert!(check(&store, &world).await.is_clean());
}

/// Whoever writes to the database may put a package there that any key signed, or none.
#[tokio::test]
async fn a_key_package_that_its_device_did_not_make_is_found() {
    for forged in [package(&[3; 1952], b""), b"no package at all".to_vec()] {
        let (place, world) = filled().await;
        let store = place.open().await;
        assert!(check(&store, &world).await.is_clean());
        store.put_key_packages(&world.bob.member.device, &[forged], None).await.unwrap();
        let report = check(&store, &world).await;
        let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
        assert_eq!((finding.kind, finding.table), (FindingKind::Altered, "key_packages"));
    }
}

type Forgery = fn(&mut Thread, &World);

/// What an attacker writes over the state of Alice's account, whose laptop was added and revoked.
const FORGERIES: &[(&str, Forgery)] = &[
    ("a device's identity is another account's", |thread, world| {
        let bob = world.bob.member;
        let bobs = world.network.state.account(bob.account).unwrap().device(bob.device).unwrap().keys;
        account(thread).devices[0].keys.identity = bobs.identity;
    }),
    ("a device's TLS key is another", |thread, _| account(thread).devices[0].keys.tls.0[7] ^= 1),
    ("a revoked device is active", |thread, _| account(thread).devices[1].revoked = None),
    ("a device is gone", |thread, _| account(thread).devices.truncate(1)),
    ("a device was added earlier", |thread, _| account(thread).devices[1].added_at.0 -= 1),
    ("the invitation is good again", |thread, _| account(thread).invitation_used = false),
    ("the counters begin anew", |thread, _| thread.counters = zixt_ledger::Counters::default()),
    ("it is a conversation", |thread, world| {
        thread.detail = world.network.state.thread(&world.thread).unwrap().detail.clone();
    }),
];

fn account(thread: &mut Thread) -> &mut Account {
    match &mut thread.detail {
        ThreadDetail::Account(account) => account,
        ThreadDetail::Conversation(_) | ThreadDetail::System(_) => panic!("the thread is an account's"),
    }
}

pub(crate) fn write_state(id: &ThreadId, thread: &Thread) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let state = minicbor::to_vec(thread).unwrap();
    format!("UPDATE threads SET state = x'{}' WHERE thread = x'{}'", hex(&state), hex(id.as_ref()))
}

/// Who may act is not a matter of what a row says: start-up derives accounts from their certified entries.
#[tokio::test]
async fn start_up_refuses_an_account_that_its_entries_do_not_lead_to() {
    let (place, world) = filled().await;
    let id = zixt_crypto::digest::account_thread(world.alice.member.account);
    for (what, forge) in FORGERIES {
        let mut thread = Thread::clone(world.network.state.thread(&id).unwrap());
        assert!(thread.account().unwrap().devices[1].revoked.is_some());
        forge(&mut thread, &world);
        let sql = write_state(&id, &thread);
        let (report, loaded) = after(&place, &world, &sql).await;
        assert!(!report.is_clean(), "{what}");
        match loaded {
            Err(LoadError::Inconsistent { what: named }) => {
                let account = world.alice.member.account.to_string();
                assert!(named.contains(&account) || named.contains(&id.to_string()), "{what}: {named}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    // An older state with only the entries that led to it is no way round either: the head is certified.
    let before = world.blocks[2].0.threads.iter().find(|(thread, _)| *thread == id).unwrap();
    let sql = format!("{}; DELETE FROM entries WHERE position = 8", write_state(&id, &before.1));
    let (_, loaded) = after(&place, &world, &sql).await;
    assert!(matches!(loaded, Err(LoadError::Inconsistent { .. })), "{loaded:?}");
}

#[tokio::test]
async fn a_fault_does_not_hide_later_ones() {
    let (place, world) = filled().await;
    let sql = "UPDATE entries SET body = zeroblob(10) WHERE position = 4; \
               UPDATE attachments SET bytes = x'00' WHERE id = 48; \
               UPDATE entries SET signature = zeroblob(10) WHERE position = 14";
    let (report, _) = after(&place, &world, sql).await;
    for (table, key) in [("entries", "4"), ("attachments", "12/0"), ("entries", "14")] {
        let named = |finding: &Finding| finding.table == table && finding.key == key;
        assert!(report.findings.iter().any(named), "{table} {key}: {:#?}", report.findings);
    }
}

#[tokio::test]
async fn deleted_content_is_no_fault() {
    let (place, world) = filled().await;
    let (report, loaded) = after(&place, &world, "DELETE FROM attachments WHERE id IN (36, 48)").await;
    loaded.unwrap();
    assert!(report.is_clean());
    assert_eq!(report.derived_to, world.network.state.height);
    let kinds: Vec<_> = report.findings.iter().map(|finding| (finding.kind, finding.key.as_str())).collect();
    assert_eq!(kinds, [(FindingKind::ContentDeleted, "9/0"), (FindingKind::ContentDeleted, "12/0")]);
}

/// Readers find a changed row by themselves, before anybody runs fsck.
#[tokio::test]
async fn readers_refuse_changed_rows() {
    for sql in [
        "UPDATE entries SET body = zeroblob(300)",
        "UPDATE entries SET signature = zeroblob(3309)",
        "UPDATE entries SET prev = zeroblob(48)",
        "UPDATE attachments SET bytes = zeroblob(length(bytes) + 1)",
        "UPDATE entries SET leaf = -1",
        "UPDATE entries SET salt = x'00'",
    ] {
        let (place, world) = filled().await;
        let mut connection = attacker(&place).await;
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let store = place.open().await;
        let corrupt = |error: StoreError| matches!(error, StoreError::Corrupt { .. });
        let mailbox = store.mailbox(&world.bob.member, Position(0), 10).await.unwrap();
        match store.deliveries(&mailbox.positions).await {
            // The entry and its proof are good, and so is everything else that a device is told.
            Ok(all) => {
                assert!(sql.contains("attachments"), "{sql}");
                assert!(all.iter().all(|it| it.envelope.is_none()));
                assert!(all.iter().any(|it| it.entry.envelope_digest().is_some()));
            }
            Err(error) => assert!(!sql.contains("attachments") && corrupt(error), "{sql}"),
        }
        let entries = store.entries(&world.thread, Seq(0), 10).await;
        // Entries are listed without what is attached to them.
        assert!(sql.contains("attachments") || corrupt(entries.unwrap_err()), "{sql}");
        if let Ok(entry) = store.entry(&world.thread, Seq(3)).await {
            assert!(store.attachment(&entry.unwrap(), 0).await.is_err(), "{sql}");
        }
    }
}

#[tokio::test]
async fn a_changed_key_package_is_not_handed_out() {
    let (place, world) = filled().await;
    let mut connection = attacker(&place).await;
    sqlx::raw_sql("UPDATE key_packages SET package = x'00'").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let store = place.open().await;
    let devices: [DeviceId; 1] = [world.bob.member.device];
    assert!(matches!(store.claim_key_packages(&devices).await, Err(StoreError::Corrupt { .. })));
}

/// A height that will not be decided now keeps nobody from writing.
#[tokio::test]
async fn a_discarded_height_leaves_no_transaction_open() {
    let (place, mut world) = filled().await;
    let store = place.open().await;
    let (block, certificate) = world.messages(1, 10).clone();
    let staged = store.stage_batch(std::sync::Arc::clone(&block)).await.unwrap();
    let mut other = attacker(&place).await;
    sqlx::raw_sql("PRAGMA busy_timeout = 0").execute(&mut other).await.unwrap();
    assert!(sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.is_err(), "it is open");
    store.discard(staged).await;
    sqlx::raw_sql("BEGIN IMMEDIATE; ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    store.commit_batch(&block, &certificate).await.unwrap();
}

#[tokio::test]
async fn another_network_is_refused() {
    let (place, world) = filled().await;
    let store = place.open().await;
    let network = &world.network;
    let mut genesis = (*network.state.genesis).clone();
    genesis.nonce = [8; 32];
    let refused = store.load(genesis, network.keyring.clone(), &*network.backend).await;
    assert!(matches!(refused, Err(LoadError::OtherNetwork { .. })));
}
