//! What a directory said about everybody at one time, in a form that is kept between synchronisations.

use std::collections::{HashMap, HashSet};
use std::fmt;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use zixt_identity::{Issuer, Link, Role, Roles};
use zixt_types::{Canonical, Hash, Timestamp};

use crate::limits;

/// The id of a person that never changes: the bytes of `objectGUID` or `entryUUID`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PersonId(#[n(0)] ByteVec);

impl PersonId {
    /// `None` if it is empty or longer than 64 bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (1..=limits::ID_BYTES_MAX).contains(&bytes.len()).then(|| Self(bytes.to_vec().into()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The one spelling of a login name by which it is looked up and its tries are counted: lower case. `None` if nobody can
/// have this name: it is empty or too long, has control characters, or spaces at an end.
#[must_use]
pub fn login_key(login: &str) -> Option<String> {
    let can_be = !login.is_empty()
        && login.len() <= limits::LOGIN_BYTES_MAX
        && login.trim() == login
        && !login.chars().any(char::is_control);
    can_be.then(|| login.to_lowercase())
}

/// The roles that a directory's groups stand for: none, user, operator or both. Nothing else can be built or read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Wanted(#[n(0)] u8);

impl Wanted {
    const MAPPABLE: [Role; 2] = [Role::User, Role::Operator];

    pub(crate) fn add(&mut self, role: Role) {
        for (at, mappable) in Self::MAPPABLE.into_iter().enumerate() {
            if mappable == role {
                self.0 |= 1 << at;
            }
        }
    }

    /// The roles. `otherwise` is what somebody has who is in no group that stands for one: to take no groups for no answer
    /// would leave them the roles of the groups that they were in.
    #[must_use]
    pub fn roles_or(self, otherwise: Roles) -> Roles {
        let roles: Vec<Role> = self.iter().collect();
        Roles::new(&roles).unwrap_or(otherwise)
    }

    fn iter(self) -> impl Iterator<Item = Role> {
        Self::MAPPABLE
            .into_iter()
            .enumerate()
            .filter(move |(at, _)| self.0 & 1 << at != 0)
            .map(|(_, role)| role)
    }

    /// Whether one of them is not among `later` any more.
    pub(crate) const fn loses(self, later: Self) -> bool {
        self.0 & !later.0 != 0
    }

    pub(crate) fn has(self, role: Role) -> bool {
        self.iter().any(|wanted| wanted == role)
    }

    /// Those that are not among `later`.
    pub(crate) const fn without(self, later: Self) -> Self {
        Self(self.0 & !later.0)
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A person, as the directory has them.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Person {
    #[n(0)]
    pub(crate) id: PersonId,
    /// Tells versions of the entry apart; 0 if it has to be read again in any case.
    #[n(1)]
    pub(crate) version: u64,
    #[n(2)]
    pub(crate) dn: Box<str>,
    /// Empty where the entry has none that can be used.
    #[n(3)]
    pub(crate) login: Box<str>,
    #[n(4)]
    pub(crate) name: Box<str>,
    #[n(5)]
    pub(crate) mail: Box<str>,
    #[n(6)]
    pub(crate) disabled: bool,
    /// The first moment at which access is over.
    #[n(7)]
    pub(crate) expires: Timestamp,
    #[n(8)]
    pub(crate) wanted: Wanted,
}

impl Person {
    /// A date that does not come.
    pub(crate) const NEVER: Timestamp = Timestamp(u64::MAX);

    /// The id that never changes.
    #[must_use]
    pub const fn id(&self) -> &PersonId {
        &self.id
    }

    /// The distinguished name. It changes when an entry is renamed or moved.
    #[must_use]
    pub fn dn(&self) -> &str {
        &self.dn
    }

    /// What people type to sign in. `None` where the entry has none, or several.
    #[must_use]
    pub fn login(&self) -> Option<&str> {
        Some(&*self.login).filter(|login| !login.is_empty())
    }

    /// The name that is shown; may be empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mail address; may be empty.
    #[must_use]
    pub fn mail(&self) -> &str {
        &self.mail
    }

    /// The roles that the directory's groups stand for.
    #[must_use]
    pub const fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Whether the directory lets them in at this time: not disabled, not expired.
    #[must_use]
    pub fn is_enabled(&self, at: Timestamp) -> bool {
        !self.disabled && at < self.expires
    }
}

/// Everybody in a directory at one time.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Snapshot {
    #[n(0)]
    version: u64,
    /// When it was taken, by this machine's clock.
    #[n(1)]
    pub(crate) taken_at: Timestamp,
    /// The settings that it was taken with.
    #[n(2)]
    pub(crate) settings: Hash,
    /// The domain controller whose update numbers it has; zeros for a directory that has none.
    #[n(3)]
    pub(crate) source: Hash,
    /// Its highest update number when reading began.
    #[n(4)]
    pub(crate) usn: u64,
    /// Sorted by id.
    #[n(5)]
    people: Vec<Person>,
}

impl Snapshot {
    const FORMAT: u64 = 1;
    pub(crate) const NO_SOURCE: Hash = Hash([0; 48]);

