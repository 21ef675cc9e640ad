//! What follows from two snapshots: who appeared, changed, was disabled, came back or is gone. Pure.
//!
//! A plan that takes too much from too many is held back whole. Nothing of it is done, not even what gives: if a
//! directory says that everybody is gone, what it says of the others is not believed either. An officer releases it by
//! the digest of what it takes; if it would take more by then than could be taken unasked, it is held back again.

use std::collections::{HashMap, HashSet};
use std::fmt;

use zixt_crypto::hash::Hasher;
use zixt_crypto::labels;
use zixt_identity::{Issuer, IssuerId, Link, Role};
use zixt_types::Hash;

use crate::config::Safety;
use crate::faults::Faults;
use crate::snapshot::{Person, Snapshot, Wanted};

/// What happened to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Is there, and was not before. An account that the directory had suspended is resumed if they are enabled.
    Appeared {
        /// Whether the directory lets them in.
        enabled: bool,
    },
    /// Has another name, login or address, or was moved.
    Renamed,
    /// Is in other groups: see [`Person::wanted`]. What the account has of it is for whoever applies the plan.
    Regrouped,
    /// May not sign in any more. The account is suspended.
    Disabled,
    /// May sign in again. The account is resumed if the directory had suspended it.
    Enabled,
    /// Is not there any more. The account is suspended.
    Vanished,
}

impl What {
    /// Whether an account with this link is suspended, and its sessions end.
    #[must_use]
    pub const fn suspends(self) -> bool {
        matches!(self, Self::Disabled | Self::Vanished | Self::Appeared { enabled: false })
    }

    /// Whether an account with this link is resumed, if this directory suspended it.
    #[must_use]
    pub const fn resumes(self) -> bool {
        matches!(self, Self::Enabled | Self::Appeared { enabled: true })
    }
}

/// Something that happened, to whom, and who they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// By which an account is theirs.
    pub link: Link,
    /// What happened.
    pub what: What,
    /// As they are now; as they were, if they are gone. `None` for an account of which the directory never told.
    pub person: Option<Person>,
}

/// The accounts here that are linked to a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Linked {
    /// Of the accounts that are active. Those of them that the directory does not let in lose their access, also if it said
    /// so before they were linked or the snapshot was lost.
    pub active: Vec<Link>,
    /// Of the accounts that this directory has suspended, and nobody else. Those of them that it lets in are resumed, also
    /// if a plan that did so was done in part only.
    pub suspended: Vec<Link>,
}

/// How many lose something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// People of the directory who lose their access, whether they have an account here or not.
    pub people: usize,
    /// Active accounts here that are suspended.
    pub accounts: usize,
    /// People who lose a role.
    pub roles: usize,
}

impl Taken {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            people: self.people.saturating_add(other.people),
            accounts: self.accounts.saturating_add(other.accounts),
            roles: self.roles.saturating_add(other.roles),
        }
    }
}

/// What a new snapshot is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// The one before; `None` if there is none, or it was lost.
    pub before: Option<&'a Snapshot>,
    /// The accounts here.
    pub linked: &'a Linked,
    /// What was taken in the last 24 hours without an officer's word. It counts against what may be taken now, so that a
    /// share in each round does not add up to everybody.
    pub recent: Taken,
}

/// Somebody who loses a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRoles {
    /// By which an account is theirs.
    pub link: Link,
    /// What they lose.
    pub lost: Wanted,
    /// As they were.
    pub person: Person,
}

/// What is to be done, in the order of [`Plan::changes`]. What takes away too much is a [`HeldPlan`] instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    issuer: IssuerId,
    changes: Vec<Change>,
    people: usize,
    faults: Faults,
    digest: Hash,
    released: bool,
    taken: Taken,
}

impl Plan {
    /// Which directory says so: the authority of each change ([`zixt_identity::Authority::Directory`]).
    #[must_use]
    pub const fn issuer(&self) -> IssuerId {
        self.issuer
    }

    /// What takes away first, then by link.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How many people there are now.
    #[must_use]
    pub const fn people(&self) -> usize {
        self.people
    }

    /// What is wrong in the directory.
    #[must_use]
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The digest of what it takes, where it was held back and an officer released it.
    #[must_use]
    pub fn released(&self) -> Option<Hash> {
        self.released.then_some(self.digest)
    }

    /// How many lose something by it without an officer's word.
    #[must_use]
    pub const fn taken(&self) -> Taken {
        self.taken
    }

    /// Resumes nobody. Who is suspended and let in comes again with the next plan, by [`Linked::suspended`].
    pub(crate) fn without_resumes(mut self) -> Self {
        self.changes.retain(|change| !change.what.resumes());
        self
    }

    /// How many changes are of this kind.
    #[must_use]
    pub fn count(&self, of: impl Fn(What) -> bool) -> usize {
        self.changes.iter().filter(|change| of(change.what)).count()
    }
}

