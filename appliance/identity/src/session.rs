//! Sessions (SP 800-63B-4 section 5): opaque tokens, stored hashed, bound to the channel, ended at once.
//!
//! A token is 256 random bits, so a plain hash of it is safe at rest. It opens nothing on another channel, after
//! either of its lifetimes, after its account's epoch has moved, or after its row is gone. Logging out ends a
//! session; it touches no key of anybody.

use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_crypto::hash::constant_time_eq;
use zixt_crypto::{RandomError, hash, labels};
use zixt_types::{AccountId, Hash, SessionId, Timestamp, limits};

use crate::account::AccountRecord;
use crate::factor::{Factor, FactorSet, met};
use crate::outcome::Grant;
use crate::pending::{Batch, Pending, Written};
use crate::place::{ChannelBinding, Network, Now};
use crate::policy::{Policy, Span};
use crate::random::Random;
use crate::role::{Permission, Roles};
use crate::secret::{Secret, SecretForm, for_people, from_people};
use crate::token::Scopes;
use crate::voucher::{IssuerId, Link, Vouched};

/// The wall clock may be set back by so much without ending the sessions that were opened before: the steps of a
/// disciplined clock, not the hand of an officer.
pub(crate) const SET_BACK_MS_MAX: u64 = 5_000;
/// A use is written down at most this often, so that a busy session does not write with each request.
const TOUCH_MS: u64 = 30_000;

/// What the client shows with each request.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Secret<32>);

impl Token {
    /// As it travels: 52 letters and digits in groups.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        for_people(self.0.as_bytes())
    }

    /// Reads what came. `None` if it is no token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        from_people(text).map(Self)
    }

    pub(crate) fn draw(random: &mut dyn Random) -> Result<Self, RandomError> {
        Secret::draw(random).map(Self)
    }

    pub(crate) fn hash(&self) -> Hash {
        hash::sha384(labels::SESSION_TOKEN, &[self.0.as_bytes()])
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// A session as the store keeps it and as its owner sees it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct SessionRow {
    #[n(0)]
    version: u64,
    #[n(1)]
    token: Hash,
    #[n(2)]
    account: AccountId,
    #[n(3)]
    roles: Roles,
    #[n(4)]
    first: Factor,
    #[n(5)]
    further: FactorSet,
    #[n(6)]
    channel: ChannelBinding,
    #[n(7)]
    network: Option<Network>,
    #[n(8)]
    epoch: u64,
    #[n(9)]
    signed_in_wall: Timestamp,
    #[n(10)]
    signed_in_ledger: Timestamp,
    #[n(11)]
    used_wall: Timestamp,
    #[n(12)]
    used_ledger: Timestamp,
    #[n(13)]
    vouched: Option<Vouched>,
}

// Read and written by this crate only, authenticated: see `rows`.
impl SecretForm for SessionRow {
    const WHAT: &'static str = "session row";
    const BYTES_MAX: usize = 512;

    fn check(&self) -> Result<(), &'static str> {
        if self.version != 1 {
            return Err("the version is 1");
        }
        if !Factor::FIRST.has(self.first) || !self.further.is_within(Factor::FURTHER) {
            return Err("a session was opened by a first factor and by others that can follow");
        }
        Ok(())
    }
}

impl SessionRow {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> SessionId {
        id_of(&self.token)
    }

    /// Whose it is.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// Where it was opened from.
    #[must_use]
    pub const fn network(&self) -> Option<Network> {
        self.network
    }

    /// On whose word it rests, if on anybody's.
    #[must_use]
    pub const fn vouched(&self) -> Option<Vouched> {
        self.vouched
    }

    /// Both clocks at the sign-in.
    #[must_use]
    pub const fn signed_in(&self) -> Now {
        Now { wall: self.signed_in_wall, ledger: self.signed_in_ledger }
    }

    /// Both clocks at the last use, to half a minute.
    #[must_use]
    pub const fn used(&self) -> Now {
        Now { wall: self.used_wall, ledger: self.used_ledger }
    }

    /// How it was opened.
    #[must_use]
    pub const fn factors(&self) -> FactorSet {
        self.further.with(self.first)
    }

    fn is_over(&self, policy: &Policy, now: Now) -> bool {
        let rules = policy.sessions(self.roles);
        let elapsed = |span: Span, wall: Timestamp, ledger: Timestamp| {
            let over = |most: Option<u64>, since: Timestamp, now: Timestamp| {
                most.is_some_and(|most| now.0.saturating_sub(since.0) >= most)
            };
            over(span.wall_ms, wall, now.wall) || over(span.ledger_ms, ledger, now.ledger)
        };
        // The clock was set back to before the sign-in: how long that was ago, nobody knows.
        now.wall.0.saturating_add(SET_BACK_MS_MAX) < self.signed_in_wall.0
            || elapsed(rules.idle, self.used_wall, self.used_ledger)
            || elapsed(rules.absolute, self.signed_in_wall, self.signed_in_ledger)
    }
}

