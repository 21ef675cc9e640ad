//! Tokens of programs.

use super::{Access, AccessKeys, problems, put, remove};
use zixt_api::{
    ErrorCode, Hex, NewServiceToken, Problem, ServiceTokenInfo, ServiceTokenList, ServiceTokenMade,
};
use zixt_crypto::fill_random;
use zixt_identity::{
    Caller, Network, NewToken, Permission, Scope, Scopes, TokenChange, TokenError, TokenRow,
};
use zixt_storage::{AccessChange, AccessKind};
use zixt_types::{AccountId, SessionId};

impl Access {
    /// Makes a token for a program.
    ///
    /// # Errors
    /// The caller may not now, the account is no program's, or the token cannot be as it is wanted.
    pub(crate) async fn make_token(
        &self,
        caller: &Caller,
        account: AccountId,
        new: NewServiceToken,
    ) -> Result<ServiceTokenMade, Problem> {
        caller.require(Permission::ManageServiceTokens).map_err(problems::of_forbidden)?;
        let new = parse(new)?;
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let (token, id, expires_at) = {
            let now = self.now();
            let mut inner = self.inner()?;
            let own = inner.own(caller)?.clone();
            let record = inner.record(account)?.clone();
            let actor = caller.acting(&own, now.wall).map_err(problems::of_forbidden)?;
            let made = inner.tokens.make(&actor, &record, new, now, &mut fill_random);
            let (token, id) = made.map_err(of_token)?;
            let row = inner.tokens.of(account).find(|row| row.id() == id);
            (token, id, row.map_or(0, |row| row.expires_at().0))
        };
        self.write_tokens(&keys).await?;
        Ok(ServiceTokenMade { token: token.to_text().into(), id: Hex(id), expires_at })
    }

    /// The tokens of a program.
    ///
    /// # Errors
    /// The caller may not see them.
    pub(crate) fn tokens(&self, caller: &Caller, account: AccountId) -> Result<ServiceTokenList, Problem> {
        caller.require(Permission::ManageServiceTokens).map_err(problems::of_forbidden)?;
        let inner = self.inner()?;
        inner.record(account)?;
        Ok(ServiceTokenList { tokens: inner.tokens.of(account).map(info).collect() })
    }

    /// Ends a token.
    ///
    /// # Errors
    /// The caller may not, or there is none.
    pub(crate) async fn end_token(
        &self,
        caller: &Caller,
        account: AccountId,
        token: SessionId,
    ) -> Result<(), Problem> {
        caller.require(Permission::ManageServiceTokens).map_err(problems::of_forbidden)?;
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let there = {
            let now = self.now();
            let mut inner = self.inner()?;
            let own = inner.own(caller)?.clone();
            inner.record(account)?;
            let actor = caller.acting(&own, now.wall).map_err(problems::of_forbidden)?;
            inner.tokens.end(&actor, account, token).map_err(problems::of_forbidden)?
        };
        if !there {
            return Err(Problem::new(ErrorCode::UnknownSession, "the account has no such token"));
        }
        self.ended.send_replace(());
        self.write_tokens(&keys).await
    }

    /// Makes durable what changed in tokens. Under [`Self::writing`].
    pub(super) async fn write_tokens(&self, keys: &AccessKeys) -> Result<(), Problem> {
        let batch = self.inner()?.tokens.changes();
        if batch.changes.is_empty() {
            return Ok(());
        }
        let rows: Vec<AccessChange> = batch
            .changes
            .iter()
            .map(|change| match change {
                TokenChange::Put(row) => {
                    put(AccessKind::ServiceToken, row.id().as_bytes(), row.seal(&keys.rows))
                }
                TokenChange::Remove(id) => remove(AccessKind::ServiceToken, id.as_bytes()),
            })
            .collect();
        self.write(&rows).await?;
        self.inner()?.tokens.stored(batch.until);
        Ok(())
    }
}

fn parse(new: NewServiceToken) -> Result<NewToken, Problem> {
    let refused = |why: String| Problem::new(ErrorCode::TokenRefused, why);
    let scopes: Option<Vec<Scope>> = new.scopes.iter().map(|name| Scope::named(name)).collect();
    let known = || Scope::ALL.map(Scope::name).join(", ");
    let scopes = scopes.and_then(|scopes| Scopes::new(&scopes));
    let scopes =
        scopes.ok_or_else(|| refused(format!("a token has one or more of the scopes {}", known())))?;
    let networks: Result<Vec<Network>, _> = new
        .networks
        .iter()
        .map(|address| {
            address.parse().map(Network::of).map_err(|_| refused(format!("{address:?} is no address")))
        })
        .collect();
    Ok(NewToken { name: new.name, scopes, days: new.days, networks: networks? })
}

fn of_token(error: TokenError) -> Problem {
    match error {
        TokenError::Forbidden(error) => problems::of_forbidden(error),
        TokenError::NoService => Problem::new(ErrorCode::AccountStatusWrong, error.to_string()),
        TokenError::Random(error) => Problem::new(ErrorCode::SignInUnavailable, error.to_string()),
        _ => Problem::new(ErrorCode::TokenRefused, error.to_string()),
    }
}

fn info(row: &TokenRow) -> ServiceTokenInfo {
    let (made_by, made_at) = row.made();
    ServiceTokenInfo {
        id: Hex(row.id()),
        name: row.name().to_owned(),
        scopes: row.scopes().iter().map(|scope| scope.name().to_owned()).collect(),
        networks: row.networks().iter().map(ToString::to_string).collect(),
        made_by: Hex(made_by),
        made_at: made_at.0,
        expires_at: row.expires_at().0,
    }
}
