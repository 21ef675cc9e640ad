//! The anchors: numbers in devices that say which state is the newest.
//!
//! Every one that can be reached is asked at every unlock and advanced by every change, whichever protector opened the
//! root: of an open device, and of one whose counter needs no PIN, because what it takes is sealed under the root. A token
//! tells nothing without a login; what only its anchor could tell goes unnoticed while another protector opens the root.
//! One that could be asked and is not there is missed: whoever takes it away must not have a state believed by that.

use super::{Service, storage};
use crate::protector::Protector;
use crate::root::Root;
use crate::state::{CustodyRecord, EnrolledProtector, Folder as _, Open, STATE_FILE};
use zeroize::Zeroizing;
use zixt_hsm_protocol::CustodyError;
use zixt_tpm::Freshness;
use zixt_types::Canonical as _;

/// An anchor that can be reached now, and the number that a state names of it.
pub(super) struct Anchor<'s> {
    service: &'s Service,
    device: &'s dyn Protector,
    enrolment: Vec<u8>,
    counter_auth: Option<Zeroizing<Vec<u8>>>,
    recorded: u64,
    unseen: bool,
}

/// What the anchors say of a state.
pub(super) enum Verdict {
    /// It is the newest, as far as anything can tell.
    Newest,
    /// It is not, for this reason.
    SetBack(String),
    /// Those that would know do not answer.
    Unvouched(String),
}

/// The anchors that a state is judged by.
pub(super) struct Anchors<'s> {
    pub(super) reached: Vec<Anchor<'s>>,
    /// Those that could be asked and cannot be reached, in words.
    missing: Vec<String>,
}

impl Anchor<'_> {
    /// The device's name.
    pub(super) fn name(&self) -> &str {
        self.device.name()
    }

    /// Whether the state was set apart without it.
    pub(super) fn is_unseen(&self) -> bool {
        self.unseen
    }

    fn auth(&self) -> Option<&[u8]> {
        self.counter_auth.as_deref().map(Vec::as_slice)
    }

    pub(super) fn is_open(&self) -> bool {
        self.device.is_open()
    }

    fn read(&self) -> Result<Option<u64>, CustodyError> {
        self.ask(|| self.device.anchor(&self.enrolment, self.auth()))
    }

    fn advance(&self, to: u64) -> Result<(), CustodyError> {
        self.ask(|| self.device.advance(&self.enrolment, self.auth(), to))
    }

    fn ask<T>(&self, ask: impl FnOnce() -> Result<T, CustodyError>) -> Result<T, CustodyError> {
        if self.is_open() { ask() } else { self.service.ask_closed(self.name(), ask) }
    }

    fn compare(&self) -> Result<Result<Freshness, String>, CustodyError> {
        match self.read() {
            Ok(Some(anchored)) => {
                Ok(zixt_tpm::judge_state(self.recorded, anchored).map_err(|error| error.to_string()))
            }
            Ok(None) => Ok(Err(format!("{} has no anchor any more", self.name()))),
            Err(CustodyError::AnchorMissing { detail }) => Ok(Err(detail)),
            Err(error) => Err(error),
        }
    }

    /// Compares it with the state, and advances it if a crash left it one behind. `Some` says that the state is not the
    /// newest.
    fn settle(&self) -> Result<Option<String>, CustodyError> {
        match self.compare()? {
            Ok(Freshness::Current) => Ok(None),
            Ok(Freshness::Ahead) => self.advance(self.recorded).map(|()| None),
            Err(why) => Ok(Some(why)),
        }
    }

    /// As [`Self::settle`], without a change.
    pub(super) fn judge(&self) -> Result<Option<String>, CustodyError> {
        self.compare().map(Result::err)
    }
}

