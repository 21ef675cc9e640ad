//! Directories: whose password they know, and whom they let in no more (decision 0016).

use super::{Access, AccessKeys, account_row, problems, put};
use crate::problem;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use zixt_api::{
    DirectoryInfo, DirectoryList, ErrorCode, FactorKind, HeldPlanInfo, Hex, LinkInfo, Problem, Secret,
    SignInWay,
};
use zixt_crypto::fill_random;
use zixt_directory::{
    BindError, Bound, Directory, HeldPlan, Linked, Person, Plan, Snapshot, WatchHandle, What, login_key,
};
use zixt_identity::{
    AccountError, AccountRecord, Admitted, Authority, By, Caller, Change, Factor, Incoming, IssuerId, Link,
    Login, Named, NotAdmitted, Permission, Proof, Roles, Start, Status,
};
use zixt_storage::AccessKind;
use zixt_types::{AccountId, Canonical as _, Hash, Timestamp};

/// A name that nobody has: asking for it takes a directory as long as asking for somebody.
const NOBODY: &str = "";
/// People of a plan that is held back who are named to whoever looks at it.
const NAMED_MAX: usize = 100;

/// A directory and what it said last.
pub(crate) struct Here {
    pub(crate) directory: Arc<Directory>,
    known: RwLock<Known>,
    handle: OnceLock<WatchHandle>,
    /// Accounts about which it was told that they do not follow.
    told: Mutex<HashSet<AccountId>>,
}

#[derive(Default)]
struct Known {
    snapshot: Option<Arc<Snapshot>>,
    by_login: HashMap<String, Link>,
    /// Places in the snapshot.
    by_link: HashMap<Link, usize>,
}

impl Here {
    pub(crate) fn new(directory: Directory) -> Self {
        Self {
            directory: Arc::new(directory),
            known: RwLock::default(),
            handle: OnceLock::new(),
            told: Mutex::default(),
        }
    }

    pub(crate) fn issuer(&self) -> IssuerId {
        self.directory.issuer().id()
    }

    fn name(&self) -> &str {
        self.directory.config().name()
    }

    /// Takes what it said as what is known of it.
    fn learn(&self, snapshot: Arc<Snapshot>) {
        let issuer = self.directory.issuer();
        let by_login = snapshot.logins(issuer);
        let by_link = snapshot.links(issuer).enumerate().map(|(at, (link, _))| (link, at)).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) =
            Known { snapshot: Some(snapshot), by_login, by_link };
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn link_of(&self, login: &str) -> Option<Link> {
        self.known().by_login.get(&login_key(login)?).copied()
    }

    fn person<T>(&self, link: &Link, look: impl FnOnce(&Person) -> T) -> Option<T> {
        let known = self.known();
        let at = *known.by_link.get(link)?;
        known.snapshot.as_ref()?.people().get(at).map(look)
    }

    fn login_of(&self, link: &Link) -> Option<String> {
        self.person(link, |person| person.login().map(str::to_owned))?
    }

    /// The roles that groups stand for, if they stand for any.
    fn roles_of(&self, person: &Person) -> Option<Roles> {
        self.directory.config().maps_roles().then(|| person.wanted().roles_or(Roles::USER))
    }

    /// Whether it was not told yet that an account does not follow.
    pub(crate) fn is_news(&self, account: AccountId) -> bool {
        !self.told.lock().unwrap_or_else(PoisonError::into_inner).contains(&account)
    }

    /// It is on record that an account does not follow, or that it does.
    pub(crate) fn told(&self, account: AccountId, follows: bool) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if follows {
            told.remove(&account);
        } else {
            told.insert(account);
        }
    }

    /// What the watch began with, and by which the rest speaks to it.
    pub(crate) fn watched(&self, handle: WatchHandle) {
        let _ = self.handle.set(handle);
    }

    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.known().snapshot.as_deref().cloned()
    }

    fn info(&self) -> DirectoryInfo {
        let health = self.handle.get().map(WatchHandle::health).unwrap_or_default();
        DirectoryInfo {
            issuer: issuer_text(self.issuer()),
            name: self.name().to_owned(),
            people: health.people as u64,
            last_success: health.last_success.map(|at| at.0),
            server: health.server,
            took_ms: u64::try_from(health.took.as_millis()).unwrap_or(u64::MAX),
            failures: health.failures,
            last_error: health.last_error,
            faults: health.faults.named().iter().map(ToString::to_string).collect(),
            held: health.held.as_deref().map(held_info),
        }
    }
}

