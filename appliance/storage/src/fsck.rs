//! Derives everything again from the stored entries, in order, and names every row that is something else.
//!
//! The walk goes height by height. As long as it can derive the next header, whatever the entries lead to is what has
//! to be stored: trees, heads, rosters, devices, counters, who is told. At the first height that leads elsewhere it
//! reports what differs and stops deriving (nothing after it could be right), but goes on checking each later row for
//! itself: formats, digests, entry hashes, links and certificates.
//!
//! What it cannot judge by itself: names are sealed, so whoever has their key judges them ([`NameCheck`]). Key packages
//! are for clients to check; here one is only found that stands under a device and was not signed by its key.
//!
//! What it cannot find: that a key package or an acknowledgement was deleted, or that the newest heights were cut off
//! together with everything that they wrote. A shorter ledger is a valid ledger; clients, who keep their last header, and
//! the consensus log find that.

use crate::membership::{self, Change};
use crate::sqlite::{EntryRow, HeightRows, SideRow};
use crate::{Position, Store, StoreError, StoredEntry, StoredHeader};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use zixt_crypto::Backend;
use zixt_ledger::{
    Account, BlockBuilder, Keyring, LedgerState, ProposedBlock, RecordedEntry, Submission, TreeId,
    certificate, key_package,
};
use zixt_types::{
    AccountId, Attachment, BodyKind, DeviceId, Genesis, Hash, Header, Height, Member, ShardId, ThreadId,
    Validator, limits,
};

/// Findings kept; whoever changed more rows than this gets no clean bill either.
const FINDINGS_MAX: usize = 10_000;

/// What is wrong with a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FindingKind {
    /// It is not what the entries lead to, or not readable.
    Altered,
    /// It should be there.
    Missing,
    /// Nothing refers to it.
    Extra,
    /// The bytes that an entry names by digest are gone, as retention leaves it. Every proof still stands. Not an error.
    ContentDeleted,
    /// The schema or the file itself is not what this program made.
    Structure,
}

/// One row that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// The table.
    pub table: &'static str,
    /// The row: a height, a position, a position and an index, a tree and a leaf, a thread, a device or an account.
    pub key: String,
    /// In words.
    pub what: String,
}

/// What [`fsck`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FsckReport {
    /// Heights looked at.
    pub heights: u64,
    /// Entries looked at.
    pub entries: u64,
    /// The last height up to which every header was derived from the entries.
    pub derived_to: Height,
    /// The hash of that height's header.
    pub derived_hash: Option<Hash>,
    /// The findings, in the order in which they were made.
    pub findings: Vec<Finding>,
    /// Findings that were not kept because there were too many.
    pub more: u64,
}

impl FsckReport {
    /// Whether everything is as it should be. Deleted content is.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.kind == FindingKind::ContentDeleted)
    }

    fn add(&mut self, kind: FindingKind, table: &'static str, key: impl ToString, what: impl ToString) {
        if self.findings.len() >= FINDINGS_MAX {
            self.more += 1;
            return;
        }
        self.findings.push(Finding { kind, table, key: key.to_string(), what: what.to_string() });
    }

    /// Notes a row that could not be read; any other fault ends the walk.
    fn note<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Corrupt { table, key, why }) => {
                self.add(FindingKind::Altered, table, key, why);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}

/// Judges a row of a name: the account as the entries lead to it, the keyed hash, the sealed name. Says what is wrong.
pub type NameCheck<'a> = dyn Fn(&Account, &[u8], &[u8]) -> Result<(), &'static str> + Sync + 'a;

/// Checks the whole store. `keyring` holds the keys that the genesis names; without `names`, names are not judged.
///
/// # Errors
/// The database cannot be read at all; everything else is in the report.
pub async fn fsck(
    store: &Store,
    genesis: Genesis,
    keyring: Keyring,
    backend: &dyn Backend,
    names: Option<&NameCheck<'_>>,
) -> Result<FsckReport, StoreError> {
    let mut walk = Walk {
        store,
        backend,
        names,
        certifiers: Arc::new(genesis.validators.clone()),
        keyring: keyring.clone(),
        state: LedgerState::new(genesis, keyring),
        deriving: true,
        mailboxes: Mailboxes::default(),
        report: FsckReport::default(),
    };
    walk.structure().await?;
    let next = walk.heights().await?;
    walk.threads().await?;
    walk.beside(next).await?;
    Ok(walk.report)
}

