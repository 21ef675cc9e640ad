//! Every file of a ceremony in words: exactly what it says, and what of it was checked.

use crate::officer::{Failure, KeyFile};
use crate::report;
use std::collections::BTreeMap;
use zixt_ceremony::file::{self, FileError, Filed};
use zixt_ceremony::{
    CeremonyError, OfficerCard, OfficerRule, RecoveryRecord, RecoveryRequest, SealedShare, ShareRelease,
    describe_named, grouped, judge,
};
use zixt_crypto::{Reference, digest};
use zixt_types::{Action, Approval, Canonical as _, Genesis, Hash, Timestamp, Transcript, is_readable};

/// Names for hashes, from what the officer has at hand: a genesis and cards. Without them, hashes stand alone.
#[derive(Debug, Default)]
pub struct Names {
    names: BTreeMap<Hash, String>,
    /// The network, if its genesis was given.
    pub genesis: Option<Genesis>,
}

impl Names {
    /// The names of a genesis: the network and its officers.
    pub fn add_genesis(&mut self, genesis: Genesis) {
        self.names.insert(digest::genesis_hash(&genesis), text(&genesis.network));
        for officer in &genesis.officers {
            self.names.insert(officer.key, text(&officer.name));
        }
        self.genesis = Some(genesis);
    }

    /// The names of a card: the officer, and the officer's ML-KEM key.
    pub fn add_card(&mut self, card: &OfficerCard) {
        let holder = card.holder();
        self.names.insert(holder.kem, format!("ML-KEM key of {}", text(&card.name)));
        // What the network says counts more than what a card says.
        self.names.entry(holder.officer).or_insert_with(|| text(&card.name));
    }

    /// The name for a hash.
    #[must_use]
    pub fn of(&self, hash: &Hash) -> Option<String> {
        self.names.get(hash).cloned()
    }

    fn named(&self, hash: &Hash) -> String {
        let grouped = grouped(hash.as_ref());
        self.of(hash).map_or(grouped.clone(), |name| format!("{name}\n{grouped}"))
    }
}

/// Foreign text as it is, or with everything that hides written out.
fn text(text: &str) -> String {
    if is_readable(text, usize::MAX) { text.to_owned() } else { text.escape_default().to_string() }
}

/// A file in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What it is.
    pub kind: &'static str,
    /// Name and words, as [`zixt_ceremony::describe`].
    pub fields: Vec<(String, String)>,
    /// A text instead, for a genesis.
    pub text: Option<String>,
}

impl Shown {
    fn new(kind: &'static str, fields: Vec<(String, String)>) -> Self {
        Self { kind, fields, text: None }
    }
}

/// Shows a file, and checks of it what can be checked without the officer's key.
///
/// # Errors
/// It is no file of a ceremony, or what it says does not fit together.
pub fn show(bytes: &[u8], names: &Names, now: Timestamp) -> Result<Shown, Failure> {
    let is = |magic: &[u8; file::MAGIC_BYTES]| bytes.starts_with(magic);
    if is(Action::MAGIC) {
        let action = file::from_file::<Action>(bytes)?;
        return Ok(Shown::new(Action::WHAT, self::action(&action, names, now)));
    }
    if is(Transcript::MAGIC) {
        return transcript(&file::from_file(bytes)?, names, now);
    }
    if is(Approval::MAGIC) {
        let approval: Approval = file::from_file(bytes)?;
        let officer = digest::key_hash(approval.suite, &approval.public_key);
        let fields = vec![
            field("officer", names.named(&officer)),
            field("suite", approval.suite.name()),
            field("checked", "nothing: an approval is checked together with its action, by collect"),
        ];
        return Ok(Shown::new(Approval::WHAT, fields));
    }
    if is(OfficerCard::MAGIC) {
        let card: OfficerCard = file::from_file(bytes)?;
        card.verify(&Reference)?;
        return Ok(Shown::new(OfficerCard::WHAT, self::card(&card)));
    }
    if is(KeyFile::MAGIC) {
        let key_file = KeyFile::read(bytes)?;
        let mut fields = card(&key_file.card);
        let cost = format!(
            "Argon2id with {} MiB, {} passes, {} lanes",
            key_file.memory_kib / 1024,
            key_file.passes,
            key_file.lanes
        );
        fields.push(field("private keys", format!("sealed under a passphrase, {cost}")));
        return Ok(Shown::new(KeyFile::WHAT, fields));
    }
    if is(SealedShare::MAGIC) {
        return Ok(Shown::new(SealedShare::WHAT, share(&file::from_file(bytes)?, names)));
    }
    if is(RecoveryRecord::MAGIC) {
        return Ok(Shown::new(RecoveryRecord::WHAT, record(&file::from_file(bytes)?, names)));
    }
    if is(RecoveryRequest::MAGIC) {
        return request(&file::from_file(bytes)?, names, now);
    }
    if is(ShareRelease::MAGIC) {
        let release: ShareRelease = file::from_file(bytes)?;
        release.verify(&Reference)?;
        let fields = vec![
            field("officer", names.named(&release.officer())),
            field("share", release.index.to_string()),
            field("recovery key", grouped(release.recovery.as_ref())),
            field("for action", grouped(release.action.as_ref())),
            field("sealed to machine", grouped(release.recipient.as_ref())),
            field("checked", "the officer's signature"),
        ];
        return Ok(Shown::new(ShareRelease::WHAT, fields));
    }
    // A genesis has no magic: it is the network's own file.
    match Genesis::parse(bytes) {
        Ok(genesis) => {
            Ok(Shown { text: Some(report::describe(&genesis)), ..Shown::new(Genesis::WHAT, Vec::new()) })
        }
        Err(_) => Err(FileError::Other { expected: "file of a ceremony", found: None }.into()),
    }
}