/// Why a plan is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The directory answered, and has nobody.
    Empty {
        /// How many there were.
        before: usize,
    },
    /// Too many would lose their access.
    Access {
        /// How many.
        taken: usize,
        /// Of how many.
        before: usize,
        /// How many may without an officer's word.
        allowed: usize,
    },
    /// Too many of the accounts here would be suspended, however many people the directory has; or all of them.
    Accounts {
        /// How many.
        taken: usize,
        /// Of how many.
        before: usize,
        /// How many may without an officer's word.
        allowed: usize,
    },
    /// Too many accounts here would become operators: an old replica, or a group that was filled by mistake.
    Operators {
        /// How many.
        given: usize,
        /// Of how many accounts.
        before: usize,
        /// How many may without an officer's word.
        allowed: usize,
    },
    /// Too many would lose a role.
    Roles {
        /// How many.
        taken: usize,
        /// Of how many.
        before: usize,
        /// How many may without an officer's word.
        allowed: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { before } => write!(f, "the directory lists nobody, and listed {before} before"),
            Self::Access { taken, before, allowed } => {
                write!(f, "{taken} of {before} would lose their access; {allowed} may")
            }
            Self::Accounts { taken, before, allowed } => {
                write!(f, "{taken} of {before} accounts here would be suspended; {allowed} may")
            }
            Self::Operators { given, before, allowed } => {
                write!(f, "{given} of {before} accounts here would become operators; {allowed} may")
            }
            Self::Roles { taken, before, allowed } => {
                write!(f, "{taken} of {before} would lose a role; {allowed} may")
            }
        }
    }
}

/// A plan that is held back. Nothing in it can be reached without the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPlan {
    plan: Plan,
    reasons: Vec<Reason>,
    lost_roles: Vec<LostRoles>,
    active: HashSet<Link>,
    operators: HashSet<Link>,
    scale: Scale,
}

impl HeldPlan {
    /// By which an officer names it: a hash of everybody who would lose something, and what; and of accounts here that would
    /// become operators.
    #[must_use]
    pub const fn digest(&self) -> Hash {
        self.plan.digest
    }

    /// Why.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Who would lose their access, for an officer to look at.
    pub fn suspends(&self) -> impl Iterator<Item = &Change> {
        self.plan.changes.iter().filter(|change| change.what.suspends())
    }

    /// Who would lose a role, for an officer to look at.
    #[must_use]
    pub fn lost_roles(&self) -> &[LostRoles] {
        &self.lost_roles
    }

    /// Lets it happen, if everything that it takes was in the plan that an officer `released`, but for what could be taken
    /// without anybody's word. Directories do not stand still while an officer looks: somebody else left, somebody came
    /// back.
    ///
    /// # Errors
    /// The held plan again, if it takes more than that.
    pub fn release_within(mut self: Box<Self>, released: &Self) -> Result<Plan, Box<Self>> {
        if self.plan.issuer != released.plan.issuer {
            return Err(self);
        }
        let takes = |plan: &Plan| -> HashSet<Link> {
            plan.changes.iter().filter(|change| takes(change)).map(|change| change.link).collect()
        };
        let known = takes(&released.plan);
        let more: HashSet<Link> = takes(&self.plan).difference(&known).copied().collect();
        let roles: HashMap<Link, Wanted> =
            released.lost_roles.iter().map(|lost| (lost.link, lost.lost)).collect();
        let more_roles = self
            .lost_roles
            .iter()
            .filter(|lost| lost.lost.loses(roles.get(&lost.link).copied().unwrap_or_default()));
        let extra = Taken {
            people: more.len(),
            accounts: more.iter().filter(|link| self.active.contains(link)).count(),
            roles: more_roles.count(),
        };
        let operators = self.operators.difference(&released.operators).count();
        if !self.scale.reasons(extra, self.plan.taken, operators).is_empty() {
            return Err(self);
        }
        self.plan.released = true;
        self.plan.taken = extra;
        Ok(self.plan)
    }

    /// Lets it happen, if `digest` names this very plan.
    ///
    /// # Errors
    /// The held plan again, if it does not.
    pub fn release(mut self: Box<Self>, digest: Hash) -> Result<Plan, Box<Self>> {
        if digest != self.plan.digest {
            return Err(self);
        }
        self.plan.released = true;
        self.plan.taken = Taken::default();
        Ok(self.plan)
    }
}

impl fmt::Display for HeldPlan {
    /// The alert.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a directory would take too much at once, and nothing of what it says is done: ")?;
        for (at, reason) in self.reasons.iter().enumerate() {
            write!(f, "{}{reason}", if at == 0 { "" } else { "; " })?;
        }
        write!(f, ". If that is right, a security officer releases it by {}", self.plan.digest)
    }
}