pub(crate) fn id_of(token: &Hash) -> SessionId {
    let mut id = [0; 16];
    id.copy_from_slice(&token.as_bytes()[..16]);
    SessionId(id)
}

/// What the store has to do. A removal has to be durable before the end of a session is confirmed to anybody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionChange {
    /// Write this row in the place of one with the same id.
    Put(Box<SessionRow>),
    /// Remove the row with this id.
    Remove(SessionId),
}

/// Why a request has no session. Callers are told one thing for all of them; the audit record says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionError {
    /// No such session: never there, ended, or pushed out by newer ones.
    #[error("there is no such session")]
    Unknown,
    /// It is bound to another channel. Somebody else may have the token.
    #[error("the session is bound to another channel")]
    OtherChannel,
    /// One of its lifetimes is over.
    #[error("the session is over")]
    Over,
    /// The account is not active, its access has changed since, or the policy asks for more now.
    #[error("the account's access has changed since the session was opened")]
    AccessChanged,
}

/// Why a caller may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Forbidden {
    /// None of the caller's roles may.
    #[error("none of the caller's roles has the permission {0:?}")]
    Role(Permission),
    /// The session rests on the word of a directory or identity provider alone.
    #[error("the permission {0:?} needs a proof of one's own, not only the word of a directory")]
    VouchedOnly(Permission),
    /// A directory's sync does less than its administrators can.
    #[error("a directory does not have the permission {0:?}")]
    DirectoryMayNot(Permission),
    /// No single person does this.
    #[error("this takes a ceremony of officers")]
    NeedsCeremony,
    /// The caller's access has changed since their session was checked.
    #[error("the caller's access has changed since the session was checked")]
    Ended,
    /// It is somebody else's.
    #[error("this is another account's")]
    OtherAccount,
    /// What is asked for needs a recent sign-in.
    #[error("this needs a sign-in of the last {min} minutes", min = RECENT_MS / 60_000)]
    NotRecent,
}

/// A change of what an account signs in with, its links too, takes a sign-in of so long ago at most, in milliseconds of the wall clock:
/// a browser that somebody left open does not give the account away.
pub const RECENT_MS: u64 = 15 * 60_000;

/// Somebody with a session, during one request. Only [`Sessions::check`] makes one. It tells what was true then;
/// whatever changes something takes an [`Actor`], which is what is true now.
#[derive(PartialEq, Eq, Debug)]
pub struct Caller {
    account: AccountId,
    session: SessionId,
    roles: Roles,
    own_proof: bool,
    epoch: u64,
    signed_in: Timestamp,
    /// What a program's token is for; a person's session has none.
    scopes: Option<Scopes>,
}

/// A caller whose access is still what it was when their session was checked. Holds their record, so that it cannot
/// change meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    caller: &'a Caller,
    _record: &'a AccountRecord,
    wall: Timestamp,
}

impl Actor<'_> {
    /// Whose session it is.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.caller.account
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.caller.session
    }

    /// When they act, by the wall clock.
    #[must_use]
    pub const fn wall(&self) -> Timestamp {
        self.wall
    }

    /// Demands a permission.
    ///
    /// # Errors
    /// [`Forbidden`]
    pub fn require(&self, permission: Permission) -> Result<(), Forbidden> {
        self.caller.require(permission)
    }

    /// Demands that the sign-in is recent.
    ///
    /// # Errors
    /// [`Forbidden::NotRecent`], also if the clock was set back to before it.
    pub fn require_recent(&self) -> Result<(), Forbidden> {
        match self.wall.0.checked_sub(self.caller.signed_in.0) {
            Some(ms) if ms <= RECENT_MS => Ok(()),
            _ => Err(Forbidden::NotRecent),
        }
    }
}

impl Caller {
    /// Whose session it is.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Whether it is a program that shows a token.
    #[must_use]
    pub const fn is_program(&self) -> bool {
        self.scopes.is_some()
    }

    /// The roles of the account, now.
    #[must_use]
    pub const fn roles(&self) -> Roles {
        self.roles
    }

