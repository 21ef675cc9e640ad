//! Taking entries.

use super::{App, Kept};
use crate::audit;
use crate::problem;
use crate::sequencer::{Recorded, Unrecorded};
use std::collections::VecDeque;
use std::sync::Arc;
use zixt_api::{ClaimRequest, ClaimResponse, ClaimedKeyPackage, EnrolRequest, ErrorCode, KeyPackageCounts};
use zixt_api::{
    KeyPackageUpload, MemberRef, Problem, Receipt, SubmissionItem, SubmitRequest, SubmitResponse,
};
use zixt_audit::{Action, Actor, Event, Origin, Outcome, Target};
use zixt_ledger::{Refusal, Signer, Submission, key_package};
use zixt_types::{AccountId, Attachment, Author, Hash, Member, Payload, limits};

/// Accounts whose key packages one request may claim: the largest group.
const CLAIM_ACCOUNTS_MAX: usize = limits::ROSTER_CHANGE_MAX;

impl App {
    /// Takes entries of a device, in order, and answers when they are final. All are for one thread; the first that is
    /// refused ends the request.
    ///
    /// # Errors
    /// The first entry was refused, or the request as a whole.
    pub async fn submit(
        &self,
        caller: Member,
        by: Origin,
        request: SubmitRequest,
    ) -> Result<SubmitResponse, Problem> {
        if request.submissions.is_empty() || request.submissions.len() > limits::SUBMISSIONS_MAX {
            let detail =
                format!("1 to {} entries, not {}", limits::SUBMISSIONS_MAX, request.submissions.len());
            return Err(Problem::new(ErrorCode::TooManyItems, detail));
        }
        let mut submissions = Vec::with_capacity(request.submissions.len());
        for (index, item) in request.submissions.into_iter().enumerate() {
            let submission = parse(item).map_err(|problem| problem.at(index))?;
            match submission.body.author {
                Author::Device(author) if author == caller => {}
                _ => {
                    let detail = "the body's author is not the device of this connection";
                    return Err(Problem::new(ErrorCode::AuthorMismatch, detail).at(index));
                }
            }
            submissions.push(submission);
        }
        let thread = submissions.first().map(|submission| submission.body.thread);
        if submissions.iter().any(|submission| Some(submission.body.thread) != thread) {
            return Err(Problem::new(ErrorCode::MixedThreads, "the entries name several threads"));
        }
        let about_devices = submissions.iter().enumerate();
        let about_devices =
            about_devices.filter_map(|(at, one)| Some((at, self.device_event(one, caller, by)?)));
        let events: Vec<(usize, Event)> = about_devices.collect();
        if events.is_empty() {
            return self.submit_all(submissions).await;
        }
        let rooms: Result<Vec<_>, _> =
            events.iter().map(|(_, event)| self.audit.room(event.action)).collect();
        let _rooms = rooms?;
        let answer = self.submit_all(submissions).await;
        for (at, mut event) in events {
            event.outcome = match &answer {
                Ok(answer) if at < answer.receipts.len() => Outcome::Ok,
                Ok(SubmitResponse { refused: Some(problem), .. }) | Err(problem) => {
                    audit::outcome_of(problem)
                }
                Ok(_) => audit::outcome_of(&problem::of_unrecorded(&Unrecorded::Stopped)),
            };
            self.audit.record(event).await?;
        }
        answer
    }

    async fn submit_all(&self, submissions: Vec<Submission>) -> Result<SubmitResponse, Problem> {
        let (receipts, refused) = self.record(submissions).await;
        match refused {
            Some(problem) if receipts.is_empty() => Err(problem),
            refused => Ok(SubmitResponse { receipts, refused }),
        }
    }

    /// What an entry about a device says to the audit journal.
    fn device_event(&self, submission: &Submission, caller: Member, by: Origin) -> Option<Event> {
        let (action, device) = match submission.body.payload {
            Payload::DeviceAdd { device, .. } => (Action::DeviceAdded, device),
            Payload::DeviceRevoke { device, .. } => (Action::DeviceRevoked, device),
            _ => return None,
        };
        let mut event = self.audit.event(action, Actor::Device(caller.account, caller.device), by);
        event.target = Some(Target::Device(caller.account, device));
        Some(event)
    }