/// Compares. `Ok` is what is to be done; `Err` is held back.
///
/// # Errors
/// [`HeldPlan`], if the new snapshot is empty and there was somebody, if more people lose their access or a role than
/// `safety` allows, or if more of the accounts here do, or all of them.
pub fn compare(
    issuer: &Issuer,
    basis: Basis<'_>,
    new: &Snapshot,
    mut faults: Faults,
    safety: Safety,
) -> Result<Plan, Box<HeldPlan>> {
    faults.add_from(new);
    let mut found = between(issuer, basis.before, new);
    found.hold_against(issuer, basis, new);
    let here = basis.linked.active.iter().chain(&basis.linked.suspended);
    let here: HashSet<&Link> = here.filter(|link| link.issuer == issuer.id()).collect();
    found.operators.retain(|link| here.contains(link));
    found.changes.sort_by_key(|change| (!change.what.suspends(), change.link, change.what));
    let active: HashSet<Link> =
        basis.linked.active.iter().filter(|link| link.issuer == issuer.id()).copied().collect();
    let scale = Scale {
        people: found.had_access,
        accounts: active.len(),
        roles: found.had_roles,
        recent: basis.recent,
        nobody: new.people().is_empty(),
        safety,
    };
    let taken = found.taken(&active);
    let reasons = scale.reasons(taken, taken, found.operators.len());
    let plan = Plan {
        issuer: issuer.id(),
        digest: found.digest(issuer.id()),
        changes: found.changes,
        people: new.people().len(),
        faults,
        released: false,
        taken,
    };
    if reasons.is_empty() {
        return Ok(plan);
    }
    Err(Box::new(HeldPlan {
        plan,
        reasons,
        lost_roles: found.roles_taken,
        active,
        operators: found.operators,
        scale,
    }))
}

/// Whether somebody loses their access. Somebody who appears without any loses none.
fn takes(change: &Change) -> bool {
    matches!(change.what, What::Disabled | What::Vanished)
}

/// Of how many something is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scale {
    people: usize,
    accounts: usize,
    roles: usize,
    recent: Taken,
    nobody: bool,
    safety: Safety,
}

impl Scale {
    /// Why it is too much to take so much, or to make so many operators; `in_all` is what an officer has released, and that.
    fn reasons(&self, taken: Taken, in_all: Taken, operators: usize) -> Vec<Reason> {
        // As many as there were a day ago, and as many as are left of those who might be taken since.
        let allowed = |now: usize, recent: usize| {
            self.safety.allowed(now.saturating_add(recent)).saturating_sub(recent)
        };
        let mut reasons = Vec::new();
        if self.nobody && taken.people > 0 {
            reasons.push(Reason::Empty { before: self.people });
        }
        let (before, may) = (self.people, allowed(self.people, self.recent.people));
        if taken.people > may {
            reasons.push(Reason::Access { taken: taken.people, before, allowed: may });
        }
        let (before, may) = (self.accounts, allowed(self.accounts, self.recent.accounts));
        let everybody = before > 1 && in_all.accounts >= before;
        if taken.accounts > may || (everybody && taken.accounts > 0) {
            let allowed = if everybody { may.min(before - 1) } else { may };
            reasons.push(Reason::Accounts { taken: taken.accounts, before, allowed });
        }
        let (before, may) = (self.roles, allowed(self.roles, self.recent.roles));
        if taken.roles > may {
            reasons.push(Reason::Roles { taken: taken.roles, before, allowed: may });
        }
        let (before, may) = (self.accounts, self.safety.allowed(self.accounts));
        if operators > may {
            reasons.push(Reason::Operators { given: operators, before, allowed: may });
        }
        reasons
    }
}

#[derive(Default)]
struct Found {
    changes: Vec<Change>,
    had_access: usize,
    had_roles: usize,
    roles_taken: Vec<LostRoles>,
    operators: HashSet<Link>,
}

impl Found {
    fn add(&mut self, link: Link, what: What, person: &Person) {
        self.changes.push(Change { link, what, person: Some(person.clone()) });
    }