struct Walk<'a> {
    store: &'a Store,
    backend: &'a dyn Backend,
    names: Option<&'a NameCheck<'a>>,
    /// Who certifies the height that is looked at: the validators after its entries, as far as they were derived.
    certifiers: Arc<Vec<Validator>>,
    /// Their keys: what the genesis names, and what officers activated.
    keyring: Keyring,
    state: LedgerState,
    /// Whether every header so far was derived.
    deriving: bool,
    mailboxes: Mailboxes,
    report: FsckReport,
}

impl Walk<'_> {
    async fn structure(&mut self) -> Result<(), StoreError> {
        for (object, extra) in self.store.schema_differences().await? {
            let what = if extra { "not of this program's schema" } else { "missing from the schema" };
            self.report.add(FindingKind::Structure, "(schema)", object, what);
        }
        let found = self.store.integrity().await;
        for finding in self.report.note(found)?.unwrap_or_default() {
            self.report.add(FindingKind::Structure, "(file)", "integrity", finding);
        }
        Ok(())
    }

    /// All heights. Returns the place that the next entry would have.
    async fn heights(&mut self) -> Result<Position, StoreError> {
        let (count, last) = self.store.header_count().await?;
        let mut next = Position(1);
        let mut previous = Some(Hash::ZERO);
        // Heights that are missing are not worth a query each: nothing says how many somebody made up.
        let mut height = 0;
        while height < last {
            let following = self.store.next_height(Height(height)).await?;
            let Some(following) = following else { break };
            if following.0 != height + 1 {
                let key = format!("{}..{}", height + 1, following.0);
                self.report.add(FindingKind::Missing, "headers", key, "no row for these heights");
                (self.deriving, previous) = (false, None);
            }
            height = following.0;
            self.report.heights += 1;
            let read = self.store.header(following).await;
            let Some(Some(header)) = self.report.note(read)? else {
                (self.deriving, previous) = (false, None);
                continue;
            };
            self.header(&header, previous, next);
            if !self.deriving {
                next = header.first;
            }
            let entries = u64::from(header.header.entries).min(limits::BATCH_ENTRIES_MAX as u64);
            let until = Position(next.0.saturating_add(entries));
            self.height(&header, next, until).await?;
            self.certificate(&header);
            next = until;
            previous = Some(header.hash);
        }
        if count != self.report.heights {
            let what = format!("{count} rows, but {} heights", self.report.heights);
            self.report.add(FindingKind::Extra, "headers", "count", what);
        }
        Ok(next)
    }

    /// What a header says by itself.
    fn header(&mut self, stored: &StoredHeader, previous: Option<Hash>, next: Position) {
        let height = stored.header.height;
        if previous.is_some_and(|previous| previous != stored.header.previous) {
            self.report.add(FindingKind::Altered, "headers", height, "it follows another header");
        }
        if self.deriving && stored.first != next {
            let what = format!("first is {}, not {next}", stored.first);
            self.report.add(FindingKind::Altered, "headers", height, what);
        }
    }

    /// A header's certificate, by the validators that its own entries lead to.
    fn certificate(&mut self, stored: &StoredHeader) {
        let checked = certificate::verify_certificate(
            &stored.header,
            &stored.certificate,
            &self.certifiers,
            &self.keyring,
            self.backend,
        );
        if let Err(error) = checked {
            let what = format!("not certified: {error}");
            self.report.add(FindingKind::Altered, "headers", stored.header.height, what);
        }
    }

    /// The entries of a height and what they lead to.
    async fn height(
        &mut self,
        header: &StoredHeader,
        from: Position,
        to: Position,
    ) -> Result<(), StoreError> {
        let mut rows = self.store.height_rows(from, to).await?;
        let mut submissions = Vec::new();
        for position in from.0..to.0 {
            self.report.entries += 1;
            let Some(read) = rows.entries.remove(&position) else {
                self.report.add(FindingKind::Missing, "entries", position, "the header counts it");
                self.deriving = false;
                continue;
            };
            let Some(EntryRow { entry, envelope_bytes, thread }) = self.report.note(read)? else {
                self.deriving = false;
                rows.attachments.retain(|(of, _), _| *of != position);
                continue;
            };
            if thread != Some(entry.body.thread) {
                let what = "it stands under another thread than its body's";
                self.report.add(FindingKind::Altered, "entries", position, what);
            }
            if entry.height != header.header.height {
                let what = format!("it says height {}, but is of {}", entry.height, header.header.height);
                self.report.add(FindingKind::Altered, "entries", position, what);
            }
            let attachments = self.attachments(&entry, envelope_bytes, &mut rows);
            submissions.push((entry, attachments));
        }
        for (position, index) in rows.attachments.into_keys() {
            let what = "no entry names it";
            self.report.add(FindingKind::Extra, "attachments", format!("{position}/{index}"), what);
        }
        if self.deriving {
            self.derive(&header.header, header.hash, submissions).await?;
        }
        Ok(())
    }

    /// An entry's attachments; `None` if one is not there or wrong.
    fn attachments(
        &mut self,
        entry: &StoredEntry,
        envelope_bytes: u64,
        rows: &mut HeightRows,
    ) -> Option<Vec<Attachment>> {
        let content = matches!(entry.body.payload.kind(), BodyKind::Message | BodyKind::Commit);
        let mut complete = true;
        let mut attachments = Vec::new();
        for index in 0..entry.attachment_count() {
            let key = format!("{}/{index}", entry.position);
            let Some(bytes) = rows.attachments.remove(&(entry.position.0, index)) else {
                let (kind, what) = match content {
                    true => (FindingKind::ContentDeleted, "deleted; the entry and its proofs stand"),
                    false => (FindingKind::Missing, "the key that the entry brought"),
                };
                self.report.add(kind, "attachments", key, what);
                complete = false;
                continue;
            };
            if let Err(why) = entry.check_attachment(index, &bytes) {
                self.report.add(FindingKind::Altered, "attachments", key, why);
                complete = false;
            } else if content && index == 0 && envelope_bytes != bytes.len() as u64 {
                let what = format!("its envelope has {} bytes, not {envelope_bytes}", bytes.len());
                self.report.add(FindingKind::Altered, "entries", entry.position, what);
            }
            attachments.push(Attachment(bytes));
        }
        complete.then_some(attachments)
    }

    /// Builds the height's block as a validator does and compares all that it leads to.
    async fn derive(
        &mut self,
        header: &Header,
        header_hash: Hash,
        entries: Vec<(StoredEntry, Option<Vec<Attachment>>)>,
    ) -> Result<(), StoreError> {
        let mut builder = BlockBuilder::new(&self.state, header.time);
        for (entry, attachments) in &entries {
            if let Err(why) = judge(&self.state, &mut builder, entry, attachments.clone(), self.backend) {
                self.report.add(FindingKind::Altered, "entries", entry.position, why);
                self.deriving = false;
                return Ok(());
            }
        }
        let block = builder.finish();
        self.certifiers = Arc::clone(&block.validators);
        for (suite, key) in block.entries.iter().filter_map(RecordedEntry::brought_key) {
            self.keyring.insert(suite, key);
        }
        for ((stored, _), derived) in entries.iter().zip(&block.entries) {
            for what in differences(stored, derived) {
                self.report.add(FindingKind::Altered, "entries", stored.position, what);
            }
        }
        if block.header_hash != header_hash {
            for field in other_fields(header, block.header()) {
                let what = format!("the entries lead to another {field}");
                self.report.add(FindingKind::Altered, "headers", header.height, what);
            }
            self.deriving = false;
            return Ok(());
        }
        self.nodes(&block).await?;
        self.mailboxes.apply(&block, entries.first().map_or(Position(0), |(entry, _)| entry.position));
        self.state.apply(&block);
        self.report.derived_to = header.height;
        self.report.derived_hash = Some(header_hash);
        Ok(())
    }

    async fn nodes(&mut self, block: &ProposedBlock) -> Result<(), StoreError> {
        let wanted: Vec<_> = block.nodes.iter().map(|(tree, node)| (*tree, node.id())).collect();
        let read = self.store.nodes(&wanted).await;
        let Some(stored) = self.report.note(read)? else { return Ok(()) };
        for (tree, node) in &block.nodes {
            let (kind, what) = match stored.get(&(*tree, node.id())) {
                Some(hash) if *hash == node.hash => continue,
                Some(_) => (FindingKind::Altered, "the entries lead to another hash"),
                None => (FindingKind::Missing, "the entries complete it"),
            };
            let key = format!("{tree:?} level {} index {}", node.level, node.index);
            self.report.add(kind, "nodes", key, what);
        }
        Ok(())
    }

    /// Every thread's state.
    async fn threads(&mut self) -> Result<(), StoreError> {
        let (state, deriving) = (&self.state, self.deriving);
        let mut seen = HashSet::new();
        let mut findings = Vec::new();
        self.store
            .thread_rows(|row| match row {
                Err(error) => findings.push(Err(error)),
                Ok((id, thread)) => {
                    seen.insert(id);
                    match state.thread(&id) {
                        _ if !deriving => {}
                        None => findings.push(Ok((FindingKind::Extra, id, "no entry begins this thread"))),
                        Some(derived) if **derived == thread => {}
                        Some(_) => {
                            findings.push(Ok((
                                FindingKind::Altered,
                                id,
                                "the entries lead to another state",
                            )));
                        }
                    }
                }
            })
            .await?;
        for finding in findings {
            if let Some((kind, id, what)) = self.report.note(finding)? {
                self.report.add(kind, "threads", id, what);
            }
        }
        let missing: Vec<_> =
            self.state.threads().map(|(id, _)| *id).filter(|id| !seen.contains(id)).collect();
        for id in missing {
            self.report.add(FindingKind::Missing, "threads", id, "entries extend this thread");
        }
        Ok(())
    }

    /// Memberships, rows outside of everything, and the tables that the ledger does not bind.
    async fn beside(&mut self, next: Position) -> Result<(), StoreError> {
        let shards = (0..self.state.genesis.shard_count).map(|shard| TreeId::Shard(ShardId(shard)));
        let mut sizes = Vec::new();
        for tree in std::iter::once(TreeId::History).chain(shards) {
            sizes.push(match (self.deriving, tree) {
                (true, TreeId::History) => self.state.history.size(),
                (true, TreeId::Shard(shard)) => self.state.shards[usize::from(shard.0)].size(),
                (false, _) => u64::MAX,
            });
        }
        for (table, key) in self.store.outside(next, &sizes).await? {
            self.report.add(FindingKind::Extra, table, key, "the ledger ends before it");
        }
        let devices: HashMap<DeviceId, Hash> = self
            .state
            .threads()
            .filter_map(|(_, thread)| thread.account())
            .flat_map(|account| account.devices.iter().map(|device| (device.id, device.keys.mls)))
            .collect();
        let (mut rows, mut foreign, mut named) = (Vec::new(), HashSet::new(), HashSet::new());
        self.store
            .side_rows(|mut row| {
                // Judged at once: the packages of all devices are too much to keep.
                if let Ok(SideRow::KeyPackage { id, device, package }) = &mut row
                    && let (Some(package), Some(own)) = (package.take(), devices.get(device))
                    && key_package::signer(&package).all(|key| key != *own)
                {
                    foreign.insert(*id);
                }
                rows.push(row);
            })
            .await?;
        let mut mailboxes = std::mem::take(&mut self.mailboxes);
        for what in std::mem::take(&mut mailboxes.faults) {
            self.report.add(FindingKind::Altered, "memberships", "rule", what);
        }
        for row in rows {
            let Some(row) = self.report.note(row)? else { continue };
            if let SideRow::Name { account, .. } = &row {
                named.insert(*account);
            }
            // What depends on accounts and rosters can be judged only if they were derived to the end.
            if !self.deriving {
                continue;
            }
            let finding = match row {
                SideRow::Membership { member, thread, first, last } => {
                    match mailboxes.intervals.remove(&(member, thread, first)) {
                        Some(derived) if derived == last => None,
                        Some(_) => Some((
                            FindingKind::Altered,
                            "memberships",
                            format!("{}/{thread}/{first}", member.device),
                            "it ends elsewhere",
                        )),
                        None => Some((
                            FindingKind::Extra,
                            "memberships",
                            format!("{}/{thread}/{first}", member.device),
                            "no entry begins it",
                        )),
                    }
                }
                SideRow::Cursor { member, position } if !self.knows(&member) => Some((
                    FindingKind::Extra,
                    "cursors",
                    format!("{}/{position}", member.device),
                    "no such device",
                )),
                SideRow::Cursor { member, position } if position >= next => Some((
                    FindingKind::Altered,
                    "cursors",
                    format!("{}/{position}", member.device),
                    "it acknowledges entries that are not there",
                )),
                SideRow::KeyPackage { id, device, .. } if !devices.contains_key(&device) => {
                    Some((FindingKind::Extra, "key_packages", id.to_string(), "no such device"))
                }
                SideRow::KeyPackage { id, .. } if foreign.contains(&id) => {
                    Some((FindingKind::Altered, "key_packages", id.to_string(), "its device did not make it"))
                }
                SideRow::Name { account, tag, sealed } => match self.state.account(account) {
                    None => Some((FindingKind::Extra, "names", account.to_string(), "no such account")),
                    Some(known) => self
                        .names
                        .and_then(|judge| judge(known, &tag, &sealed).err())
                        .map(|why| (FindingKind::Altered, "names", account.to_string(), why)),
                },
                SideRow::Cursor { .. } | SideRow::KeyPackage { .. } => None,
            };
            if let Some((kind, table, key, what)) = finding {
                self.report.add(kind, table, key, what);
            }
        }
        if self.deriving {
            for ((member, thread, first), _) in mailboxes.intervals {
                let key = format!("{}/{thread}/{first}", member.device);
                self.report.add(FindingKind::Missing, "memberships", key, "an entry begins it");
            }
            self.unnamed(&named);
        }
        Ok(())
    }

    /// Accounts that have no name. One without any device may be what a crash left between the two: whoever invited was
    /// told of a failure, and the invitation was never given to anybody.
    fn unnamed(&mut self, named: &HashSet<AccountId>) {
        if self.names.is_none() {
            return;
        }
        let accounts = self.state.threads().filter_map(|(_, thread)| thread.account());
        let unnamed = |account: &&Account| !account.devices.is_empty() && !named.contains(&account.id);
        let missing: Vec<_> = accounts.filter(unnamed).map(|account| account.id).collect();
        for account in missing {
            self.report.add(FindingKind::Missing, "names", account, "the account has devices and no name");
        }
    }

    fn knows(&self, member: &Member) -> bool {
        self.state.account(member.account).is_some_and(|account| account.device(member.device).is_some())
    }
}