fn held_info(held: &HeldPlan) -> HeldPlanInfo {
    let named = |change: &zixt_directory::Change| {
        let person = change.person.as_ref();
        person.and_then(Person::login).map_or_else(|| "somebody who is gone".to_owned(), str::to_owned)
    };
    HeldPlanInfo {
        digest: Hex(held.digest()),
        reasons: held.reasons().iter().map(ToString::to_string).collect(),
        suspends: held.suspends().count() as u64,
        logins: held.suspends().take(NAMED_MAX).map(named).collect(),
    }
}

/// An issuer as it travels.
pub(crate) fn issuer_text(issuer: IssuerId) -> String {
    use std::fmt::Write as _;
    issuer.0.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn taken() -> Problem {
    Problem::new(ErrorCode::AccountStatusWrong, "another account is linked to this person")
}

fn unknown_directory() -> Problem {
    Problem::new(ErrorCode::UnknownDirectory, "no directory or identity provider here has this name")
}

/// Whom somebody named who wants to sign in with a directory's password.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryName {
    pub(crate) issuer: IssuerId,
    pub(crate) login: String,
}

/// What a plan did to an account, or why not.
pub(crate) struct Done {
    pub(crate) outcome: Result<(), String>,
}

/// What a plan is going to do to an account.
pub(crate) struct Due {
    pub(crate) account: AccountId,
    link: Link,
    deed: DueDeed,
}

#[derive(Clone, Copy)]
enum DueDeed {
    Suspend,
    Resume,
    Roles(Roles),
}

impl Due {
    pub(crate) const fn action(&self) -> zixt_audit::Action {
        match self.deed {
            DueDeed::Suspend => zixt_audit::Action::AccountSuspended,
            DueDeed::Resume => zixt_audit::Action::AccountResumed,
            DueDeed::Roles(_) => zixt_audit::Action::RoleGranted,
        }
    }
}

impl Access {
    /// The directories of the configuration.
    pub(crate) fn directories(&self) -> &[Arc<Here>] {
        &self.directories
    }

    /// One, by its name or its issuer.
    pub(super) fn directory(&self, named: &str) -> Option<&Arc<Here>> {
        self.directories.iter().find(|here| here.name() == named || issuer_text(here.issuer()) == named)
    }

    fn directory_of(&self, issuer: IssuerId) -> Option<&Arc<Here>> {
        self.directories.iter().find(|here| here.issuer() == issuer)
    }

    /// What somebody can sign in with who is known elsewhere.
    pub(crate) fn ways(&self) -> Vec<SignInWay> {
        self.directories
            .iter()
            .map(|here| SignInWay {
                issuer: issuer_text(here.issuer()),
                name: here.name().to_owned(),
                factor: FactorKind::Directory,
            })
            .chain(self.idp_ways())
            .collect()
    }

    /// Reads what directories said last, with everything else.
    pub(super) async fn read_snapshots(&self, keys: &AccessKeys) -> Result<(), zixt_storage::StoreError> {
        for here in self.directories.iter() {
            let id = snapshot_id(here.issuer());
            let Some(sealed) = self.store.access(AccessKind::Setting, &id).await? else { continue };
            let opened = keys.open(AccessKind::Setting, &id, &sealed).ok();
            match opened.and_then(|bytes| Snapshot::parse(&bytes).ok()) {
                Some(snapshot) => here.learn(Arc::new(snapshot)),
                // The next round reads everybody, and holds every linked account against it.
                None => log::error!("what directory {} said last is damaged, and ignored", here.name()),
            }
        }
        Ok(())
    }

