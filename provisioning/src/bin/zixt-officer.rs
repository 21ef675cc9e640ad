//! `zixt-officer`: the security officer's tool. Works offline, on files; it shows what it signs and signs what it shows.

use clap::{Args, Parser, Subcommand};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use zixt_ceremony::file::{self, FileError, Filed};
use zixt_ceremony::{
    CeremonyError, OfficerCard, OfficerRule, RecoveryError, RecoveryRecord, RecoveryRequest, SealedShare,
    Share, action_hash, approve, assemble, describe_text, judge, release,
};
use zixt_crypto::password::Params;
use zixt_crypto::{Backend, Reference, digest, fill_random, selftest};
use zixt_measured::{NONCE_BYTES, Profile, nonce_from_hex};
use zixt_provisioning::officer::{
    Exit, Failure, KeyFile, Names, OfficerKey, Shown, approve_registers, check_quote, code, confirm,
    describe_registers, make_image_key, modules, new_passphrase, passphrase, read, read_registers, read_text,
    show, words_table, write_new,
};
use zixt_types::{Action, Approval, Canonical as _, Genesis, Hash, SuiteId, Timestamp, Transcript};

#[derive(Parser)]
#[command(
    version,
    about = "The security officer's tool: keys, approvals and recovery shares, offline",
    after_help = Exit::table()
)]
struct Arguments {
    /// Print JSON; failures go to the standard error output, as JSON too.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make your keys: a key file, sealed under a passphrase, and your public card.
    Keygen {
        /// Your name as ceremonies show it.
        #[arg(long)]
        name: String,
        /// standard (ML-DSA-65) or cnsa (ML-DSA-87): the network's suite.
        #[arg(long, default_value = "standard", value_parser = suite)]
        suite: SuiteId,
        /// The key file to write. The card is written beside it, with the ending .zixt-officer.
        #[arg(short, long)]
        out: PathBuf,
        /// A file with the new passphrase in its first line, instead of asking.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
    /// Your public card, which others need.
    #[command(subcommand)]
    Card(CardCommand),
    /// Show any file of a ceremony in words: exactly what it says.
    Show {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        known: Known,
    },
    /// Show an action, ask, and sign its approval.
    Approve {
        /// The action, or the recovery request that holds one.
        action: PathBuf,
        /// The approval to write.
        #[arg(short, long)]
        out: PathBuf,
        /// Approve without asking. For scripts: you have read the action before.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        own: Own,
        #[command(flatten)]
        known: Known,
    },
    /// Put approvals of one action together, and say how many there are.
    Collect {
        /// The action, or the recovery request that holds one.
        action: PathBuf,
        /// The approvals.
        #[arg(required = true)]
        approvals: Vec<PathBuf>,
        /// The transcript to write.
        #[arg(short, long)]
        out: PathBuf,
        #[command(flatten)]
        known: Known,
    },
    /// Your share of the recovery key.
    #[command(subcommand)]
    Share(ShareCommand),
    /// For whoever signs images: approve what TPMs will have measured once an image runs.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Check what a machine says it started, by its TPM's quote.
    #[command(subcommand)]
    Quote(QuoteCommand),
}

#[derive(Subcommand)]
enum QuoteCommand {
    /// A fresh nonce, for `zixt-hsm quote` on the machine. Use each once.
    Nonce,
    /// Check a quote against your nonce, an earlier quote of the same machine, and what it should have started.
    Check {
        /// What `zixt-hsm quote` wrote.
        file: PathBuf,
        /// The nonce that you gave.
        #[arg(long, value_parser = nonce)]
        nonce: [u8; NONCE_BYTES],
        /// The quote that you took when the machine was provisioned.
        #[arg(long)]
        reference: Option<PathBuf>,
        /// What the registers should hold, if not what the reference says.
        #[arg(long)]
        registers: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ImageCommand {
    /// Make the key whose approvals appliances take: a key file, sealed under a passphrase, and its public half.
    Keygen {
        /// p384, or p256 for TPMs that have no larger curve (`zixt-hsm doctor` tells).
        #[arg(long, default_value = "p384", value_parser = curve)]
        curve: Profile,
        /// The key file to write. The public key is written beside it, with the ending .policy-key.
        #[arg(short, long)]
        out: PathBuf,
        /// A file with the new passphrase in its first line, instead of asking.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
    /// Show what registers will hold, ask, and sign the approval.
    Approve {
        /// A text: `11 = VALUE`, `11 + DIGEST` for each measured event in its order, or what tpm2_pcrread prints.
        registers: PathBuf,
        /// The approval to write; its name ends with .approval.
        #[arg(short, long)]
        out: PathBuf,
        /// The image key's file.
        #[arg(long, env = "ZIXT_IMAGE_KEY")]
        key: PathBuf,
        /// A file with its passphrase in the first line, mode 0600, instead of asking.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
        /// Approve without asking. For scripts: you have compared the values before.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
enum CardCommand {
    /// Show a card, or the one in a key file.
    Show {
        /// The card or key file.
        file: PathBuf,
        /// Write the card to this file.
        #[arg(short, long)]
        out: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ShareCommand {
    /// Open your share and print it for paper: words, and a QR code. Whoever sees it has your share.
    Show {
        /// The sealed share, the recovery record, or a recovery request.
        file: PathBuf,
        #[command(flatten)]
        own: Own,
    },
    /// Compare your sheet of paper with the share that it should be.
    Check {
        /// The sealed share, the recovery record, or a recovery request.
        file: PathBuf,
        /// A file with the words or the text of the QR code; `-` is the standard input.
        #[arg(long)]
        words_file: PathBuf,
    },
    /// Show a recovery, ask, and release your share to the machine that recovers, and to no other.
    Release {
        /// The recovery request.
        request: PathBuf,
        /// The released share to write.
        #[arg(short, long)]
        out: PathBuf,
        /// Take the share from paper: a file with the words or the text of the QR code; `-` is the standard input.
        #[arg(long)]
        words_file: Option<PathBuf>,
        /// Release without asking. For scripts: you have read the request before.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        own: Own,
        #[command(flatten)]
        known: Known,
    },
}

/// The officer's own key.
#[derive(Args)]
struct Own {
    /// Your key file.
    #[arg(long, env = "ZIXT_OFFICER_KEY")]
    key: PathBuf,
    /// A file with its passphrase in the first line, mode 0600, instead of asking.
    #[arg(long)]
    passphrase_file: Option<PathBuf>,
}

/// What the officer knows beforehand, and compares with.
#[derive(Args)]
struct Known {
    /// The network's genesis file: refuses other networks and people who are no officers, and gives names.
    #[arg(long)]
    genesis: Option<PathBuf>,
    /// Officers' cards: give names to their keys.
    #[arg(long)]
    card: Vec<PathBuf>,
}

fn suite(name: &str) -> Result<SuiteId, String> {
    SuiteId::from_name(name).ok_or_else(|| "the suites are standard and cnsa".to_owned())
}

fn nonce(text: &str) -> Result<[u8; NONCE_BYTES], String> {
    nonce_from_hex(text).ok_or_else(|| format!("a nonce has {} hexadecimal digits", 2 * NONCE_BYTES))
}

fn curve(name: &str) -> Result<Profile, String> {
    match name {
        "p384" => Ok(Profile::P384),
        "p256" => Ok(Profile::P256),
        _ => Err("the curves are p384 and p256".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _nowhere_to_tell = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    // Keys are in this memory: no core file, and no other process of this user reads it. A machine that cannot do that
    // is no reason to stop.
    let _as_far_as_possible = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _as_far_as_possible = prctl::set_dumpable(false);
    let json = arguments.json;
    match run(arguments.command, &Output { json }, &Reference) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if json {
                tell(&mut std::io::stderr(), &format!("{}\n", failure.to_json()));
            } else {
                tell(&mut std::io::stderr(), &format!("zixt-officer: {failure}\n"));
            }
            failure.exit.into()
        }
    }
}

/// Where words and results go.
struct Output {
    json: bool,
}

/// Prints. A reader that went away, as `head` does, is no reason to fail: what was to be written is written.
fn tell(out: &mut dyn std::io::Write, text: &str) {
    let _nobody_reads = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

impl Output {
    /// What the officer reads before deciding: never mixed with a result for a script.
    fn words(&self, text: &str) {
        if self.json { tell(&mut std::io::stderr(), text) } else { tell(&mut std::io::stdout(), text) }
    }

    fn result(&self, document: &Value, text: &str) {
        let text = if self.json { document.to_string() } else { text.to_owned() };
        tell(&mut std::io::stdout(), &(text + "\n"));
    }
}

/// Performs a command. `backend` is what everything here computes with; it is tried before anything is read or asked.
fn run(command: Command, output: &Output, backend: &dyn Backend) -> Result<Exit, Failure> {
    selftest::run(backend)?;
    match command {
        Command::Keygen { name, suite, out, passphrase_file } => {
            keygen(&name, suite, &out, passphrase_file.as_deref(), output)?;
        }
        Command::Card(CardCommand::Show { file, out }) => card_show(&file, out.as_deref(), output)?,
        Command::Show { file, known } => {
            let shown =
                show(&read(&file)?, &known.names()?, now()).map_err(|failure| failure.about(&file))?;
            output.result(&document(&shown), text(&shown).trim_end());
        }
        Command::Approve { action, out, yes, own, known } => {
            approve_action(&action, &out, yes, &own, &known, output)?;
        }
        Command::Collect { action, approvals, out, known } => {
            return collect(&action, &approvals, &out, &known, output);
        }
        Command::Share(ShareCommand::Show { file, own }) => share_show(&file, &own, output)?,
        Command::Share(ShareCommand::Check { file, words_file }) => {
            let share = Shares::read(&file)?.share_from_paper(&read_text(&words_file)?)?;
            output.result(
                &json!({ "share": share.index(), "recovery": share.recovery().to_hex(), "right": true }),
                &format!("The sheet is right: it is share {}.", share.index()),
            );
        }
        Command::Share(ShareCommand::Release { request, out, words_file, yes, own, known }) => {
            share_release(&request, &out, words_file.as_deref(), yes, &own, &known, output)?;
        }
        Command::Quote(QuoteCommand::Nonce) => {
            let mut nonce = [0; NONCE_BYTES];
            fill_random(&mut nonce).map_err(|error| Failure::new(Exit::Internal, error.to_string(), ""))?;
            let digits: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
            output.result(&json!({ "nonce": digits }), &digits);
        }
        Command::Quote(QuoteCommand::Check { file, nonce, reference, registers }) => {
            let (document, words) = check_quote(&file, &nonce, reference.as_deref(), registers.as_deref())?;
            output.result(&document, &words);
        }
        Command::Image(ImageCommand::Keygen { curve, out, passphrase_file }) => {
            let passphrase = new_passphrase(passphrase_file.as_deref())?;
            let (document, words) = make_image_key(curve, &passphrase, &out)?;
            output.result(&document, &words);
        }
        Command::Image(ImageCommand::Approve { registers, out, key, passphrase_file, yes }) => {
            let values = read_registers(&registers)?;
            output.words(&describe_registers(&values));
            if !yes {
                confirm("\nApprove exactly these values?")?;
            }
            let passphrase = passphrase(passphrase_file.as_deref())?;
            let (document, words) = approve_registers(values, &key, &passphrase, &out)?;
            output.result(&document, &words);
        }
    }
    Ok(Exit::Ok)
}

fn keygen(
    name: &str,
    suite: SuiteId,
    out: &Path,
    passphrase_file: Option<&Path>,
    output: &Output,
) -> Result<(), Failure> {
    let card_path = out.with_extension(OfficerCard::EXTENSION);
    if card_path == out {
        return Err(Failure::new(
            Exit::Usage,
            format!("{} would be key file and card at once", out.display()),
            format!("Let the key file's name end with .{}.", KeyFile::EXTENSION),
        ));
    }
    let key = OfficerKey::generate(name, suite)?;
    let passphrase = new_passphrase(passphrase_file)?;
    write_new(out, &key.seal(&passphrase, Params::DEFAULT)?)?;
    write_new(&card_path, &file::to_file(key.card()))?;
    let holder = key.card().holder();
    let shown = show(&file::to_file(key.card()), &Names::default(), now())?;
    output.result(
        &json!({
            "name": name,
            "suite": suite.name(),
            "officer": holder.officer.to_hex(),
            "kem": holder.kem.to_hex(),
            "key": out,
            "card": card_path,
        }),
        &format!(
            "{}\nThe key file is {}: copy it to a second medium, and keep both.\n\
             The card is {}: give it away, and compare the two keys in person.",
            text(&shown),
            out.display(),
            card_path.display()
        ),
    );
    Ok(())
}

fn card_show(path: &Path, out: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let bytes = read(path)?;
    let card = if bytes.starts_with(KeyFile::MAGIC) {
        KeyFile::read(&bytes).map_err(|error| Failure::from(error).about(path))?.card
    } else {
        card(path)?
    };
    let card_file = file::to_file(&card);
    let shown = show(&card_file, &Names::default(), now())?;
    if let Some(out) = out {
        write_new(out, &card_file)?;
    }
    output.result(&document(&shown), text(&shown).trim_end());
    Ok(())
}

fn approve_action(
    path: &Path,
    out: &Path,
    yes: bool,
    own: &Own,
    known: &Known,
    output: &Output,
) -> Result<(), Failure> {
    let (action, bytes) = read_action(path)?;
    let names = known.names()?;
    let key_file = own.read()?;
    let officer = key_file.card.officer();
    output.words(&text(&show(&bytes, &names, now())?));
    in_time(&action)?;
    for_network(&action, &names, Some(officer))?;
    if !yes {
        confirm(&format!("\nApprove this as {}?", key_file.card.name))?;
    }
    let key = own.open(&key_file)?;
    let approval = approve(&action.to_bytes(), key.signing())
        .map_err(|error| Failure::new(Exit::Internal, error.to_string(), ""))?;
    write_new(out, &file::to_file(&approval))?;
    output.result(
        &json!({ "action": action_hash(&action).to_hex(), "officer": officer.to_hex(), "approval": out }),
        &format!("Approved: {}", out.display()),
    );
    Ok(())
}

fn collect(
    path: &Path,
    approvals: &[PathBuf],
    out: &Path,
    known: &Known,
    output: &Output,
) -> Result<Exit, Failure> {
    let (action, _) = read_action(path)?;
    let names = known.names()?;
    in_time(&action)?;
    for_network(&action, &names, None)?;
    let bytes = action.to_bytes();
    let mut read_approvals = Vec::new();
    for path in approvals {
        let about = |failure: Failure| failure.about(path);
        let approval = file::from_file::<Approval>(&read(path)?).map_err(|error| about(error.into()))?;
        // Alone first, so that a bad one is named with its file.
        assemble(&bytes, vec![approval.clone()], &Reference).map_err(|error| about(error.into()))?;
        read_approvals.push(approval);
    }
    let transcript = assemble(&bytes, read_approvals, &Reference)?;
    let count = transcript.approvals.len();
    let rule = names.genesis.as_ref().map(OfficerRule::of);
    let judged = rule.as_ref().map(|rule| judge(&transcript.to_bytes(), rule, action.genesis, &Reference));
    let (approved, too_few) = match judged {
        None => (None, None),
        Some(Ok(_)) => (Some(true), None),
        Some(Err(error @ CeremonyError::TooFew { .. })) => (Some(false), Some(error)),
        Some(Err(error)) => return Err(error.into()),
    };
    write_new(out, &file::to_file::<Transcript>(&transcript))?;
    let required = rule.map(|rule| rule.required);
    let words = match (required, &too_few) {
        (None, _) => format!(
            "{count} good approval(s): {}\nHow many are required and who may approve, the network says: give --genesis.",
            out.display()
        ),
        (Some(required), None) => {
            format!("Approved by {count} officer(s), {required} required: {}", out.display())
        }
        (Some(required), Some(_)) => {
            format!("{count} of the {required} officers required approved so far: {}", out.display())
        }
    };
    output.result(
        &json!({
            "action": action_hash(&action).to_hex(),
            "approvals": count,
            "required": required,
            "approved": approved,
            "transcript": out,
        }),
        &words,
    );
    Ok(if too_few.is_some() { Exit::TooFew } else { Exit::Ok })
}

fn share_show(path: &Path, own: &Own, output: &Output) -> Result<(), Failure> {
    let key_file = own.read()?;
    let sealed = Shares::read(path)?.of(&key_file)?;
    let share = sealed.open(own.open(&key_file)?.opening())?;
    let (words, code_text) = (share.to_words(), share.to_code());
    // Text that holds the share is erased where it is made; what the standard library buffers is not.
    let mut out = std::io::stdout();
    if output.json {
        let document = json!({
            "share": share.index(),
            "threshold": share.threshold(),
            "recovery": share.recovery().to_hex(),
            "words": &*words,
            "code": &*code_text,
        });
        tell(&mut out, &format!("{document}\n"));
        return Ok(());
    }
    tell(&mut out, "Whoever has this sheet has the share.\n\n");
    tell(&mut out, &text(&show(&file::to_file(&sealed), &Names::default(), now())?));
    tell(&mut out, "\n");
    tell(&mut out, &words_table(&words));
    tell(&mut out, "\n");
    if let Some(modules) = modules(&code_text) {
        let terminal = out.is_terminal();
        tell(&mut out, &code(&modules, terminal));
    }
    tell(
        &mut out,
        "\nCopy the words by hand, check the sheet with `zixt-officer share check`, and clear this screen.\n",
    );
    Ok(())
}

fn share_release(
    path: &Path,
    out: &Path,
    words_file: Option<&Path>,
    yes: bool,
    own: &Own,
    known: &Known,
    output: &Output,
) -> Result<(), Failure> {
    let bytes = read(path)?;
    let request =
        file::from_file::<RecoveryRequest>(&bytes).map_err(|error| Failure::from(error).about(path))?;
    let action = request.action().map_err(CeremonyError::from)?;
    let names = known.names()?;
    let key_file = own.read()?;
    output.words(&text(&show(&bytes, &names, now())?));
    in_time(&action)?;
    for_network(&action, &names, None)?;
    if !yes {
        confirm(&format!("\nRelease the share of {} to this machine?", key_file.card.name))?;
    }
    let key = own.open(&key_file)?;
    let share = match words_file {
        Some(words) => request.record.share_from_paper(&read_text(words)?)?,
        None => Shares::Record(Box::new(request.record.clone())).of(&key_file)?.open(key.opening())?,
    };
    let released = release(&share, &request, key.signing())?;
    write_new(out, &file::to_file(&released))?;
    output.result(
        &json!({
            "action": action_hash(&action).to_hex(),
            "officer": released.officer().to_hex(),
            "share": share.index(),
            "release": out,
        }),
        &format!("Share {} released: {}", share.index(), out.display()),
    );
    Ok(())
}

impl Own {
    fn read(&self) -> Result<KeyFile, Failure> {
        KeyFile::read(&read(&self.key)?).map_err(|error| Failure::from(error).about(&self.key))
    }

    fn open(&self, key_file: &KeyFile) -> Result<OfficerKey, Failure> {
        let passphrase = passphrase(self.passphrase_file.as_deref())?;
        key_file.open(&passphrase).map_err(|error| Failure::from(error).about(&self.key))
    }
}

impl Known {
    fn names(&self) -> Result<Names, Failure> {
        let mut names = Names::default();
        if let Some(path) = &self.genesis {
            let genesis = Genesis::parse(&read(path)?).map_err(|error| {
                Failure::new(Exit::Usage, error.to_string(), "Give the network's genesis file.").about(path)
            })?;
            names.add_genesis(genesis);
        }
        for path in &self.card {
            names.add_card(&card(path)?);
        }
        Ok(names)
    }
}

/// A file that holds one or all sealed shares.
enum Shares {
    One(Box<SealedShare>),
    Record(Box<RecoveryRecord>),
}

impl Shares {
    fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = read(path)?;
        let shares = if bytes.starts_with(RecoveryRecord::MAGIC) {
            file::from_file(&bytes).map(|record| Self::Record(Box::new(record)))
        } else if bytes.starts_with(RecoveryRequest::MAGIC) {
            file::from_file::<RecoveryRequest>(&bytes).map(|request| Self::Record(Box::new(request.record)))
        } else {
            file::from_file(&bytes).map(|share| Self::One(Box::new(share)))
        };
        shares.map_err(|error| Failure::from(error).about(path))
    }

    /// The share of the officer with this key file.
    fn of(self, key_file: &KeyFile) -> Result<SealedShare, Failure> {
        let officer = key_file.card.officer();
        match self {
            Self::One(share) => Ok(*share),
            Self::Record(record) => record.share_of(&officer).cloned().ok_or_else(|| {
                let what = format!("{} holds no share of this recovery key", key_file.card.name);
                Failure::new(Exit::Refused, what, "`zixt-officer show` tells who holds one.")
            }),
        }
    }

    fn share_from_paper(&self, text: &str) -> Result<Share, RecoveryError> {
        match self {
            Self::One(share) => share.share_from_paper(text),
            Self::Record(record) => record.share_from_paper(text),
        }
    }
}

/// The action of an action file or a recovery request, and the whole file for showing.
fn read_action(path: &Path) -> Result<(Action, Vec<u8>), Failure> {
    let bytes = read(path)?;
    let action = if bytes.starts_with(RecoveryRequest::MAGIC) {
        file::from_file::<RecoveryRequest>(&bytes)
            .and_then(|request| request.action().map_err(FileError::from))
    } else {
        file::from_file(&bytes)
    };
    Ok((action.map_err(|error| Failure::from(error).about(path))?, bytes))
}

fn card(path: &Path) -> Result<OfficerCard, Failure> {
    let about = |failure: Failure| failure.about(path);
    let card: OfficerCard = file::from_file(&read(path)?).map_err(|error| about(error.into()))?;
    card.verify(&Reference).map_err(|error| about(error.into()))?;
    Ok(card)
}

fn in_time(action: &Action) -> Result<(), Failure> {
    let (expires_at, now) = (action.expires_at, now());
    if now > expires_at {
        return Err(CeremonyError::Expired { expires_at, now }.into());
    }
    Ok(())
}

/// Whether the action is for the network of the genesis, if one was given, and its signer an officer there.
fn for_network(action: &Action, names: &Names, signer: Option<Hash>) -> Result<(), Failure> {
    let Some(genesis) = &names.genesis else { return Ok(()) };
    let expected = digest::genesis_hash(genesis);
    if action.genesis != expected {
        return Err(CeremonyError::OtherNetwork { expected, got: action.genesis }.into());
    }
    match signer {
        Some(key) if !genesis.officers.iter().any(|officer| officer.key == key) => {
            Err(CeremonyError::NotAnOfficer { key }.into())
        }
        _ => Ok(()),
    }
}

fn text(shown: &Shown) -> String {
    match &shown.text {
        Some(text) => text.clone(),
        None => format!("{}\n{}", shown.kind, describe_text(&shown.fields)),
    }
}

fn document(shown: &Shown) -> Value {
    let fields: Vec<Value> =
        shown.fields.iter().map(|(name, words)| json!({ "name": name, "words": words })).collect();
    match &shown.text {
        Some(text) => json!({ "kind": shown.kind, "text": text }),
        None => json!({ "kind": shown.kind, "fields": fields }),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::testing::Broken;

    #[test]
    fn a_failed_self_test_stops_before_anything_is_read() {
        let known = || Known { genesis: None, card: Vec::new() };
        let show = || Command::Show { file: PathBuf::from("there is no such file"), known: known() };
        let run = |backend: &dyn Backend| run(show(), &Output { json: false }, backend).unwrap_err();
        let failure = run(&Broken);
        assert_eq!(failure.exit, Exit::Internal);
        assert!(failure.what.starts_with("self-test of backend broken failed: ML-DSA-65"), "{failure}");
        // The control: otherwise the file is looked for.
        assert_eq!(run(&Reference).exit, Exit::File);
    }
}