/// Judges an entry as a validator does and puts it into the block. Content that is gone is left out: the entry's hash
/// does not need it.
fn judge(
    state: &LedgerState,
    builder: &mut BlockBuilder<'_>,
    entry: &StoredEntry,
    attachments: Option<Vec<Attachment>>,
    backend: &dyn Backend,
) -> Result<(), String> {
    let (body, signature, possession) =
        (entry.body_bytes.clone(), entry.signature.clone(), entry.possession.clone());
    let submission = match attachments {
        Some(attachments) => {
            Submission::parse(body, signature, possession, attachments).map_err(|error| error.to_string())?
        }
        None => Submission {
            body: entry.body.clone(),
            body_bytes: body,
            signature,
            possession,
            attachments: Vec::new(),
        },
    };
    let signer = state.signer(&submission).map_err(|error| error.to_string())?;
    submission.verify(&signer, &state.keyring, backend).map_err(|error| error.to_string())?;
    builder.add(submission, entry.salt).map_err(|error| error.to_string())?;
    Ok(())
}

/// What an entry's row says otherwise than the entries before it lead to.
fn differences(stored: &StoredEntry, derived: &RecordedEntry) -> Vec<String> {
    let mut all = Vec::new();
    if stored.place != derived.item.position {
        all.push(format!("its place is {:?}, derived {:?}", stored.place, derived.item.position));
    }
    if stored.hash != derived.hash {
        all.push(format!("its hash is {}, derived {}", stored.hash, derived.hash));
    }
    if (stored.shard, stored.leaf) != (derived.shard, derived.leaf) {
        let (shard, leaf) = (derived.shard, derived.leaf);
        all.push(format!("it says leaf {} of shard {}, but is {leaf} of {shard}", stored.leaf, stored.shard));
    }
    all
}