    /// Whose account a login name at a directory is.
    pub(super) fn named_at(
        &self,
        directory: &str,
        login: &str,
    ) -> Result<(Option<AccountId>, DirectoryName), Problem> {
        let here = self.directory(directory).ok_or_else(unknown_directory)?;
        let account = match here.link_of(login) {
            Some(link) => self.linked_account(&link)?,
            None => None,
        };
        Ok((account, DirectoryName { issuer: here.issuer(), login: login.to_owned() }))
    }

    fn linked_account(&self, link: &Link) -> Result<Option<AccountId>, Problem> {
        Ok(self.inner()?.accounts.linked(link))
    }

    /// Asks the directory whether this is the password. The attempt is admitted, and is given back where nobody could say.
    pub(super) async fn ask_directory(
        &self,
        account: Option<AccountId>,
        named: Option<&DirectoryName>,
        admitted: &Admitted,
        password: &Secret,
        now: Timestamp,
    ) -> Result<(Proof, Option<String>), Problem> {
        let linked = match account {
            Some(account) => {
                let inner = self.inner()?;
                let links = inner.accounts.get(&account).map(|record| record.links().to_vec());
                links.unwrap_or_default()
            }
            None => Vec::new(),
        };
        let of_account = || {
            linked.iter().find_map(|link| {
                let here = self.directory_of(link.issuer)?;
                // Who is not there any more is asked for like anybody else.
                Some((here, here.login_of(link).unwrap_or_else(|| NOBODY.to_owned())))
            })
        };
        let asked = match named {
            // Who has no account here is not tried there: a stranger could lock out whoever they like.
            Some(named) => self
                .directory_of(named.issuer)
                .map(|here| (here, account.map_or_else(|| NOBODY.to_owned(), |_| named.login.clone()))),
            None => of_account().or_else(|| self.directories.first().map(|here| (here, NOBODY.to_owned()))),
        };
        let Some((here, login)) = asked else {
            return Ok((Proof::NotVouched(Factor::Directory), Some("no directory is set up".to_owned())));
        };
        match here.directory.bind(&login, password.expose().as_bytes(), now).await {
            Ok(bound) => Ok((Proof::Voucher(here.directory.vouch(bound, admitted, now)), None)),
            Err(BindError::Refused(refused)) => {
                Ok((here.directory.refuse(), Some(format!("the directory: {}", refused.reason().name()))))
            }
            // A server has the password and may have looked at it: it stays counted.
            Err(BindError::Unavailable(error)) if error.counts() => {
                log::warn!("directory {}: {error}", here.name());
                Ok((here.directory.refuse(), Some("the directory gave no clear answer".to_owned())))
            }
            Err(BindError::Unavailable(error)) => {
                log::warn!("directory {}: {error}", here.name());
                Err(Problem::new(ErrorCode::SignInUnavailable, "the directory cannot be asked now"))
            }
        }
    }

