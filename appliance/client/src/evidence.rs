//! Evidence for others: proofs from the appliance, what was said from the store, and the verifier's word before
//! anything is written.

use crate::engine::Engine;
use crate::error::ClientError;
use crate::records::{self, EntryRecord, LineRecord, MessageRecord};
use crate::store::Space;
use crate::trust::{TrustError, VerifiedHeader};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use zixt_api::{AccountView, EntryProof, HeadProof};
use zixt_crypto::{Keyring, digest};
use zixt_ledger::evidence::{
    AccountName, Anchor, BuildError, Disclosure, Evidence, EvidenceBuilder, EvidenceEntry, Fault, LeafProof,
    Signature, ThreadEvidence, Verdict,
};
use zixt_ledger::map::MapProof;
use zixt_types::{
    AccountId, Author, Body, Canonical as _, Hash, Head, Height, Payload, Salt, Seq, SuiteId, ThreadId,
};

/// How often proofs are collected anew because the ledger moved on between two of them.
const TRIES: usize = 50;

/// Proofs under one header.
struct Proofs {
    header: VerifiedHeader,
    accounts: Vec<(AccountId, AccountView)>,
    /// What the entries are proven by.
    anchor: AnchorProof,
    /// Of the system thread's head, where the evidence needs the officers' decisions.
    system: Option<MapProof>,
}

/// Of one message its place in the ledger. Of a whole conversation its end: that is for members only, and not for who was
/// removed.
enum AnchorProof {
    Leaf(EntryProof),
    Head(HeadProof),
}

impl AnchorProof {
    const fn certified(&self) -> &zixt_api::CertifiedHeader {
        match self {
            Self::Leaf(proof) => &proof.certified,
            Self::Head(proof) => &proof.certified,
        }
    }
}

impl Engine {
    /// Makes evidence of one message or the whole conversation, verified.
    pub async fn evidence(
        &mut self,
        thread: ThreadId,
        seq: Option<Seq>,
        with_content: bool,
    ) -> Result<Evidence, ClientError> {
        let (stored, proofs) = self.material(thread, seq).await?;
        let mut keyring = Keyring::clone(&self.ledger.checker.keyring);
        for (_, view) in &proofs.accounts {
            for key in &view.keys {
                if let Ok(suite) = SuiteId::try_from(key.suite) {
                    keyring.insert(suite, &key.key.0);
                }
            }
        }
        let genesis = (*self.ledger.checker.genesis).clone();
        let header = proofs.header;
        let certificate = header.certificate.clone();
        let mut builder = EvidenceBuilder::new(genesis, header.header.clone(), certificate, keyring);
        if let (Some(decisions), Some(head)) = (self.ledger.system_evidence(), proofs.system) {
            builder = builder.system(decisions, head);
        }
        for (account, view) in &proofs.accounts {
            self.ledger.account(&self.core.api.clone(), *account, view, &header).await?;
            let account_thread = digest::account_thread(*account);
            let (map, _) = self.ledger.checker.head(account_thread, &view.proof, &header)?;
            let mut entries = Vec::with_capacity(view.entries.len());
            for entry in &view.entries {
                let entry = self.ledger.checker.entry(entry)?;
                entries.push(EvidenceEntry {
                    body: entry.body_bytes,
                    signature: Signature::Full(entry.signature),
                    possession: entry.possession.map(Signature::Full),
                    position: entry.position,
                    envelope: None,
                    disclosure: None,
                });
            }
            builder = builder.account(*account, entries, map);
            // Whoever gets evidence has to learn who said it.
            let known = self.core.account(*account).await?.and_then(|record| record.name);
            if let Some((name, salt)) = known {
                builder = builder.name(*account, AccountName { name, salt });
            }
        }
        let anchor = match (&proofs.anchor, stored.last()) {
            (AnchorProof::Leaf(proof), Some(last)) => {
                // At which height it was recorded does not matter.
                let place = (&last.position, &last.salt, &last.hash, Height(0));
                let shard = self.ledger.checker.recorded(thread, place, proof, &header)?;
                Anchor::Leaf(leaf_proof(proof, last.salt, shard))
            }
            (AnchorProof::Leaf(_), None) => return Err(ClientError::UnknownThread(thread)),
            (AnchorProof::Head(proof), _) => {
                Anchor::Head(self.ledger.checker.head(thread, proof, &header)?.0)
            }
        };
        let mut entries = Vec::with_capacity(stored.len());
        for entry in stored {
            entries.push(self.evidence_entry(thread, entry, seq, with_content).await?);
        }
        builder.finish(ThreadEvidence { thread, entries, anchor }, &*self.core.backend).map_err(
            |BuildError::WouldFail(report)| {
                let is_own = report
                    .verdicts()
                    .iter()
                    .flat_map(|(_, verdict)| verdict.findings())
                    .all(|finding| is_own_fault(&finding.fault));
                let failed: Vec<String> = report
                    .verdicts()
                    .iter()
                    .filter_map(|(name, verdict)| match verdict {
                        Verdict::Failed(findings) => {
                            let faults: Vec<String> =
                                findings.iter().map(|finding| finding.fault.to_string()).collect();
                            Some(format!("{name}: {}", faults.join("; ")))
                        }
                        _ => None,
                    })
                    .collect();
                let failed = failed.join(", ");
                if is_own { ClientError::Evidence(failed) } else { TrustError::Evidence(failed).into() }
            },
        )
    }