    /// Adds the first device of an account.
    ///
    /// # Errors
    /// The entry was refused.
    pub async fn enrol(&self, by: Origin, request: EnrolRequest) -> Result<Receipt, Problem> {
        let submission = parse(request.submission)?;
        let (Author::Invitation(account), Payload::DeviceAdd { device, .. }) =
            (submission.body.author, &submission.body.payload)
        else {
            return Err(Problem::new(
                ErrorCode::WrongKind,
                "enrolment takes a device addition by invitation",
            ));
        };
        let mut event = self.audit.event(Action::DeviceAdded, Actor::Account(account), by);
        event.target = Some(Target::Device(account, *device));
        let _room = self.audit.room(Action::DeviceAdded)?;
        match self.enrol_first(account, request.name, submission).await {
            Ok(receipt) => self.audit.record(event).await.map(|()| receipt),
            Err(problem) => {
                // Nobody has shown who they are, and anybody can have as many refused as they like.
                self.audit.refused_from(by, &problem);
                Err(problem)
            }
        }
    }

    async fn enrol_first(
        &self,
        account: AccountId,
        name: Option<String>,
        submission: Submission,
    ) -> Result<Receipt, Problem> {
        if let Some(claimed) = &name
            && let Some(known) = self.name_of(account).await?
            && known.name != *claimed
        {
            return Err(Problem::new(ErrorCode::NameMismatch, "the account has another name"));
        }
        self.record_one(submission).await
    }

    pub(super) async fn record_one(&self, submission: Submission) -> Result<Receipt, Problem> {
        match self.record(vec![submission]).await {
            (mut receipts, None) if receipts.len() == 1 => Ok(receipts.remove(0)),
            (_, Some(problem)) => Err(problem),
            (_, None) => Err(problem::of_unrecorded(&Unrecorded::Stopped)),
        }
    }

    /// Records entries of one thread; returns receipts up to the first that was refused.
    async fn record(&self, submissions: Vec<Submission>) -> (Vec<Receipt>, Option<Problem>) {
        let total = submissions.len();
        let mut receipts = Vec::with_capacity(total);
        match self.record_into(submissions, &mut receipts).await {
            Ok(()) => (receipts, None),
            Err(problem) => {
                let index = receipts.len();
                let problem = if total > 1 { problem.at(index) } else { problem };
                (receipts, Some(problem))
            }
        }
    }

    async fn record_into(
        &self,
        submissions: Vec<Submission>,
        receipts: &mut Vec<Receipt>,
    ) -> Result<(), Problem> {
        let mut asked = submissions.iter().map(Asked::of).collect::<VecDeque<_>>();
        let Some(first) = asked.front() else { return Ok(()) };
        // The usual request is new: its signatures are checked while the store is asked.
        let (mut known, (mut submissions, mut verified)) =
            tokio::join!(self.find(first), self.verify(submissions));
        // A repeated request gets its receipts again, even when nothing new can be recorded.
        while let Some(recorded) = known? {
            receipts.push(self.receipt(recorded).await?);
            asked.pop_front();
            let Some(next) = asked.front() else { return Ok(()) };
            known = self.find(next).await;
        }
        self.check_can_record()?;
        if !receipts.is_empty() {
            submissions.drain(..receipts.len().min(submissions.len()));
            (submissions, verified) = self.verify(submissions).await;
        }
        verified?;
        let answers = self.queue.put(submissions).map_err(|why| problem::of_unrecorded(&why))?;
        for (answer, asked) in answers.into_iter().zip(asked) {
            let answer = answer.await.unwrap_or(Err(Unrecorded::Stopped));
            let recorded = match answer {
                Ok(recorded) => recorded,
                Err(why) => self.overtaken(why, &asked).await?,
            };
            receipts.push(self.receipt(recorded).await?);
        }
        Ok(())
    }

    /// The entry that an identical submission led to before.
    async fn find(&self, asked: &Asked) -> Result<Option<Recorded>, Problem> {
        let known = self.store.receipt_source(&asked.thread, &asked.message_id).await;
        match known.map_err(|error| problem::of_store(&error))? {
            Some(entry) if entry.body_bytes == asked.body => Ok(Some(Recorded::from(&entry))),
            Some(entry) => Err(Problem::new(
                ErrorCode::MessageIdConflict,
                format!("entry {} of this thread has the same message id and another body", entry.place.seq),
            )),
            None => Ok(None),
        }
    }