    /// Links the caller to a person at a directory, whose password they have just shown. Tries count like tries to sign in.
    ///
    /// # Errors
    /// The caller may not now, the password is wrong, or the directory cannot be asked.
    pub(crate) async fn link(
        &self,
        door: &super::Door,
        caller: &Caller,
        directory: &str,
        login: &str,
        password: &Secret,
    ) -> Result<zixt_api::Renewed, Problem> {
        self.require_own(caller)?;
        let here = self.directory(directory).ok_or_else(unknown_directory)?;
        let keys = self.keys()?;
        let now = self.now();
        // Counted for the name at the directory and for the network, and not for the caller, who could forgive themselves; and
        // not tried at all for whom no link can come of, with the answer that a wrong password gets.
        let spelling = format!("{}/{}", issuer_text(here.issuer()), login_key(login).unwrap_or_default());
        let possible = {
            let inner = self.inner()?;
            if inner.own(caller)?.link_to(here.issuer()).is_some() {
                return Err(problems::of_account(AccountError::Links));
            }
            here.link_of(login).is_some_and(|link| inner.accounts.linked(&link).is_none())
        };
        let start = Start {
            genesis: self.genesis,
            appliance: self.me,
            who: Named::Nobody(&spelling),
            origin: door.origin(),
            channel: door.channel(),
        };
        let incoming = Incoming {
            factor: Factor::Directory,
            origin: door.origin(),
            channel: door.channel().binding(),
            device: door.device.is_some(),
        };
        let (login_under_way, admitted) = {
            let mut inner = self.inner()?;
            let login = Login::begin(&self.policy, &inner.attempts, &start, now, &mut fill_random)
                .map_err(|error| Problem::new(ErrorCode::SignInUnavailable, error.to_string()))?;
            let admitted = login.admit(&self.policy, &mut inner.attempts, None, &incoming, now);
            (login, admitted)
        };
        let admitted = admitted.map_err(|why| match why {
            NotAdmitted::Locked(locked) => problems::locked(locked, now.wall),
            NotAdmitted::OtherConnection => problems::refused(),
        })?;
        {
            let _alone = self.writing.lock().await;
            self.write_pending(&keys, Vec::new()).await?;
        }
        let asked = if possible { login } else { NOBODY };
        let bound = here.directory.bind(asked, password.expose().as_bytes(), now.wall).await;
        let bound = match bound {
            Ok(bound) => bound,
            Err(BindError::Refused(refused)) => {
                // It stays counted as what it was: a wrong password.
                drop(admitted);
                log::debug!("link: {refused}");
                return Err(problems::refused());
            }
            Err(BindError::Unavailable(error)) => {
                // Where a server has the password, it stays counted.
                if !error.counts() {
                    login_under_way.give_back(admitted, &mut self.inner()?.attempts);
                }
                log::warn!("directory {}: {error}", here.name());
                return Err(Problem::new(ErrorCode::SignInUnavailable, "the directory cannot be asked now"));
            }
        };
        login_under_way.give_back(admitted, &mut self.inner()?.attempts);
        self.link_bound(caller, &bound).await
    }

    async fn link_bound(&self, caller: &Caller, bound: &Bound) -> Result<zixt_api::Renewed, Problem> {
        let link = bound.link();
        let renewed = self.change_links(caller, |record, authority| record.link(authority, link)).await?;
        // Other roles are not had in a session of before: then it ends, and the next sign-in has them.
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let mapped =
            self.inner()?.accounts.get(&caller.account()).and_then(|record| self.mapped(record, &link));
        if let Some(change) = mapped {
            self.carry_out(&keys, change, Vec::new()).await?;
        }
        Ok(renewed)
    }

    /// Takes the caller's link away.
    ///
    /// # Errors
    /// The caller may not now, or has no such link.
    pub(crate) async fn unlink(
        &self,
        caller: &Caller,
        issuer: IssuerId,
    ) -> Result<zixt_api::Renewed, Problem> {
        self.change_links(caller, |record, authority| record.unlink(authority, issuer)).await
    }

    /// One change of the caller's links. All their sessions end; the one that asked goes on under a new token.
    pub(super) async fn change_links(
        &self,
        caller: &Caller,
        change: impl FnOnce(&AccountRecord, &Authority<'_>) -> Result<Change, AccountError>,
    ) -> Result<zixt_api::Renewed, Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let now = self.now();
        let changed = {
            let inner = self.inner()?;
            let record = inner.own(caller)?;
            let actor = caller.acting(record, now.wall).map_err(problems::of_forbidden)?;
            let changed = change(record, &Authority::Caller(actor)).map_err(problems::of_account)?;
            let others = changed.record.links().iter().filter_map(|link| inner.accounts.linked(link));
            if others.into_iter().any(|other| other != record.id()) {
                return Err(taken());
            }
            changed
        };
        self.renewed(&keys, caller, &changed.record, vec![account_row(&keys, &changed.record)]).await
    }

    /// Takes somebody's link away.
    ///
    /// # Errors
    /// The caller may not, or there is no such link.
    pub(crate) async fn unlink_somebody(
        &self,
        caller: &Caller,
        account: AccountId,
        issuer: IssuerId,
    ) -> Result<(), Problem> {
        caller.require(Permission::ConfigureDirectories).map_err(problems::of_forbidden)?;
        self.transition(caller, account, |record, by, _, _| record.unlink(by, issuer)).await
    }

