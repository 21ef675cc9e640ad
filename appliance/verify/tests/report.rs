//! The words of the report, on fixed reports: a change of them is seen in `tests/golden`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
use zixt_ledger::certificate::SignedStake;
use zixt_ledger::evidence::{
    EntryReport, Fault, Finding, ForkError, ForkReport, Place, Report, Signer, Verdict,
};
use zixt_types::{
    AccountId, ApplianceId, Author, BodyKind, CustodyMode, DeviceId, Hash, Head, Height, Member, Round, Seq,
    SuiteId, ThreadId, ThreadKind, Timestamp,
};
use zixt_verify::{Checked, Exit, Options, json, text};

fn good() -> Report {
    let member = Member { account: AccountId([0xAC; 16]), device: DeviceId([0xDE; 16]) };
    let entry = |seq: u64, kind, content: Option<&[u8]>| EntryReport {
        seq: Seq(seq),
        hash: Hash([seq as u8; 48]),
        ledger_time: Timestamp(1_790_000_000_000 + seq * 1_000),
        sent_at: Some(Timestamp(1_790_000_000_000 + seq * 1_000 - 250)),
        kind: Some(kind),
        author: Some(Author::Device(member)),
        name: (seq == 1).then(|| "Alice\x07".to_owned()),
        has_envelope: content.is_some(),
        content: content.map(<[u8]>::to_vec),
    };
    Report {
        network: "example".to_owned(),
        genesis: Hash([0x6E; 48]),
        lab: false,
        height: Height(42),
        header: Hash([0x4E; 48]),
        header_time: Timestamp(1_790_000_042_000),
        suite: SuiteId::Standard,
        round: Round(0),
        stake: Some(SignedStake { signed: 3, total: 4 }),
        signers: vec![Signer {
            appliance: ApplianceId([0xA9; 48]),
            stake: 3,
            custody: CustodyMode::WrappedByToken,
            activated: None,
        }],
        thread: ThreadId::new(ThreadKind::Conversation, &[0x7D; 31]),
        entries: vec![
            entry(0, BodyKind::Commit, None),
            entry(1, BodyKind::Message, Some(b"\x86\x01\x00\x41\x09\xF6\x68hi \x1b[2J\n\x80")),
        ],
        suites: Verdict::Ok,
        certificate: Verdict::Ok,
        recorded: Verdict::Ok,
        author: Verdict::Ok,
        envelope: Verdict::Ok,
        content: Verdict::Ok,
        time: Verdict::Ok,
        custody: Verdict::Ok,
        complete: Verdict::Ok,
    }
}

fn bad() -> Report {
    let certified = Head { seq: Seq(2), hash: Hash([2; 48]) };
    let found = Head { seq: Seq(1), hash: Hash([1; 48]) };
    let dropped = Finding { place: Place::Thread, fault: Fault::OtherHead { certified, found } };
    let revoked = Fault::Revoked {
        device: DeviceId([0xDE; 16]),
        revoked: Timestamp(1_790_000_000_500),
        time: Timestamp(1_790_000_001_000),
    };
    Report {
        lab: true,
        network: "ex\u{202e}ample".to_owned(),
        recorded: Verdict::Failed(vec![dropped.clone()]),
        complete: Verdict::Failed(vec![dropped]),
        author: Verdict::Failed(vec![Finding { place: Place::Entry(Seq(1)), fault: revoked }]),
        envelope: Verdict::NotIncluded,
        content: Verdict::NotIncluded,
        entries: Vec::new(),
        ..good()
    }
}

/// Compares with a file of `tests/golden`; `ZIXT_BLESS=1` writes it.
fn golden(name: &str, actual: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("ZIXT_BLESS").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{path}: if the change is meant, run once with ZIXT_BLESS=1");
}

#[test]
fn the_reports_read_as_they_should() {
    let shown = Options { content: true };
    let good = Checked::Evidence(Box::new(good()));
    let bad = Checked::Evidence(Box::new(bad()));
    golden("good.txt", &text::report(&good, shown));
    golden("good-without-content.txt", &text::report(&good, Options::default()));
    golden("bad.txt", &text::report(&bad, shown));
    golden("good.json", &json::report(&good, shown));
    golden("bad.json", &json::report(&bad, shown));
    assert_eq!((good.exit(), bad.exit()), (Exit::Proven, Exit::Failed));
}

#[test]
fn forks_read_as_they_should() {
    let fork = Checked::Fork(Ok(ForkReport {
        network: "example".to_owned(),
        lab: false,
        height: Height(7),
        first: Hash([1; 48]),
        second: Hash([2; 48]),
        signed_both: vec![ApplianceId([0xA9; 48])],
    }));
    let none = Checked::Fork(Err(ForkError::NoContradiction));
    golden("fork.txt", &text::report(&fork, Options::default()));
    golden("no-fork.txt", &text::report(&none, Options::default()));
    golden("fork.json", &json::report(&fork, Options::default()));
    assert_eq!((fork.exit(), none.exit()), (Exit::Proven, Exit::Failed));
}