    /// The entries that the evidence is about, and proofs of them. Of a whole conversation these are all that the
    /// ledger certifies, or it is a fault.
    async fn material(
        &mut self,
        thread: ThreadId,
        seq: Option<Seq>,
    ) -> Result<(Vec<EntryRecord>, Proofs), ClientError> {
        let mut announced = None;
        for _ in 0..TRIES {
            let record = self.core.thread(thread).await?.ok_or(ClientError::UnknownThread(thread))?;
            // Where the others are is not for who was removed, so that nobody could prove that it is all.
            if record.removed && seq.is_none() {
                return Err(ClientError::Removed);
            }
            if !record.removed && record.blocked.is_none() {
                self.catch_up(thread, announced).await?;
            }
            let stored = self.entries_for(thread, seq).await?;
            let authors: BTreeSet<AccountId> = stored
                .iter()
                .filter_map(|entry| match Body::parse(&entry.body).ok()?.author {
                    Author::Device(member) => Some(member.account),
                    _ => None,
                })
                .collect();
            let proofs = self.proofs(thread, seq, &authors).await?;
            let AnchorProof::Head(head) = &proofs.anchor else { return Ok((stored, proofs)) };
            let (_, certified) = self.ledger.checker.head(thread, head, &proofs.header)?;
            let last = stored.last().map(|entry| Head { seq: entry.position.seq, hash: entry.hash });
            if certified == last {
                return Ok((stored, proofs));
            }
            announced = certified.map(|head| head.seq);
            let known = last.map(|head| head.seq);
            if announced <= known {
                // What this device has verified is not there any more: in an older ledger, or in this one.
                let (seq, got) = (known.unwrap_or_default(), proofs.header.height());
                let tip = self.ledger.tip().map(|tip| tip.height()).filter(|tip| *tip > got);
                return Err(tip
                    .map_or(TrustError::BrokenChain(seq), |known| TrustError::WentBack { known, got })
                    .into());
            }
            // Somebody wrote meanwhile, or it is withheld. The next round knows which.
            if let Some(why) = record.blocked {
                return Err(ClientError::Blocked(why));
            }
        }
        Err(ClientError::Moving)
    }

    async fn evidence_entry(
        &self,
        thread: ThreadId,
        entry: EntryRecord,
        seq: Option<Seq>,
        with_content: bool,
    ) -> Result<EvidenceEntry, ClientError> {
        let (mut disclosure, mut envelope) = (None, None);
        let place = entry.position.seq;
        if with_content {
            let bytes = self.core.store.get(Space::Message, &self.core.place_key(thread, place)).await?;
            if let Some(bytes) = bytes {
                let message: MessageRecord = records::decode(Space::Message, &bytes)?;
                if let LineRecord::Text(it) | LineRecord::Title(it) = message.line {
                    disclosure = Some(Disclosure { content: it.content, k: it.k });
                }
            }
            if disclosure.is_some() {
                envelope = self.fetch_attachment(thread, place, 0).await?;
                if let (Some(got), Ok(body)) = (&envelope, Body::parse(&entry.body))
                    && let Payload::Message { envelope: recorded, .. } = body.payload
                    && digest::envelope_digest(got) != recorded
                {
                    return Err(TrustError::OtherEntry(place).into());
                }
            } else if seq.is_some() {
                return Err(ClientError::NoContent(place.0));
            }
        }
        Ok(EvidenceEntry {
            body: entry.body,
            signature: Signature::Full(entry.signature),
            possession: None,
            position: entry.position,
            envelope,
            disclosure,
        })
    }