    /// The link of somebody who has not come yet, for the appliance's own console.
    ///
    /// # Errors
    /// The directory does not have them, as far as it was read.
    pub(crate) fn link_for(&self, directory: &str, login: &str) -> Result<Link, Problem> {
        let here = self.directory(directory).ok_or_else(unknown_directory)?;
        let unknown =
            || Problem::new(ErrorCode::UnknownPerson, "the directory has nobody of this login name");
        let link = here.link_of(login).ok_or_else(unknown)?;
        if self.linked_account(&link)?.is_some() {
            return Err(taken());
        }
        Ok(link)
    }

    /// The record with the roles that its person's groups stand for, if that changes it.
    pub(super) fn mapped(&self, record: &AccountRecord, link: &Link) -> Option<Change> {
        let here = self.directory_of(link.issuer)?;
        let roles = here.person(link, |person| here.roles_of(person))??;
        record.map_roles(link.issuer, roles).ok()?
    }

    /// Says which accounts nobody looks after any more: the configuration does not have whom they are linked to.
    pub(super) fn name_unknown_issuers(&self, accounts: &super::People) {
        let mut unknown: HashMap<IssuerId, usize> = HashMap::new();
        for link in accounts.values().flat_map(AccountRecord::links) {
            if self.directory_of(link.issuer).is_none() && self.idp(link.issuer).is_err() {
                *unknown.entry(link.issuer).or_default() += 1;
            }
        }
        for (issuer, count) in unknown {
            let issuer = issuer_text(issuer);
            log::warn!(
                "{count} accounts are linked to {issuer}, which is not configured: it suspends none of them"
            );
        }
    }

    /// An account's links, with the login names that directories have for them.
    pub(super) fn link_infos(&self, links: &[Link]) -> Vec<LinkInfo> {
        links
            .iter()
            .map(|link| {
                let here = self.directory_of(link.issuer);
                let idp = self.idp(link.issuer).ok();
                LinkInfo {
                    issuer: issuer_text(link.issuer),
                    name: here.map(|here| here.name().to_owned()).or(idp.map(|idp| idp.name().to_owned())),
                    login: here.and_then(|here| here.login_of(link)),
                }
            })
            .collect()
    }

    /// How directories are.
    pub(crate) fn directory_list(&self) -> DirectoryList {
        DirectoryList {
            directories: self.directories.iter().map(|here| here.info()).collect(),
            providers: self.idp_infos(),
        }
    }

    /// Reads a directory now.
    ///
    /// # Errors
    /// There is none of this name, or the caller may not.
    pub(crate) fn hurry(&self, caller: &Caller, issuer: IssuerId) -> Result<(), Problem> {
        caller.require(Permission::ConfigureDirectories).map_err(problems::of_forbidden)?;
        let here = self.directory_of(issuer).ok_or_else(unknown_directory)?;
        if let Some(handle) = here.handle.get() {
            handle.hurry();
        }
        Ok(())
    }

    /// Lets happen what a directory was kept from: the word of a security officer, for exactly this digest.
    ///
    /// # Errors
    /// The caller may not, or something else is held back.
    pub(crate) fn release(&self, caller: &Caller, issuer: IssuerId, digest: Hash) -> Result<(), Problem> {
        let now = self.now();
        {
            let inner = self.inner()?;
            let actor = caller.acting(inner.own(caller)?, now.wall).map_err(problems::of_forbidden)?;
            actor.require(Permission::ReleaseDirectoryPlans).map_err(problems::of_forbidden)?;
        }
        let here = self.directory_of(issuer).ok_or_else(unknown_directory)?;
        let nothing = || zixt_directory::ReleaseError::Nothing;
        let released = here.handle.get().ok_or_else(nothing).and_then(|handle| handle.release(digest));
        released.map_err(|error| Problem::new(ErrorCode::NothingHeld, error.to_string()))
    }

    /// The links to a directory of active accounts, and of those that it has suspended.
    ///
    /// # Errors
    /// Accounts have not been read yet.
    pub(crate) fn linked(&self, issuer: IssuerId) -> Result<Linked, Problem> {
        let inner = self.inner()?;
        let mut linked = Linked::default();
        for record in inner.accounts.values() {
            let Some(link) = record.link_to(issuer).copied() else { continue };
            match record.status() {
                _ if record.is_active() => linked.active.push(link),
                Status::Suspended { by: By::Directory(by), .. } if *by == issuer => {
                    linked.suspended.push(link)
                }
                _ => {}
            }
        }
        Ok(linked)
    }

