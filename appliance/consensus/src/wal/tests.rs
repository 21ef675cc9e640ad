//! The log as a whole: what comes back is always a prefix of what was written, and holds all that was durable.

use super::*;
use crate::host::TimerKind;
use crate::message::{Content, Message, Polka, ProposalHead, SignedVote};
use proptest::prelude::*;
use std::sync::Mutex;
use zixt_types::{ApplianceId, Canonical, CertificateSignature, Hash, Round, SuiteId, Vote, VoteStep};

/// A disk that can lose what was not synced, in sectors: what is durable, and what is not, with its place.
#[derive(Default)]
struct Disk(Mutex<(Vec<u8>, Vec<Write>)>);

type Write = (usize, Vec<u8>);

fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() < at + part.len() {
        bytes.resize(at + part.len(), 0);
    }
    bytes[at..at + part.len()].copy_from_slice(part);
}

impl Disk {
    fn with(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new((bytes, Vec::new()))))
    }

    fn lose(&self, mut stays: impl FnMut() -> bool) {
        let mut state = self.0.lock().unwrap();
        for (at, part) in std::mem::take(&mut state.1) {
            for (place, sector) in part.chunks(512).enumerate() {
                if stays() {
                    put(&mut state.0, at + place * 512, sector);
                }
            }
        }
    }
}