    pub(crate) fn new(
        taken_at: Timestamp,
        settings: Hash,
        source: (Hash, u64),
        mut people: Vec<Person>,
    ) -> Self {
        people.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        people.dedup_by(|one, other| one.id == other.id);
        people.shrink_to_fit();
        let (source, usn) = source;
        Self { version: Self::FORMAT, taken_at, settings, source, usn, people }
    }

    /// When it was taken.
    #[must_use]
    pub const fn taken_at(&self) -> Timestamp {
        self.taken_at
    }

    /// Everybody, in the order of ids.
    #[must_use]
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// One person.
    #[must_use]
    pub fn person(&self, id: &PersonId) -> Option<&Person> {
        self.people.binary_search_by(|person| person.id.cmp(id)).ok().map(|at| &self.people[at])
    }

    /// Each person with the link by which an account is theirs. A hash for each: some 30 ms for 50,000.
    pub fn links(&self, issuer: &Issuer) -> impl Iterator<Item = (Link, &Person)> {
        self.people.iter().map(|person| (issuer.link(person.id.as_bytes()), person))
    }

    /// Whose account a login name belongs to, by [`login_key`]: what tries are counted by, before the directory is asked.
    /// Without the names that several have.
    #[must_use]
    pub fn logins(&self, issuer: &Issuer) -> HashMap<String, Link> {
        let mut logins = HashMap::with_capacity(self.people.len());
        let mut shared = HashSet::new();
        for (link, person) in self.links(issuer) {
            if let Some(key) = person.login().and_then(login_key)
                && logins.insert(key.clone(), link).is_some()
            {
                shared.insert(key);
            }
        }
        logins.retain(|key, _| !shared.contains(key));
        logins
    }

    /// Whether both say the same, whenever they were taken. An update number that has moved says nothing by itself: to
    /// store everybody anew for each change of a machine's password would cost 6 MiB a minute.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.settings == other.settings && self.source == other.source && self.people == other.people
    }
}

impl Canonical for Snapshot {
    const WHAT: &'static str = "snapshot of a directory";
    const BYTES_MAX: usize = limits::SNAPSHOT_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::FORMAT);

    fn check(&self) -> Result<(), &'static str> {
        if self.people.len() > limits::PEOPLE_MAX {
            return Err("it has too many people");
        }
        if self.people.windows(2).any(|pair| pair[0].id >= pair[1].id) {
            return Err("people are in the order of their ids");
        }
        let bounded = |person: &Person| {
            (1..=limits::ID_BYTES_MAX).contains(&person.id.0.len())
                && person.dn.len() <= limits::DN_BYTES_MAX
                && person.login.len() <= limits::LOGIN_BYTES_MAX
                && person.name.len() <= limits::NAME_BYTES_MAX
                && person.mail.len() <= limits::MAIL_BYTES_MAX
                && usize::from(person.wanted.0) < 1 << Wanted::MAPPABLE.len()
        };
        if self.people.iter().all(bounded) { Ok(()) } else { Err("a person has a value that none has") }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn person(id: u8) -> Person {
        Person {
            id: PersonId::new(&[id; 16]).unwrap(),
            version: 7,
            dn: format!("uid=p{id},ou=people,dc=example").into(),
            login: format!("p{id}").into(),
            name: "A Person".into(),
            mail: "p@example".into(),
            disabled: false,
            expires: Person::NEVER,
            wanted: Wanted::default(),
        }
    }