    /// The same submission may have come twice at the same time, or have been recorded from the log after a crash.
    async fn overtaken(&self, why: Unrecorded, asked: &Asked) -> Result<Recorded, Problem> {
        let may_be = matches!(
            why,
            Unrecorded::Refused(
                Refusal::CounterReplayed { .. }
                    | Refusal::InvitationUsed
                    | Refusal::DeviceExists
                    | Refusal::AccountExists
                    | Refusal::StaleEpoch { .. }
            )
        );
        if may_be && let Some(recorded) = self.find(asked).await? {
            return Ok(recorded);
        }
        Err(problem::of_unrecorded(&why))
    }

    /// Checks signatures beside the runtime: ML-DSA takes 0.1 to 0.3 ms each. A single one is checked at once: that takes no
    /// longer than to wake another thread and be woken by it. Gives the submissions back.
    async fn verify(&self, submissions: Vec<Submission>) -> (Vec<Submission>, Result<(), Problem>) {
        // The semaphore is never closed.
        let _turn = Arc::clone(&self.verifications).acquire_owned().await.ok();
        let (view, backend) = (Arc::clone(&self.view), Arc::clone(&self.backend));
        let single = submissions.len() == 1;
        let check = move || {
            let result = submissions.iter().enumerate().try_for_each(|(index, submission)| {
                let at = |problem: Problem| if submissions.len() > 1 { problem.at(index) } else { problem };
                let inner = view.read();
                let signer =
                    inner.state.signer(submission).map_err(|refusal| at(problem::of_refusal(&refusal)))?;
                submission
                    .verify(&signer, &inner.state.keyring, &*backend)
                    .map_err(|error| at(invitation_key(submission, &signer, error)))
            });
            (submissions, result)
        };
        if single {
            return check();
        }
        tokio::task::spawn_blocking(check)
            .await
            .unwrap_or_else(|_| (Vec::new(), Err(problem::of_unrecorded(&Unrecorded::Stopped))))
    }

    pub(super) async fn receipt(&self, recorded: Recorded) -> Result<Receipt, Problem> {
        let Recorded { height, shard, leaf, .. } = recorded;
        let proof = self.view.prove_entry(&self.store, height, shard, leaf).await;
        Ok(Receipt {
            message_id: recorded.message_id.into(),
            thread: recorded.thread.into(),
            seq: recorded.position.seq.0,
            prev: recorded.position.prev.into(),
            time: recorded.position.time.0,
            salt: recorded.salt.into(),
            entry: recorded.hash.into(),
            proof: proof.map_err(|fault| problem::of_proof(&fault))?,
        })
    }

    /// Takes key packages of the calling device. Whose they are is looked at, so that a package of somebody else among
    /// those handed out is this appliance's doing, and no device's.
    ///
    /// # Errors
    /// They are too many, too long, or not its own.
    pub async fn upload_key_packages(
        &self,
        caller: Member,
        upload: KeyPackageUpload,
    ) -> Result<KeyPackageCounts, Problem> {
        let one_time: Vec<Vec<u8>> = upload.one_time.into_iter().map(|package| package.0).collect();
        if one_time.len() > limits::KEY_PACKAGES_MAX {
            let detail = format!("at most {} key packages are kept", limits::KEY_PACKAGES_MAX);
            return Err(Problem::new(ErrorCode::TooManyKeyPackages, detail));
        }
        let last_resort = upload.last_resort.as_ref().map(AsRef::as_ref);
        let all = || one_time.iter().map(Vec::as_slice).chain(last_resort);
        if all().any(|package| package.is_empty() || package.len() > limits::KEY_PACKAGE_BYTES_MAX) {
            let detail = format!("a key package has 1 to {} bytes", limits::KEY_PACKAGE_BYTES_MAX);
            return Err(Problem::new(ErrorCode::KeyPackageTooLong, detail));
        }
        let own = {
            let inner = self.view.read();
            let account = inner.state.account(caller.account);
            account.and_then(|account| account.device(caller.device)).map(|device| device.keys.mls)
        };
        let is_own = |package: &[u8]| key_package::signer(package).any(|key| Some(key) == own);
        if !all().all(is_own) {
            return Err(Problem::new(
                ErrorCode::KeyPackageForeign,
                "a key package has another signature key",
            ));
        }
        let counts = self.store.put_key_packages(&caller.device, &one_time, last_resort).await;
        counts.map(counts_of).map_err(|error| problem::of_key_packages(&error))
    }