impl WalFile for Disk {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let mut bytes = state.0.clone();
        for (at, part) in &state.1 {
            put(&mut bytes, *at, part);
        }
        Ok(bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().1.push((usize::try_from(offset).unwrap(), bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.lose(|| true);
        Ok(())
    }
}

fn record() -> impl Strategy<Value = Record> {
    let bytes = |max: usize| prop::collection::vec(any::<u8>(), 0..max);
    let hash = any::<u8>().prop_map(|byte| Hash([byte; 48]));
    let who = any::<u8>().prop_map(|byte| ApplianceId([byte; 48]));
    let round = any::<u32>().prop_map(Round);
    let polka = prop::option::of(round.clone());
    let value = (round.clone(), polka.clone(), who.clone(), hash.clone());
    let content = prop::option::of((bytes(200), bytes(9000)));
    prop_oneof![
        (value.clone(), content).prop_map(|((round, polka, proposer, header), content)| Record::Value {
            about: ValueHead { round, polka, proposer, header },
            content: content.map(|(header, batch)| Arc::new(Content { header, batch })),
        }),
        value.prop_map(|(round, polka, proposer, header)| {
            Record::Proposal(ProposalHead { height: Height(3), round, polka, proposer, header })
        }),
        (round.clone(), prop::option::of(hash.clone()), who.clone(), bytes(4000)).prop_map(
            |(round, header, validator, signature)| {
                let suite = SuiteId::Standard;
                let (height, step) = (Height(3), VoteStep::Precommit);
                let vote = Vote { version: 1, suite, genesis: Hash::ZERO, height, round, step, header };
                Record::Vote(SignedVote { validator, vote, signature })
            }
        ),
        round.clone().prop_map(|round| Record::Timeout(TimerKind::Precommit, round)),
        (round, hash, prop::collection::vec((who, bytes(100)), 0..4)).prop_map(|(round, header, list)| {
            let one = |(validator, signature)| CertificateSignature { validator, signature };
            let signatures = list.into_iter().map(one).collect();
            Record::Polka(Polka { height: Height(3), round, header, signatures })
        }),
    ]
}

fn records(max: usize) -> impl Strategy<Value = Vec<(Record, bool)>> {
    prop::collection::vec((record(), any::<bool>()), 1..max)
}

/// Writes two heights; flushes after a record where the flag says so. Returns the bytes and how many records of
/// height 3 were durable.
fn written(before: &[(Record, bool)], now: &[(Record, bool)]) -> (Vec<u8>, usize) {
    let disk = Disk::with(Vec::new());
    let mut wal = Wal::open(Arc::clone(&disk) as _, 77, Flush::Inline).unwrap();
    let mut durable = 0;
    for (height, records) in [(2, before), (3, now)] {
        assert!(wal.start(Height(height)).unwrap().is_empty());
        durable = 0;
        for ((record, flush), count) in records.iter().zip(1..) {
            wal.append(record, true).unwrap();
            if *flush {
                wal.flush_wait().unwrap();
                durable = count;
            }
        }
    }
    (disk.read_all().unwrap(), durable)
}

/// What a new process reads at height 3.
fn reread(bytes: Vec<u8>) -> Result<Vec<Record>, WalError> {
    Wal::open(Disk::with(bytes), 78, Flush::Inline)?.start(Height(3))
}

fn is_prefix(read: &[Record], written: &[(Record, bool)]) -> bool {
    read.len() <= written.len() && read.iter().zip(written).all(|(read, (written, _))| read == written)
}

fn timeout(round: u32) -> Record {
    // Rounds below 24 are one byte in CBOR: all of these have the same length.
    Record::Timeout(TimerKind::Propose, Round(round))
}

/// A frame of an earlier process may lie exactly where the next one is expected. It must not come back to life.
#[test]
fn a_frame_that_was_cut_off_stays_dead() {
    let disk = Disk::with(Vec::new());
    let open = || Wal::open(Arc::clone(&disk) as _, 77, Flush::Inline).unwrap();
    let mut wal = open();
    wal.start(Height(1)).unwrap();
    wal.append(&timeout(0), true).unwrap();
    wal.flush_wait().unwrap();
    wal.append(&timeout(1), true).unwrap();
    wal.append(&timeout(2), true).unwrap();
    // The second of three is lost, the third reached the disk.
    let mut stays = [false, true].into_iter();
    disk.lose(|| stays.next().unwrap());
    let mut wal = open();
    assert_eq!(wal.start(Height(1)).unwrap(), [timeout(0)]);
    wal.append(&timeout(3), true).unwrap();
    wal.flush_wait().unwrap();
    assert_eq!(open().start(Height(1)).unwrap(), [timeout(0), timeout(3)]);
}

/// A disk may garble the block that it is writing when the power fails. What was durable is in another one.
#[test]
fn a_garbled_block_harms_only_what_was_not_durable() {
    let disk = Disk::with(Vec::new());
    let mut wal = Wal::open(Arc::clone(&disk) as _, 77, Flush::Inline).unwrap();
    wal.start(Height(3)).unwrap();
    wal.append(&timeout(0), true).unwrap();
    wal.append(&timeout(1), true).unwrap();
    wal.flush_wait().unwrap();
    wal.append(&timeout(2), true).unwrap();
    let block = disk.0.lock().unwrap().1[0].0 / BLOCK_BYTES * BLOCK_BYTES;
    let mut bytes = disk.read_all().unwrap();
    bytes[block..].fill(0xA5);
    assert_eq!(reread(bytes).unwrap(), [timeout(0), timeout(1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_record_comes_back(record in record()) {
        let (mut bytes, tail) = record.to_parts();
        tail.iter().for_each(|part| bytes.extend_from_slice(part));
        prop_assert_eq!(Record::parse(&bytes), Ok(record));
        for cut in 0..bytes.len().min(200) {
            prop_assert!(Record::parse(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::parse(&bytes);
        let _ = Message::parse(&bytes);
        let _ = reread(bytes);
    }

    #[test]
    fn a_log_comes_back(before in records(6), now in records(6)) {
        let read = reread(written(&before, &now).0).unwrap();
        prop_assert_eq!(read.len(), now.len());
        prop_assert!(is_prefix(&read, &now));
    }

    #[test]
    fn a_log_cut_off_anywhere_gives_a_prefix(before in records(4), now in records(4), cut: prop::sample::Index) {
        let (mut bytes, _) = written(&before, &now);
        bytes.truncate(cut.index(bytes.len() + 1));
        match reread(bytes) {
            Ok(read) => prop_assert!(is_prefix(&read, &now)),
            Err(WalError::Damaged { .. } | WalError::NotALog) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_flipped_bit_gives_a_prefix_or_an_error(
        before in records(4), now in records(4), at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let (mut bytes, durable) = written(&before, &now);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        match reread(bytes) {
            // The last durable records may go unnoticed only if nothing was written after them.
            Ok(read) => {
                prop_assert!(is_prefix(&read, &now));
                prop_assert!(read.len() >= durable || durable == now.len());
            }
            Err(WalError::Damaged { .. } | WalError::NotALog) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// Processes write, flush and crash, at one height and the next; each reads what the one before left.
    #[test]
    fn crashes_keep_what_was_durable_and_invent_nothing(
        lives in prop::collection::vec((records(6), any::<u64>(), 0..3_u8), 1..8),
    ) {
        let disk = Disk::with(Vec::new());
        let (mut height, mut durable, mut expected) = (1, 0, Vec::<Record>::new());
        for (records, mut chance, mode) in lives {
            let mut wal = Wal::open(Arc::clone(&disk) as _, 77, Flush::Inline).unwrap();
            let read = wal.start(Height(height)).unwrap();
            prop_assert!(read.len() >= durable && read.len() <= expected.len(), "height {height}");
            prop_assert_eq!(&read[..], &expected[..read.len()]);
            expected = read;
            durable = 0;
            for (record, flush) in records {
                wal.append(&record, true).unwrap();
                expected.push(record);
                if flush {
                    wal.flush_wait().unwrap();
                    durable = expected.len();
                }
            }
            if mode == 2 {
                // The host commits; nothing of this height matters any more.
                height += 1;
                (durable, expected) = (0, Vec::new());
            }
            disk.lose(|| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                mode == 0 || chance >> 62 != 0
            });
        }
    }
}