    /// Looks at each account that is active: its person has to be there and enabled, or it is suspended. And at each that
    /// this directory has suspended: it is resumed if its person is there and enabled.
    fn hold_against(&mut self, issuer: &Issuer, basis: Basis<'_>, new: &Snapshot) {
        let mut missing: HashSet<Link> =
            basis.linked.active.iter().filter(|link| link.issuer == issuer.id()).copied().collect();
        if basis.before.is_none() {
            self.had_access = missing.len();
        }
        let resumed: HashSet<Link> =
            self.changes.iter().filter(|change| change.what.resumes()).map(|change| change.link).collect();
        let mut suspended: HashSet<Link> =
            basis.linked.suspended.iter().filter(|link| !resumed.contains(link)).copied().collect();
        if missing.is_empty() && suspended.is_empty() {
            return;
        }
        let told: HashSet<Link> =
            self.changes.iter().filter(|change| takes(change)).map(|change| change.link).collect();
        let mut without = HashMap::new();
        for (link, person) in new.links(issuer) {
            if suspended.remove(&link) && person.is_enabled(new.taken_at()) {
                self.add(link, What::Enabled, person);
            }
            if missing.remove(&link) && !person.is_enabled(new.taken_at()) && !told.contains(&link) {
                without.insert(link, person);
            }
        }
        missing.retain(|link| !told.contains(link));
        if basis.before.is_some() {
            self.had_access += without.len() + missing.len();
        }
        // Somebody who appears without access has an account that had it.
        self.changes.retain(|change| {
            !(matches!(change.what, What::Appeared { .. }) && without.contains_key(&change.link))
        });
        for (link, person) in without {
            self.add(link, What::Disabled, person);
        }
        let vanished = missing.into_iter().map(|link| Change { link, what: What::Vanished, person: None });
        self.changes.extend(vanished);
    }

    fn taken(&self, active: &HashSet<Link>) -> Taken {
        let links: HashSet<Link> =
            self.changes.iter().filter(|change| takes(change)).map(|change| change.link).collect();
        Taken {
            people: links.len(),
            accounts: links.intersection(active).count(),
            roles: self.roles_taken.len(),
        }
    }

    fn digest(&self, issuer: IssuerId) -> Hash {
        let mut hasher = Hasher::new(labels::DIRECTORY_PLAN);
        hasher.part(&issuer.0);
        let mut part = |kind: &[u8], link: &Link, what: &[u8]| {
            let subject = minicbor::to_vec(link).unwrap_or_default();
            hasher.part(kind).part(&subject).part(what);
        };
        for change in self.changes.iter().filter(|change| takes(change)) {
            part(
                b"access",
                &change.link,
                if change.what == What::Vanished { b"vanished" } else { b"disabled" },
            );
        }
        let mut roles: Vec<_> = self.roles_taken.iter().map(|lost| (lost.link, lost.lost)).collect();
        roles.sort_unstable_by_key(|(link, _)| *link);
        for (link, lost) in &roles {
            part(b"role", link, format!("{lost:?}").as_bytes());
        }
        let mut operators: Vec<_> = self.operators.iter().collect();
        operators.sort_unstable();
        for link in operators {
            part(b"operator", link, b"");
        }
        hasher.finish()
    }
}

fn between(issuer: &Issuer, old: Option<&Snapshot>, new: &Snapshot) -> Found {
    let mut found = Found::default();
    let link = |person: &Person| issuer.link(person.id().as_bytes());
    let people = old.map_or(&[][..], Snapshot::people);
    let then = old.map_or(new.taken_at(), Snapshot::taken_at);
    let (mut before, mut after) = (people.iter().peekable(), new.people().iter().peekable());
    // Both are sorted by id.
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(one), Some(other)) => one.id().cmp(other.id()),
        };
        let was = if order.is_le() { before.next() } else { None };
        let is = if order.is_ge() { after.next() } else { None };
        let had_access = was.is_some_and(|person| person.is_enabled(then));
        let has_access = is.is_some_and(|person| person.is_enabled(new.taken_at()));
        found.had_access += usize::from(had_access);
        if let Some(was) = was {
            let (had, has) = (was.wanted(), is.map(Person::wanted).unwrap_or_default());
            found.had_roles += usize::from(had != Wanted::default());
            if had.loses(has) {
                found.roles_taken.push(LostRoles {
                    link: link(was),
                    lost: had.without(has),
                    person: was.clone(),
                });
            }
        }
        if let Some(is) = is {
            let gained = is.wanted().without(was.map(Person::wanted).unwrap_or_default());
            if gained.has(Role::Operator) {
                found.operators.insert(link(is));
            }
        }
        match (was, is) {
            (None, Some(is)) => found.add(link(is), What::Appeared { enabled: has_access }, is),
            // Who had no access and is gone loses nothing more.
            (Some(was), None) if had_access => found.add(link(was), What::Vanished, was),
            (Some(was), Some(is)) => {
                if had_access && !has_access {
                    found.add(link(is), What::Disabled, is);
                } else if !had_access && has_access {
                    found.add(link(is), What::Enabled, is);
                }
                let names = |person: &Person| {
                    [person.dn(), person.login().unwrap_or_default(), person.name(), person.mail()]
                        .map(str::to_owned)
                };
                if names(was) != names(is) {
                    found.add(link(is), What::Renamed, is);
                }
                if was.wanted() != is.wanted() {
                    found.add(link(is), What::Regrouped, is);
                }
            }
            (Some(_), None) | (None, None) => {}
        }
    }
    found
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