    /// The entries that the evidence is about: one, or all from the first.
    async fn entries_for(&self, thread: ThreadId, seq: Option<Seq>) -> Result<Vec<EntryRecord>, ClientError> {
        if let Some(seq) = seq {
            let entry = self.stored_entry(thread, seq).await?;
            return Ok(vec![entry.ok_or(ClientError::UnknownMessage(seq.0))?]);
        }
        let prefix = self.core.thread_key(thread);
        let rows = self.core.store.scan(Space::Entry, &prefix, &[], u32::MAX).await?;
        Ok(rows.iter().map(|(_, bytes)| records::decode(Space::Entry, bytes)).collect::<Result<_, _>>()?)
    }

    /// Collects proofs until all are under the same header.
    async fn proofs(
        &mut self,
        thread: ThreadId,
        seq: Option<Seq>,
        authors: &BTreeSet<AccountId>,
    ) -> Result<Proofs, ClientError> {
        let api = self.core.api.clone();
        for _ in 0..TRIES {
            let calls = futures_util::future::join_all(authors.iter().map(|account| api.account(*account)));
            let anchor = async {
                match seq {
                    Some(seq) => self.proof(thread, seq).await.map(AnchorProof::Leaf),
                    None => Ok(AnchorProof::Head(api.thread(thread).await?.proof)),
                }
            };
            let (anchor, views) = tokio::join!(anchor, calls);
            let anchor = anchor?;
            let views: Vec<AccountView> = views.into_iter().collect::<Result<_, _>>()?;
            let height = anchor.certified().height;
            if !views.iter().all(|view| view.proof.certified.height == height) {
                continue;
            }
            let header = self.ledger.accept(&api, anchor.certified()).await?;
            let mut system = None;
            if self.ledger.system_evidence().is_some() {
                let followed = self.ledger.follow(&api).await?;
                let Some((map, _)) = followed.filter(|(_, under)| under.hash == header.hash) else {
                    continue;
                };
                system = Some(map);
            }
            let accounts = authors.iter().copied().zip(views).collect();
            return Ok(Proofs { header, accounts, anchor, system });
        }
        Err(ClientError::Moving)
    }
}

/// Whether evidence failed because of what this program put into it. Everything else is the ledger's and the
/// appliance's: what the one certified and the other proved does not hold.
const fn is_own_fault(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::KeyUnused(_)
            | Fault::SignatureLeftOut
            | Fault::AccountMissing(_)
            | Fault::OtherContent
            | Fault::RefusedContent
            | Fault::NoSuchPart
    )
}

fn leaf_proof(proof: &EntryProof, salt: Salt, shard: zixt_types::ShardState) -> LeafProof {
    let hashes = |path: &[zixt_api::HashHex]| -> Vec<Hash> { path.iter().map(|hash| hash.0).collect() };
    LeafProof { salt, index: proof.leaf, path: hashes(&proof.path), shard, shards: hashes(&proof.shard.path) }
}

/// Reads a file back as an auditor would, and only then puts it in its place.
pub async fn write_evidence(engine: &Engine, evidence: &Evidence, path: &Path) -> Result<(), ClientError> {
    let bytes = evidence.to_bytes();
    let again = Evidence::parse(&bytes).map_err(|error| ClientError::Evidence(error.to_string()))?;
    let report = again
        .verify(engine.ledger.checker.genesis_hash, &*engine.core.backend)
        .map_err(|_| TrustError::OtherGenesis { what: "evidence" })?;
    if !report.is_ok() {
        return Err(ClientError::Evidence("the file does not verify".to_owned()));
    }
    write_file(path, bytes).await
}

/// Writes a file so that it is there as a whole or not at all.
pub async fn write_file(path: &Path, bytes: Vec<u8>) -> Result<(), ClientError> {
    let target = path.to_owned();
    let result = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        let mut fresh = target.clone().into_os_string();
        fresh.push(".part");
        let fresh = std::path::PathBuf::from(fresh);
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &target)
    })
    .await;
    let source = match result {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(source)) => source,
        Err(error) => std::io::Error::other(error),
    };
    Err(ClientError::File { path: path.to_owned(), source })
}