fn other_fields(stored: &Header, derived: &Header) -> Vec<&'static str> {
    [
        ("version, suite, genesis or height", {
            (stored.version, stored.suite, stored.genesis, stored.height)
                == (derived.version, derived.suite, derived.genesis, derived.height)
        }),
        ("previous header", stored.previous == derived.previous),
        ("history root", stored.history == derived.history),
        ("shards root", stored.shards == derived.shards),
        ("map root", stored.map == derived.map),
        ("validator set", stored.validators == derived.validators),
        ("policy", stored.policy == derived.policy),
        ("time", stored.time == derived.time),
        ("number of entries", stored.entries == derived.entries),
    ]
    .into_iter()
    .filter(|(_, same)| !same)
    .map(|(field, _)| field)
    .collect()
}

/// Who is told of what, as the entries lead to it.
#[derive(Default)]
struct Mailboxes {
    intervals: BTreeMap<(Member, ThreadId, Position), Option<Position>>,
    open: HashMap<ThreadId, BTreeMap<Member, Position>>,
    faults: Vec<String>,
}

impl Mailboxes {
    fn apply(&mut self, block: &ProposedBlock, first: Position) {
        let accounts: HashMap<ThreadId, AccountId> =
            block.threads.iter().filter_map(|(id, thread)| Some((*id, thread.account()?.id))).collect();
        for (entry, position) in block.entries.iter().zip(first.0..) {
            let thread = entry.body.thread;
            let position = Position(position);
            let open = self.open.entry(thread).or_default();
            let changes = membership::changes(&entry.body, accounts.get(&thread).copied());
            let mut end = |open: &mut BTreeMap<Member, Position>, member: &Member, last: u64| {
                if let Some(first) = open.remove(member) {
                    self.intervals.insert((*member, thread, first), Some(Position(last)));
                }
            };
            for change in &changes {
                match change {
                    Change::Begin(member) => {
                        open.insert(*member, position);
                    }
                    Change::EndBefore(member) => end(open, member, position.0 - 1),
                    Change::EndAfter(_) => {}
                }
            }
            // The rule by which intervals are made has to say what the ledger says.
            if !entry.recipients.iter().eq(open.keys()) && !same_set(&entry.recipients, open) {
                self.faults.push(format!("position {position}: the ledger tells others of it"));
            }
            for change in &changes {
                if let Change::EndAfter(member) = change {
                    end(open, member, position.0);
                }
            }
            for change in changes {
                if let Change::Begin(member) = change {
                    self.intervals.entry((member, thread, position)).or_insert(None);
                }
            }
        }
    }
}

fn same_set(recipients: &[Member], open: &BTreeMap<Member, Position>) -> bool {
    recipients.len() == open.len() && recipients.iter().all(|member| open.contains_key(member))
}