    /// Demands a permission.
    ///
    /// # Errors
    /// [`Forbidden`]
    pub fn require(&self, permission: Permission) -> Result<(), Forbidden> {
        if let Some(scopes) = self.scopes {
            let may = self.roles.may(Permission::CallApi) && scopes.allow(permission);
            return if may { Ok(()) } else { Err(Forbidden::Role(permission)) };
        }
        if !self.roles.may(permission) {
            return Err(Forbidden::Role(permission));
        }
        if permission.needs_own_proof() && !self.own_proof {
            return Err(Forbidden::VouchedOnly(permission));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn sample(record: &AccountRecord, own_proof: bool) -> Self {
        let (account, roles, epoch) = (record.id(), record.roles(), record.epoch());
        let (session, signed_in) = (SessionId([0; 16]), Timestamp(0));
        Self { account, session, roles, own_proof, epoch, signed_in, scopes: None }
    }

    /// A program that shows a token. It has signed in at no time, so nothing that needs a recent sign-in is its.
    pub(crate) fn of_token(record: &AccountRecord, token: SessionId, scopes: Scopes) -> Self {
        Self {
            account: record.id(),
            session: token,
            roles: record.roles(),
            own_proof: false,
            epoch: record.epoch(),
            signed_in: Timestamp(0),
            scopes: Some(scopes),
        }
    }

    /// The caller as somebody who changes things. `record` is their own record as it is now, under the lock under which
    /// the change is stored: a request that waited does nothing that its caller may no longer do.
    ///
    /// # Errors
    /// [`Forbidden::Ended`]
    pub fn acting<'a>(&'a self, record: &'a AccountRecord, wall: Timestamp) -> Result<Actor<'a>, Forbidden> {
        let still = record.id() == self.account
            && record.is_active()
            && record.epoch() == self.epoch
            && record.roles() == self.roles;
        if still { Ok(Actor { caller: self, _record: record, wall }) } else { Err(Forbidden::Ended) }
    }
}

/// All open sessions. One for an appliance, in memory, with its rows in the store.
#[derive(Debug, Default)]
pub struct Sessions {
    rows: BTreeMap<SessionId, SessionRow>,
    of: BTreeMap<AccountId, BTreeSet<SessionId>>,
    changed: Pending<SessionId>,
}

impl Sessions {
    /// The sessions as they were stored. Of too many, those that were used longest ago end.
    #[must_use]
    pub fn load(rows: impl IntoIterator<Item = SessionRow>) -> Self {
        let mut all = Self::default();
        for row in rows {
            let id = row.id();
            all.of.entry(row.account).or_default().insert(id);
            all.rows.insert(id, row);
        }
        let accounts: Vec<_> = all.of.keys().copied().collect();
        accounts.into_iter().for_each(|account| all.make_room(account, None));
        all
    }

    /// Whether a session is open: for a stream that lasts longer than a request. Whatever ends a session ends it here.
    #[must_use]
    pub fn is_open(&self, id: SessionId) -> bool {
        self.rows.contains_key(&id)
    }

    /// How many sessions an account has.
    #[must_use]
    pub fn count(&self, account: AccountId) -> usize {
        self.of.get(&account).map_or(0, BTreeSet::len)
    }

    /// What anybody may know of their own session.
    #[must_use]
    pub fn own(&self, caller: &Caller) -> Option<&SessionRow> {
        self.rows.get(&caller.session)
    }

    /// What the store has to write. It stays here until [`Self::stored`]: a removal whose write failed is tried again.
    pub fn changes(&self) -> Batch<SessionChange> {
        self.changed.batch(|id| match self.rows.get(&id) {
            Some(row) => SessionChange::Put(Box::new(row.clone())),
            None => SessionChange::Remove(id),
        })
    }

    /// The store has written a batch, durably.
    pub fn stored(&mut self, until: Written) {
        self.changed.stored(until);
    }

    /// Opens a session: the only way is a completed sign-in, which is used up. If the account has too many, its least
    /// recently used one ends.
    ///
    /// # Errors
    /// [`RandomError`]
    pub fn open(&mut self, grant: Grant, random: &mut dyn Random) -> Result<(Token, SessionId), RandomError> {
        let token = Token(Secret::draw(random)?);
        let row = SessionRow {
            version: 1,
            token: token.hash(),
            account: grant.account(),
            roles: grant.roles(),
            first: grant.first(),
            further: grant.further(),
            channel: grant.channel(),
            network: grant.network(),
            epoch: grant.epoch(),
            signed_in_wall: grant.at().wall,
            signed_in_ledger: grant.at().ledger,
            used_wall: grant.at().wall,
            used_ledger: grant.at().ledger,
            vouched: grant.vouched(),
        };
        let id = row.id();
        self.put(row);
        self.make_room(grant.account(), Some(id));
        Ok((token, id))
    }

    /// Opens a session of more (a step-up) in the place of the one that asked for it, which ends.
    ///
    /// # Errors
    /// [`RotateError`], also if somebody else signed in; nothing has changed then.
    pub fn elevate(
        &mut self,
        caller: &Caller,
        grant: Grant,
        random: &mut dyn Random,
    ) -> Result<(Token, SessionId), RotateError> {
        let old = self.rows.get(&caller.session).ok_or(RotateError::Ended)?;
        if grant.account() != caller.account || grant.account() != old.account {
            return Err(RotateError::Ended);
        }
        let opened = self.open(grant, random)?;
        self.revoke(caller.session);
        Ok(opened)
    }

    /// Who calls. `record` is the account's record as it is now.
    ///
    /// # Errors
    /// [`SessionError`]. A session that is over, or whose access has changed, ends here for good.
    pub fn check<'a>(
        &mut self,
        policy: &Policy,
        token: &Token,
        channel: &ChannelBinding,
        now: Now,
        record: impl FnOnce(AccountId) -> Option<&'a AccountRecord>,
    ) -> Result<Caller, SessionError> {
        let hash = token.hash();
        let id = id_of(&hash);
        let row = self.rows.get(&id).ok_or(SessionError::Unknown)?;
        if !constant_time_eq(row.token.as_bytes(), hash.as_bytes()) {
            return Err(SessionError::Unknown);
        }
        if row.channel != *channel {
            return Err(SessionError::OtherChannel);
        }
        if row.is_over(policy, now) {
            self.revoke(id);
            return Err(SessionError::Over);
        }
        let valid = |record: &AccountRecord| {
            record.id() == row.account
                && record.is_active()
                && record.epoch() == row.epoch
                && record.roles() == row.roles
        };
        if !record(row.account).is_some_and(valid) {
            self.revoke(id);
            return Err(SessionError::AccessChanged);
        }
        // A policy that asks for more than the sign-in gave ends the session, too.
        let enough = policy
            .requirements(row.roles, row.first)
            .is_some_and(|all| all.iter().all(|then| met(then, row.further) == then.len()));
        if !enough {
            self.revoke(id);
            return Err(SessionError::AccessChanged);
        }
        let own_proof = !Factor::VOUCHED.has(row.first) || !row.further.is_empty();
        let caller = Caller {
            account: row.account,
            session: id,
            roles: row.roles,
            own_proof,
            epoch: row.epoch,
            signed_in: row.signed_in_wall,
            scopes: None,
        };
        let touched = now.wall.0.abs_diff(row.used_wall.0) >= TOUCH_MS
            || now.ledger.0.abs_diff(row.used_ledger.0) >= TOUCH_MS;
        if touched && let Some(row) = self.rows.get_mut(&id) {
            (row.used_wall, row.used_ledger) = (now.wall, now.ledger);
            self.changed.insert(id);
        }
        Ok(caller)
    }

    /// A new token for the same session, under the account's record as it is now: after a change by the caller that
    /// ended all sessions (a new password), the one that made it goes on. Rotate first, and end the others with
    /// [`Self::revoke_account`] and the new id. The old token is void at once; the lifetimes go on.
    ///
    /// The record has to be one change further than the session, or somebody else has changed it, too, and what they
    /// wanted to end would go on.
    ///
    /// # Errors
    /// [`RotateError`]
    pub fn rotate(
        &mut self,
        caller: &Caller,
        record: &AccountRecord,
        random: &mut dyn Random,
    ) -> Result<(Token, SessionId), RotateError> {
        let old = self.rows.get(&caller.session).ok_or(RotateError::Ended)?;
        // More roles are never had by rotating: they take a sign-in that asks for what they need.
        let one_further = caller.epoch == old.epoch && old.epoch.checked_add(1) == Some(record.epoch());
        if record.id() != old.account || !record.is_active() || record.roles() != old.roles || !one_further {
            return Err(RotateError::Ended);
        }
        let token = Token(Secret::draw(random)?);
        let row = SessionRow { token: token.hash(), epoch: record.epoch(), ..old.clone() };
        let id = row.id();
        self.revoke(caller.session);
        self.put(row);
        Ok((token, id))
    }

    /// The sessions of an account that are not over: for their owner, and for who may end them.
    ///
    /// # Errors
    /// [`Forbidden`]
    pub fn list<'a>(
        &'a self,
        by: &Actor<'_>,
        policy: &'a Policy,
        account: AccountId,
        now: Now,
    ) -> Result<impl Iterator<Item = &'a SessionRow>, Forbidden> {
        if by.account() != account {
            by.require(Permission::EndSessions)?;
        }
        let ids = self.of.get(&account).into_iter().flatten();
        Ok(ids.filter_map(|id| self.rows.get(id)).filter(move |row| !row.is_over(policy, now)))
    }

    /// Ends the caller's own session. Needs nothing else: whoever has it may always leave.
    pub fn log_out(&mut self, caller: &Caller) -> bool {
        self.revoke(caller.session)
    }

    /// Ends a session: one of the actor's own, or, for who may, somebody else's. False if there was none.
    ///
    /// # Errors
    /// [`Forbidden`]
    pub fn end(&mut self, by: &Actor<'_>, id: SessionId) -> Result<bool, Forbidden> {
        if self.rows.get(&id).is_none_or(|row| row.account != by.account()) {
            by.require(Permission::EndSessions)?;
        }
        Ok(self.revoke(id))
    }

    fn revoke(&mut self, id: SessionId) -> bool {
        let Some(row) = self.rows.remove(&id) else { return false };
        if let Some(ids) = self.of.get_mut(&row.account) {
            ids.remove(&id);
            if ids.is_empty() {
                self.of.remove(&row.account);
            }
        }
        self.changed.insert(id);
        true
    }

    /// Does [`crate::Effect::EndSessions`]: ends every session of an account, but `keep` if one is given. Gives those that ended, whose streams have to
    /// close.
    pub fn revoke_account(&mut self, account: AccountId, keep: Option<SessionId>) -> Vec<SessionId> {
        let ids: Vec<_> =
            self.of.get(&account).into_iter().flatten().copied().filter(|id| Some(*id) != keep).collect();
        ids.into_iter().filter(|id| self.revoke(*id)).collect()
    }

    /// Ends what rests on the word of this issuer about this person, about this session there, or, where both are named,
    /// about both together. Gives those that ended. Done again, it ends nothing more.
    pub fn revoke_vouched(
        &mut self,
        issuer: IssuerId,
        subject: Option<&Link>,
        session: Option<&Hash>,
    ) -> Vec<SessionId> {
        if subject.is_none() && session.is_none() {
            return Vec::new();
        }
        let rests = |row: &SessionRow| {
            row.vouched.is_some_and(|vouched| {
                vouched.link.issuer == issuer
                    && subject.is_none_or(|link| vouched.link == *link)
                    && session.is_none_or(|session| vouched.session.as_ref() == Some(session))
            })
        };
        let ids: Vec<_> = self.rows.iter().filter(|(_, row)| rests(row)).map(|(id, _)| *id).collect();
        ids.into_iter().filter(|id| self.revoke(*id)).collect()
    }

    /// Ends what is over. To be called now and then.
    pub fn sweep(&mut self, policy: &Policy, now: Now) -> Vec<SessionId> {
        let over: Vec<_> =
            self.rows.iter().filter(|(_, row)| row.is_over(policy, now)).map(|(id, _)| *id).collect();
        over.into_iter().filter(|id| self.revoke(*id)).collect()
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn put(&mut self, row: SessionRow) {
        let id = row.id();
        self.of.entry(row.account).or_default().insert(id);
        self.rows.insert(id, row);
        self.changed.insert(id);
    }

    /// Bounds: of one account, then of all.
    fn make_room(&mut self, account: AccountId, keep: Option<SessionId>) {
        let oldest = |ids: &mut dyn Iterator<Item = (&SessionId, Timestamp)>| {
            ids.filter(|(id, _)| Some(**id) != keep).min_by_key(|(_, used)| *used).map(|(id, _)| *id)
        };
        while self.of.get(&account).is_some_and(|ids| ids.len() > limits::SESSIONS_EACH_MAX) {
            let ids = self.of.get(&account).into_iter().flatten();
            let mut used = ids.filter_map(|id| self.rows.get(id).map(|row| (id, row.used_wall)));
            match oldest(&mut used) {
                Some(id) => self.revoke(id),
                None => break,
            };
        }
        while self.rows.len() > limits::SESSIONS_MAX {
            match oldest(&mut self.rows.iter().map(|(id, row)| (id, row.used_wall))) {
                Some(id) => self.revoke(id),
                None => break,
            };
        }
    }
}

/// Why a session was not rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RotateError {
    /// It has ended, or its account is no longer what it was.
    #[error("the session has ended")]
    Ended,
    /// No randomness for the token.
    #[error(transparent)]
    Random(#[from] RandomError),
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