    pub(crate) fn snapshot(people: Vec<Person>) -> Snapshot {
        Snapshot::new(Timestamp(1_000), Hash([1; 48]), (Snapshot::NO_SOURCE, 0), people)
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let mut people: Vec<_> = (1..=9).rev().map(person).collect();
        people[3].disabled = true;
        people[4].wanted.add(Role::Operator);
        let whole = snapshot(people);
        let bytes = whole.to_bytes();
        assert_eq!(Snapshot::parse(&bytes), Ok(whole.clone()));
        assert_eq!(whole.person(&PersonId::new(&[4; 16]).unwrap()).unwrap().login(), Some("p4"));
        for length in 0..bytes.len() {
            assert!(Snapshot::parse(&bytes[..length]).is_err());
        }
        let refused = |change: &dyn Fn(&mut Snapshot)| {
            let mut other = whole.clone();
            change(&mut other);
            assert!(Snapshot::parse(&other.to_bytes()).is_err());
        };
        refused(&|other| other.version = 2);
        refused(&|other| other.people.swap(0, 1));
        refused(&|other| other.people[1] = other.people[0].clone());
        refused(&|other| other.people[0].wanted = Wanted(4));
        refused(&|other| other.people[0].login = "x".repeat(300).into());
        refused(&|other| other.people[0].id = PersonId(Vec::new().into()));
    }

    #[test]
    fn only_roles_that_are_not_privileged_are_wanted() {
        for role in Role::ALL {
            let mut wanted = Wanted::default();
            wanted.add(role);
            let mappable = matches!(role, Role::User | Role::Operator);
            assert_eq!(wanted != Wanted::default(), mappable, "{role}");
            let auditor = Roles::new(&[Role::Auditor]).unwrap();
            let expected = if mappable { Roles::new(&[role]).unwrap() } else { auditor };
            assert_eq!(wanted.roles_or(auditor), expected, "{role}");
        }
        let both = Wanted(3);
        assert_eq!(both.roles_or(Roles::USER), Roles::new(&[Role::User, Role::Operator]).unwrap());
        assert!(both.loses(Wanted(1)) && !Wanted(1).loses(both) && !both.loses(both));
    }

    #[test]
    fn login_names_have_one_spelling() {
        for (login, key) in [("Ann", Some("ann")), ("a b", Some("a b")), ("\u{c4}", Some("\u{e4}"))] {
            assert_eq!(login_key(login).as_deref(), key);
        }
        for nobody in ["", " ann", "ann ", "a\nb", "a\0", &"a".repeat(257)] {
            assert_eq!(login_key(nobody), None, "{nobody:?}");
        }
        let mut people: Vec<_> = (1..=4).map(person).collect();
        people[1].login = "P1".into();
        people[2].login = "".into();
        let issuer = Issuer::directory(zixt_identity::IssuerId([1; 16]));
        let logins = snapshot(people).logins(&issuer);
        assert_eq!(logins, HashMap::from([("p4".to_owned(), issuer.link(&[4; 16]))]));
    }

    #[test]
    fn access_ends_at_its_date() {
        let mut somebody = person(1);
        assert!(somebody.is_enabled(Timestamp(u64::MAX - 1)));
        somebody.expires = Timestamp(500);
        assert!(somebody.is_enabled(Timestamp(499)) && !somebody.is_enabled(Timestamp(500)));
        somebody.expires = Person::NEVER;
        somebody.disabled = true;
        assert!(!somebody.is_enabled(Timestamp(0)));
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_reading(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Snapshot::parse(&bytes);
            let mut whole = snapshot(vec![person(1), person(2)]).to_bytes();
            for (at, byte) in bytes.iter().take(3).enumerate() {
                let place = usize::from(*byte) * (at + 1) % whole.len();
                whole[place] ^= bytes.len() as u8 | 1;
            }
            let _ = Snapshot::parse(&whole);
        }
    }
}