/// Why a state is not the newest, by any of these anchors; an error if one of them tells nothing: it may be in another
/// machine, with a copy of this state, and what another one tells is no substitute.
pub(super) fn moved(anchors: &[Anchor<'_>]) -> Result<Option<String>, CustodyError> {
    let mut unread = None;
    for anchor in anchors.iter().filter(|anchor| !anchor.unseen) {
        match anchor.judge() {
            Ok(Some(why)) => return Ok(Some(why)),
            Ok(None) => {}
            Err(error) => {
                log::warn!("{} does not tell its counter: {error}", anchor.name());
                unread = Some(error);
            }
        }
    }
    unread.map_or(Ok(None), Err)
}

impl Anchors<'_> {
    /// The verdict, by settling or only judging each of them.
    pub(super) fn verdict(self, settle: bool) -> Result<Verdict, CustodyError> {
        let (mut vouched, mut apart, mut silent) = (false, Vec::new(), self.missing);
        for anchor in self.reached {
            if anchor.unseen {
                apart.push(format!("{} was not there when officers last decided on it", anchor.name()));
                continue;
            }
            match if settle { anchor.settle() } else { anchor.judge() } {
                Ok(None) => vouched = true,
                Ok(Some(why)) => return Ok(Verdict::SetBack(why)),
                Err(error) if anchor.is_open() => return Err(error),
                Err(error) => {
                    log::warn!("{} does not tell its counter: {error}", anchor.name());
                    silent.push(format!("{} does not tell its counter ({error})", anchor.name()));
                }
            }
        }
        if silent.is_empty() && (vouched || apart.is_empty()) {
            return Ok(Verdict::Newest);
        }
        let mut what = String::new();
        if !silent.is_empty() {
            what += ". Custody goes on by itself once it answers";
        }
        if !vouched && !apart.is_empty() {
            what += ". Lock, and unlock by a protector that was there";
        }
        silent.extend(apart);
        Ok(Verdict::Unvouched(format!(
            "nothing vouches that this state is the newest: {}{what}. If a device is lost, officers activate a new consensus \
             key and remove it",
            silent.join(", ")
        )))
    }
}

/// Sets right what a crash left, and names the next numbers in a state.
pub(super) fn settle_all<'s>(
    record: &mut CustodyRecord,
    anchors: Vec<(usize, Anchor<'s>)>,
) -> Result<Vec<(Anchor<'s>, u64)>, CustodyError> {
    let mut to_advance = Vec::new();
    for (at, anchor) in anchors {
        match anchor.settle() {
            Ok(None) => {}
            Ok(Some(why)) => return Err(CustodyError::AnchorMissing { detail: why }),
            Err(error) if anchor.is_open() => return Err(error),
            Err(error) => {
                // What the state names of it does not move either, so that it is behind by nothing when it is back.
                log::warn!("the anchor of {} is not advanced: {error}", anchor.name());
                continue;
            }
        }
        let next = anchor.recorded + 1;
        if let Some(enrolled) = record.protectors.get_mut(at) {
            enrolled.anchored = Some(next);
        }
        to_advance.push((anchor, next));
    }
    Ok(to_advance)
}