    /// How many key packages of the calling device wait.
    ///
    /// # Errors
    /// The store failed.
    pub async fn key_package_counts(&self, caller: Member) -> Result<KeyPackageCounts, Problem> {
        let counts = self.store.key_package_counts(&caller.device).await;
        counts.map(counts_of).map_err(|error| problem::of_store(&error))
    }

    /// Hands out a key package of every active device of some accounts, but none of the caller's own.
    ///
    /// # Errors
    /// An account does not exist.
    pub async fn claim_key_packages(
        &self,
        caller: Member,
        tls: Hash,
        request: ClaimRequest,
    ) -> Result<Kept<ClaimResponse>, Problem> {
        if request.accounts.len() > CLAIM_ACCOUNTS_MAX {
            let detail = format!("at most {CLAIM_ACCOUNTS_MAX} accounts at once");
            return Err(Problem::new(ErrorCode::TooManyItems, detail));
        }
        let mut members: Vec<Member> = Vec::new();
        {
            let inner = self.view.read();
            for account in &request.accounts {
                let account = inner
                    .state
                    .account(account.0)
                    .ok_or_else(|| problem::of_refusal(&Refusal::UnknownAccount))?;
                members.extend(account.active_members());
            }
        }
        members.sort_unstable();
        members.dedup();
        members.retain(|member| *member != caller);
        if members.len() > limits::MEMBERS_MAX {
            return Err(problem::of_refusal(&Refusal::GroupTooLarge { max: limits::MEMBERS_MAX }));
        }
        // As they are stored and as they are sent.
        let bytes_max = (members.len() * limits::KEY_PACKAGE_BYTES_MAX) as u64;
        let room = self.room_for(&self.rooms.answers, tls, bytes_max, bytes_max * 7 / 3).await?;
        let devices: Vec<_> = members.iter().map(|member| member.device).collect();
        let claimed =
            self.store.claim_key_packages(&devices).await.map_err(|error| problem::of_store(&error))?;
        let mut response = ClaimResponse { key_packages: Vec::new(), missing: Vec::new() };
        for (member, package) in members.into_iter().zip(claimed) {
            let member = member_ref(member);
            match package {
                Some(package) => response.key_packages.push(ClaimedKeyPackage {
                    member,
                    key_package: package.bytes.into(),
                    last_resort: package.last_resort,
                }),
                None => response.missing.push(member),
            }
        }
        Ok(Kept { value: response, room })
    }
}

/// What identifies a submission.
struct Asked {
    thread: zixt_types::ThreadId,
    message_id: zixt_types::MessageId,
    body: Vec<u8>,
}

impl Asked {
    fn of(submission: &Submission) -> Self {
        let body = &submission.body;
        Self { thread: body.thread, message_id: body.message_id, body: submission.body_bytes.clone() }
    }
}

/// A key that came with the submission but is not the invitation's is told apart from one that nobody knows.
fn invitation_key(submission: &Submission, signer: &Signer, error: zixt_ledger::SubmissionError) -> Problem {
    match error {
        zixt_ledger::SubmissionError::KeyUnknown(missing)
            if *signer == Signer::Key(missing) && submission.invitation_key().is_some() =>
        {
            problem::of_refusal(&Refusal::InvitationKey)
        }
        error => problem::of_submission(&error),
    }
}

pub(super) fn parse(item: SubmissionItem) -> Result<Submission, Problem> {
    let attachments = item.attachments.into_iter().map(|bytes| Attachment(bytes.0)).collect();
    Submission::parse(item.body.0, item.signature.0, item.possession.map(|bytes| bytes.0), attachments)
        .map_err(|error| problem::of_submission(&error))
}

pub(super) fn member_ref(member: Member) -> MemberRef {
    MemberRef { account: member.account.into(), device: member.device.into() }
}

fn counts_of(counts: zixt_storage::KeyPackageCounts) -> KeyPackageCounts {
    KeyPackageCounts {
        one_time: u32::try_from(counts.one_time).unwrap_or(u32::MAX),
        last_resort: counts.last_resort,
    }
}