    /// What a plan does to accounts here, what takes away first.
    ///
    /// # Errors
    /// Accounts have not been read yet.
    pub(crate) fn due(&self, here: &Here, plan: &Plan) -> Result<Vec<Due>, Problem> {
        let inner = self.inner()?;
        let linked: HashMap<Link, AccountId> = inner
            .accounts
            .values()
            .filter_map(|record| Some((*record.link_to(plan.issuer())?, record.id())))
            .collect();
        let mut due = Vec::new();
        for change in plan.changes() {
            let Some(account) = linked.get(&change.link).copied() else { continue };
            let Ok(record) = inner.record(account) else { continue };
            let mut push = |deed| due.push(Due { account, link: change.link, deed });
            if change.what.suspends() {
                if record.is_active() {
                    push(DueDeed::Suspend);
                }
                continue;
            }
            if change.what.resumes() && record.clone().resume(&Authority::Directory(plan.issuer())).is_ok() {
                push(DueDeed::Resume);
            }
            // Only whose groups changed: what people have given or taken since stays as it is.
            if change.what == What::Regrouped
                && let Some(roles) = change.person.as_ref().and_then(|person| here.roles_of(person))
                && matches!(record.map_roles(plan.issuer(), roles), Ok(Some(_)))
            {
                push(DueDeed::Roles(roles));
            }
        }
        Ok(due)
    }

    /// Does it to one account.
    ///
    /// # Errors
    /// It cannot be stored now. What an account does not take is told in what is given.
    pub(crate) async fn carry_out_due(&self, due: &Due) -> Result<Done, Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let now = self.now();
        let authority = Authority::Directory(due.link.issuer);
        let changed = {
            let inner = self.inner()?;
            let record = inner.record(due.account)?;
            match due.deed {
                DueDeed::Suspend => record.suspend(&authority, inner.population(), now.wall).map(Some),
                DueDeed::Resume => record.resume(&authority).map(Some),
                DueDeed::Roles(roles) => record.map_roles(due.link.issuer, roles),
            }
        };
        let outcome = match changed {
            Ok(Some(change)) => self.carry_out(&keys, change, Vec::new()).await.map(Ok)?,
            Ok(None) => Ok(()),
            Err(error @ AccountError::LastOf(_)) => {
                // Without its last administrator the appliance would be nobody's. What is open ends all the same.
                self.inner()?.sessions.revoke_account(due.account, None);
                self.ended.send_replace(());
                self.write_pending(&keys, Vec::new()).await?;
                Err(error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        Ok(Done { outcome })
    }

    /// Keeps what a directory said, once everything that follows from it is done.
    ///
    /// # Errors
    /// It cannot be stored now.
    pub(crate) async fn keep_snapshot(&self, here: &Here, snapshot: &Snapshot) -> Result<(), Problem> {
        let keys = self.keys()?;
        let id = snapshot_id(here.issuer());
        let (bytes, snapshot) = (snapshot.to_bytes(), Arc::new(snapshot.clone()));
        let sealed = keys.seal(AccessKind::Setting, &id, &bytes);
        let sealed = sealed.map_err(|error| Problem::new(ErrorCode::StoreFailed, error.to_string()))?;
        let stored = self.store.write_access(&[put(AccessKind::Setting, &id, sealed)]).await;
        stored.map_err(|error| problem::of_store(&error))?;
        here.learn(snapshot);
        Ok(())
    }
}

fn snapshot_id(issuer: IssuerId) -> Vec<u8> {
    [b"directory/".as_slice(), &issuer.0].concat()
}

/// Reads what [`issuer_text`] makes.
///
/// # Errors
/// It is none.
pub(crate) fn parse_issuer(text: &str) -> Result<IssuerId, Problem> {
    let digit = |at: usize| text.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let malformed = || Problem::new(ErrorCode::MalformedRequest, "an issuer is 32 hexadecimal digits");
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(malformed());
    }
    let mut id = [0; 16];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = digit(at).ok_or_else(malformed)?;
    }
    Ok(IssuerId(id))
}
