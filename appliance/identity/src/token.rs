//! Tokens of programs (RFC 6750): 256 random bits, shown once and stored hashed, with scopes, an end, and the networks that
//! they are good from.
//!
//! A program has an account with the role `service`, which may do nothing by itself: each of its tokens says for what it
//! is. Whatever ends the account's access ends its tokens, too: suspension, another role, the end of the account.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;
use zixt_crypto::RandomError;
use zixt_types::{AccountId, Hash, Role, SessionId, Timestamp};

use crate::account::AccountRecord;
use crate::pending::{Batch, Pending, Written};
use crate::place::{Network, Now};
use crate::random::Random;
use crate::role::Permission;
use crate::secret::SecretForm;
use crate::session::{Actor, Caller, Forbidden, SET_BACK_MS_MAX, SessionError, Token};

/// Days for which a token is good at most.
pub const TOKEN_DAYS_MAX: u16 = 366;
/// Tokens of one account.
pub const TOKENS_EACH_MAX: usize = 16;
/// Bytes of a token's name.
const NAME_BYTES_MAX: usize = 64;
/// Networks of one token.
const NETWORKS_MAX: usize = 8;
const DAY_MS: u64 = 86_400_000;

/// What a token is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// See accounts.
    ReadAccounts,
    /// Suspend accounts, resume them, and end their sessions: for what detects a break-in.
    HoldAccounts,
    /// See health and directories.
    ReadHealth,
    /// Follow what happens to accounts, devices and directories.
    ReadEvents,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ReadAccounts, Self::HoldAccounts, Self::ReadHealth, Self::ReadEvents];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadAccounts => "accounts:read",
            Self::HoldAccounts => "accounts:hold",
            Self::ReadHealth => "health:read",
            Self::ReadEvents => "events:read",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    const fn permissions(self) -> &'static [Permission] {
        match self {
            Self::ReadAccounts => &[Permission::ListAccounts],
            Self::HoldAccounts => &[Permission::SuspendAccounts, Permission::EndSessions],
            Self::ReadHealth => &[Permission::ViewHealth],
            Self::ReadEvents => &[Permission::ReadEvents],
        }
    }
}

/// At least one scope.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// `None` of none.
    #[must_use]
    pub fn new(scopes: &[Scope]) -> Option<Self> {
        let bits = scopes.iter().fold(0, |bits, scope| bits | 1 << *scope as u8);
        (bits != 0).then_some(Self(bits))
    }

    /// The scopes.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & (1 << *scope as u8) != 0)
    }

    pub(crate) fn allow(self, permission: Permission) -> bool {
        self.iter().any(|scope| scope.permissions().contains(&permission))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Scope::name)).finish()
    }
}

impl<C> Encode<C> for Scopes {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.u8(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Scopes {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bits = d.u8()?;
        if bits == 0 || usize::from(bits) >= 1 << Scope::ALL.len() {
            return Err(decode::Error::message("a token has scopes that are known"));
        }
        Ok(Self(bits))
    }
}

/// What a new token is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewToken {
    /// What it is called in lists.
    pub name: String,
    /// What it is for.
    pub scopes: Scopes,
    /// Days for which it is good.
    pub days: u16,
    /// The networks that it is good from; none means all.
    pub networks: Vec<Network>,
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// Only programs have tokens.
    #[error("the account is no active account with the role service and no other")]
    NoService,
    /// The name is empty, too long, or has letters that do not show.
    #[error("a token's name has 1 to {NAME_BYTES_MAX} bytes, and no control characters")]
    Name,
    /// Too long or too short.
    #[error("a token is good for 1 to {TOKEN_DAYS_MAX} days")]
    Days,
    /// Too many networks.
    #[error("a token names at most {NETWORKS_MAX} networks")]
    Networks,
    /// Too many tokens.
    #[error("an account has at most {TOKENS_EACH_MAX} tokens; end one first")]
    TooMany,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A token as the store keeps it and as lists show it: without what it says.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct TokenRow {
    #[n(0)]
    version: u64,
    #[n(1)]
    token: Hash,
    #[n(2)]
    account: AccountId,
    #[n(3)]
    name: String,
    #[n(4)]
    scopes: Scopes,
    #[n(5)]
    networks: Vec<Network>,
    #[n(6)]
    made_by: AccountId,
    #[n(7)]
    made_at: Timestamp,
    #[n(8)]
    expires_at: Timestamp,
    #[n(9)]
    expires_ledger: Timestamp,
}

// Read and written by this crate only, authenticated: see `rows`.
impl SecretForm for TokenRow {
    const WHAT: &'static str = "service token";
    const BYTES_MAX: usize = 512;

    fn check(&self) -> Result<(), &'static str> {
        if self.version != 1 {
            return Err("the version is 1");
        }
        if self.networks.len() > NETWORKS_MAX || !is_name(&self.name) {
            return Err("a token has a name and few networks");
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

impl TokenRow {
    /// Its name among all.
    #[must_use]
    pub fn id(&self) -> SessionId {
        crate::session::id_of(&self.token)
    }

    /// Whose it is.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for.
    #[must_use]
    pub const fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// Where it is good from; none means everywhere.
    #[must_use]
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// Who made it, and when by the wall clock.
    #[must_use]
    pub const fn made(&self) -> (AccountId, Timestamp) {
        (self.made_by, self.made_at)
    }

    /// Its end by the wall clock. By ledger time it ends as long after it was made, whichever is first.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// For good.
    fn is_over(&self, now: Now) -> bool {
        now.wall > self.expires_at || now.ledger > self.expires_ledger
    }

    /// Whether the clock was set back to before it was made: how long that was ago nobody knows. It waits until then.
    fn is_early(&self, now: Now) -> bool {
        now.wall.0.saturating_add(SET_BACK_MS_MAX) < self.made_at.0
    }
}

/// What the store has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenChange {
    /// Write this row.
    Put(Box<TokenRow>),
    /// Remove the row with this id.
    Remove(SessionId),
}

/// All tokens of programs, in memory, with their rows in the store.
#[derive(Debug, Default)]
pub struct ServiceTokens {
    rows: BTreeMap<SessionId, TokenRow>,
    changed: Pending<SessionId>,
}

impl ServiceTokens {
    /// As they were stored.
    #[must_use]
    pub fn load(rows: impl IntoIterator<Item = TokenRow>) -> Self {
        let rows = rows.into_iter().map(|row| (row.id(), row)).collect();
        Self { rows, changed: Pending::default() }
    }