impl Service {
    fn reach(&self, enrolled: &EnrolledProtector, root: &Root) -> Result<Option<Anchor<'_>>, CustodyError> {
        let (Some(recorded), Some(device)) = (enrolled.anchored, self.device(enrolled)) else {
            return Ok(None);
        };
        let counter_auth = enrolled.counter_auth(root)?;
        Ok((device.is_open() || counter_auth.is_some()).then(|| Anchor {
            service: self,
            device,
            enrolment: enrolled.enrolment.clone(),
            counter_auth,
            recorded,
            unseen: enrolled.unseen,
        }))
    }

    /// Every anchor of a state that can be reached.
    pub(super) fn reached(&self, Open { record, root }: &Open) -> Result<Vec<Anchor<'_>>, CustodyError> {
        record.protectors.iter().filter_map(|enrolled| self.reach(enrolled, root).transpose()).collect()
    }

    /// What a state is judged by.
    pub(super) fn anchors(&self, Open { record, root }: &Open) -> Result<Anchors<'_>, CustodyError> {
        let mut anchors = Anchors { reached: Vec::new(), missing: Vec::new() };
        for enrolled in record.protectors.iter().filter(|enrolled| enrolled.anchored.is_some()) {
            match self.reach(enrolled, root)? {
                Some(anchor) => anchors.reached.push(anchor),
                None if enrolled.counter_auth.is_some() && !enrolled.unseen => {
                    anchors.missing.push(format!("{} is not in the configuration", enrolled.name));
                }
                None => {}
            }
        }
        Ok(anchors)
    }

    /// Whether a state is the newest. A device that is open has to answer. One that is closed, and could be asked, is missed
    /// where it does not: what another one tells says nothing about a copy that was used by that one.
    pub(super) fn verdict(&self, open: &Open) -> Result<Verdict, CustodyError> {
        self.anchors(open)?.verdict(true)
    }

    /// Corrects the numbers of anchors that a newest state is not in, now that they are reached beside one that vouches
    /// for it.
    pub(super) fn correct_unseen(&self, Open { record, root }: &mut Open) -> Result<(), CustodyError> {
        for enrolled in record.protectors.iter_mut().filter(|enrolled| enrolled.unseen) {
            if let Some(anchor) = self.reach(enrolled, root)?
                && let Ok(Some(now)) = anchor.read()
            {
                (enrolled.anchored, enrolled.unseen) = (Some(now), false);
            }
        }
        Ok(())
    }

    /// Begins anew with what the anchors say now. Those that are out of reach know another history than this state's, and
    /// must not vouch for it: neither for this state nor for a copy of it.
    pub(super) fn set_apart(&self, record: &mut CustodyRecord, root: &Root) -> Result<(), CustodyError> {
        for enrolled in record.protectors.iter_mut().filter(|enrolled| enrolled.anchored.is_some()) {
            enrolled.unseen = true;
            let Some(anchor) = self.reach(enrolled, root)? else { continue };
            match anchor.read() {
                Ok(Some(now)) => (enrolled.anchored, enrolled.unseen) = (Some(now), false),
                Ok(None) | Err(CustodyError::AnchorMissing { .. }) => {}
                Err(error) if anchor.is_open() => return Err(error),
                Err(error) => log::warn!("{} does not tell its counter: {error}", anchor.name()),
            }
        }
        Ok(())
    }

    /// Makes a new state durable and then the newest by every anchor that is reached.
    ///
    /// First the state with the next number is written, then the anchor is advanced: a crash between the two leaves a
    /// state that is one ahead, which the next commit or unlock sets right. Nothing is written while an anchor still
    /// lags behind, so that it is never two.
    pub(super) fn commit(
        &self,
        root: &Root,
        mut record: CustodyRecord,
    ) -> Result<CustodyRecord, CustodyError> {
        let anchors = self.reach_all(&record, root)?;
        let to_advance = settle_all(&mut record, anchors)?;
        self.write_and_advance(record.authenticated(root), to_advance)
    }

    /// Every anchor that vouches for a state and can be reached, by its place among the protectors.
    pub(super) fn reach_all(
        &self,
        record: &CustodyRecord,
        root: &Root,
    ) -> Result<Vec<(usize, Anchor<'_>)>, CustodyError> {
        let known = record.protectors.iter().enumerate().filter(|(_, enrolled)| !enrolled.unseen);
        known
            .filter_map(|(at, enrolled)| {
                Some(self.reach(enrolled, root).transpose()?.map(|anchor| (at, anchor)))
            })
            .collect()
    }

    /// Writes an authenticated state, whose numbers are the next ones, and advances the anchors to them.
    pub(super) fn write_and_advance(
        &self,
        record: CustodyRecord,
        to_advance: Vec<(Anchor<'_>, u64)>,
    ) -> Result<CustodyRecord, CustodyError> {
        record.check().map_err(|why| CustodyError::Internal { detail: why.to_owned() })?;
        // The point of no return.
        self.folder.replace(STATE_FILE, &record.to_bytes()).map_err(|error| storage(&error))?;
        for (anchor, to) in to_advance {
            if let Err(error) = anchor.advance(to) {
                log::error!("the anchor of {} stays one behind: {error}", anchor.name());
            }
        }
        Ok(record)
    }
}