fn field(name: &str, words: impl Into<String>) -> (String, String) {
    (name.to_owned(), words.into())
}

fn action(action: &Action, names: &Names, now: Timestamp) -> Vec<(String, String)> {
    let mut fields = describe_named(action, &|hash| names.of(hash));
    if now > action.expires_at {
        fields.push(field("NOTE", format!("it has EXPIRED: the clock here says {}", now.utc())));
    }
    if names.genesis.as_ref().is_some_and(|genesis| digest::genesis_hash(genesis) != action.genesis) {
        fields.push(field("NOTE", "it is for ANOTHER NETWORK than the genesis given"));
    }
    fields
}

fn transcript(transcript: &Transcript, names: &Names, now: Timestamp) -> Result<Shown, Failure> {
    let action = Action::parse(&transcript.action).map_err(CeremonyError::from)?;
    let mut fields = self::action(&action, names, now);
    for (number, approval) in transcript.approvals.iter().enumerate() {
        let officer = digest::key_hash(approval.suite, &approval.public_key);
        fields.push(field(&format!("approval {}", number + 1), names.named(&officer)));
    }
    let checked = match &names.genesis {
        None => "nothing: give --genesis to check the approvals".to_owned(),
        Some(genesis) => {
            let (rule, network) = (OfficerRule::of(genesis), digest::genesis_hash(genesis));
            let approved = judge(&transcript.to_bytes(), &rule, network, &Reference)?;
            format!("APPROVED by {} officers; {} are required", approved.officers().len(), rule.required)
        }
    };
    fields.push(field("checked", checked));
    Ok(Shown::new(Transcript::WHAT, fields))
}

fn card(card: &OfficerCard) -> Vec<(String, String)> {
    let holder = card.holder();
    vec![
        field("name", text(&card.name)),
        field("suite", card.suite.name()),
        field("approval key", grouped(holder.officer.as_ref())),
        field("ML-KEM key", grouped(holder.kem.as_ref())),
        field("checked", "the card is signed by its approval key; whose it is, ask the person"),
    ]
}

fn share(share: &SealedShare, names: &Names) -> Vec<(String, String)> {
    vec![
        field("holder", names.named(&share.officer)),
        field("holder's ML-KEM key", names.named(&share.kem)),
        field("share", format!("number {}; any {} give the recovery key back", share.index, share.threshold)),
        field("recovery key", grouped(share.recovery.as_ref())),
        field("network", names.named(&share.genesis)),
        field("appliance", grouped(share.appliance.as_ref())),
    ]
}

fn record(record: &RecoveryRecord, names: &Names) -> Vec<(String, String)> {
    let mut fields = vec![
        field("recovery key", grouped(record.id().as_ref())),
        field("shares", format!("any {} of {} give the key back", record.threshold(), record.shares.len())),
    ];
    for share in &record.shares {
        fields.push(field(&format!("holder of share {}", share.index), names.named(&share.officer)));
    }
    if let Some(share) = record.shares.first() {
        fields.push(field("network", names.named(&share.genesis)));
        fields.push(field("appliance", grouped(share.appliance.as_ref())));
    }
    fields
}

fn request(request: &RecoveryRequest, names: &Names, now: Timestamp) -> Result<Shown, Failure> {
    let action = request.action().map_err(CeremonyError::from)?;
    let mut fields = self::action(&action, names, now);
    fields.extend(record(&request.record, names).into_iter().take(2 + request.record.shares.len()));
    fields.push(field(
        "checked",
        "the machine's key is the one that the action names; whose machine it is, compare",
    ));
    Ok(Shown::new(RecoveryRequest::WHAT, fields))
}