    /// Makes a token for a program. It is shown once.
    ///
    /// # Errors
    /// [`TokenError`]
    pub fn make(
        &mut self,
        by: &Actor<'_>,
        record: &AccountRecord,
        new: NewToken,
        now: Now,
        random: &mut dyn Random,
    ) -> Result<(Token, SessionId), TokenError> {
        by.require(Permission::ManageServiceTokens)?;
        by.require_recent()?;
        if !is_service(record) {
            return Err(TokenError::NoService);
        }
        let NewToken { name, scopes, days, networks } = new;
        if !is_name(&name) {
            return Err(TokenError::Name);
        }
        if !(1..=TOKEN_DAYS_MAX).contains(&days) {
            return Err(TokenError::Days);
        }
        if networks.len() > NETWORKS_MAX {
            return Err(TokenError::Networks);
        }
        if self.of(record.id()).count() >= TOKENS_EACH_MAX {
            return Err(TokenError::TooMany);
        }
        let token = Token::draw(random)?;
        let span = u64::from(days) * DAY_MS;
        let row = TokenRow {
            version: 1,
            token: token.hash(),
            account: record.id(),
            name,
            scopes,
            networks,
            made_by: by.account(),
            made_at: now.wall,
            expires_at: Timestamp(now.wall.0.saturating_add(span)),
            expires_ledger: Timestamp(now.ledger.0.saturating_add(span)),
        };
        let id = row.id();
        self.rows.insert(id, row);
        self.changed.insert(id);
        Ok((token, id))
    }

    /// The tokens of an account.
    pub fn of(&self, account: AccountId) -> impl Iterator<Item = &TokenRow> {
        self.rows.values().filter(move |row| row.account == account)
    }

    /// Whether there is one of this id.
    #[must_use]
    pub fn is_open(&self, id: SessionId) -> bool {
        self.rows.contains_key(&id)
    }

    /// Ends a token of an account. `false` if it has none of this id.
    ///
    /// # Errors
    /// [`Forbidden`]
    pub fn end(&mut self, by: &Actor<'_>, account: AccountId, id: SessionId) -> Result<bool, Forbidden> {
        by.require(Permission::ManageServiceTokens)?;
        let there = self.rows.get(&id).is_some_and(|row| row.account == account);
        if there {
            self.remove(id);
        }
        Ok(there)
    }

    /// Ends what is over, and what its account has no more.
    pub fn sweep<'a>(&mut self, now: Now, record: impl Fn(AccountId) -> Option<&'a AccountRecord>) {
        let gone = |row: &TokenRow| row.is_over(now) || !record(row.account).is_some_and(has_service);
        let over: Vec<_> = self.rows.iter().filter(|(_, row)| gone(row)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.remove(id));
    }

    fn remove(&mut self, id: SessionId) {
        if self.rows.remove(&id).is_some() {
            self.changed.insert(id);
        }
    }

    /// Who shows this token, from there. `record` is the account's record as it is now.
    ///
    /// # Errors
    /// [`SessionError`]
    pub fn check<'a>(
        &self,
        token: &Token,
        network: Option<Network>,
        now: Now,
        record: impl Fn(AccountId) -> Option<&'a AccountRecord>,
    ) -> Result<Caller, SessionError> {
        let hash = token.hash();
        let row = self.rows.get(&crate::session::id_of(&hash)).filter(|row| row.token == hash);
        let row = row.ok_or(SessionError::Unknown)?;
        if row.is_over(now) || row.is_early(now) {
            return Err(SessionError::Over);
        }
        if !row.networks.is_empty() && !network.is_some_and(|network| row.networks.contains(&network)) {
            return Err(SessionError::OtherChannel);
        }
        let record =
            record(row.account).filter(|record| is_service(record)).ok_or(SessionError::AccessChanged)?;
        Ok(Caller::of_token(record, row.id(), row.scopes))
    }

    /// What the store has to write.
    pub fn changes(&self) -> Batch<TokenChange> {
        self.changed.batch(|id| match self.rows.get(&id) {
            Some(row) => TokenChange::Put(Box::new(row.clone())),
            None => TokenChange::Remove(id),
        })
    }

    /// The store has written a batch, durably.
    pub fn stored(&mut self, until: Written) {
        self.changed.stored(until);
    }
}

/// A program, and nothing else: whoever is also a person signs in as one.
fn is_service(record: &AccountRecord) -> bool {
    record.is_active() && has_service(record)
}

/// Suspended, its tokens wait.
fn has_service(record: &AccountRecord) -> bool {
    let gone = matches!(record.status(), crate::account::Status::Offboarded { .. });
    !gone && record.roles().iter().eq([Role::Service])
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
