//! What in a directory is not as it should be, in words for whoever administers it. None of it lets anybody in.

use std::collections::HashMap;
use std::fmt;

use crate::limits;
use crate::snapshot::{PersonId, Snapshot};
use crate::wire::printable;

/// Something that is wrong with an entry or a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An entry has no id that can be used, or several, or no usable name of its own. It is nobody.
    NoId {
        /// Its distinguished name.
        dn: String,
    },
    /// Several entries have one id. The person counts as disabled.
    SharedId {
        /// The id.
        id: PersonId,
    },
    /// An entry has no login name that can be used, or several. Its person cannot sign in.
    NoLogin {
        /// Its distinguished name.
        dn: String,
    },
    /// Several entries have one login name. None of them can sign in.
    SharedLogin {
        /// The login name, in lower case.
        login: String,
    },
    /// A group that stands for a role does not exist, or may not be read.
    NoGroup {
        /// Its distinguished name.
        dn: String,
    },
    /// A member is named by a name that several entries have. It counts for none of them.
    SharedName {
        /// The distinguished name.
        dn: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoId { dn } => write!(f, "{dn} has no id that can be used"),
            Self::SharedId { id } => write!(f, "several entries have the id {id}; it counts as disabled"),
            Self::NoLogin { dn } => write!(f, "{dn} has no login name that can be used"),
            Self::SharedLogin { login } => {
                write!(f, "several entries have the login name {login}; none can sign in")
            }
            Self::NoGroup { dn } => write!(f, "the group {dn} does not exist or may not be read"),
            Self::SharedName { dn } => write!(f, "several entries are called {dn}; no group counts for them"),
        }
    }
}

/// The first faults by name, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    named: Vec<Fault>,
    count: usize,
}

impl Faults {
    /// The first 100.
    #[must_use]
    pub fn named(&self) -> &[Fault] {
        &self.named
    }

    /// All.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        self.count = self.count.saturating_add(1);
        if self.named.len() < limits::FAULTS_NAMED_MAX {
            self.named.push(fault);
        }
    }

    /// Those that show in the snapshot itself.
    pub(crate) fn add_from(&mut self, snapshot: &Snapshot) {
        let mut logins: HashMap<String, bool> = HashMap::new();
        for person in snapshot.people() {
            match person.login() {
                None => self.add(Fault::NoLogin { dn: printable(person.dn(), limits::DN_BYTES_MAX) }),
                Some(login) => {
                    // Directories compare login names without case.
                    let seen = logins.entry(login.to_lowercase()).or_insert(false);
                    if std::mem::replace(seen, true) {
                        // Named once, at the second entry of two or more.
                        let fault = Fault::SharedLogin { login: login.to_lowercase() };
                        if !self.named.contains(&fault) {
                            self.add(fault);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::{person, snapshot};

    #[test]
    fn shared_logins_are_named_once() {
        let mut people: Vec<_> = (1..=6).map(person).collect();
        people[1].login = "P1".into();
        people[2].login = "p1".into();
        people[3].login = "".into();
        let mut faults = Faults::default();
        faults.add_from(&snapshot(people));
        assert_eq!(faults.count(), 2);
        let texts: Vec<_> = faults.named().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "several entries have the login name p1; none can sign in",
                "uid=p4,ou=people,dc=example has no login name that can be used"
            ]
        );
    }

    #[test]
    fn a_report_is_bounded() {
        let mut faults = Faults::default();
        for at in 0..1_000 {
            faults.add(Fault::NoId { dn: at.to_string() });
        }
        assert_eq!((faults.count(), faults.named().len()), (1_000, limits::FAULTS_NAMED_MAX));
    }
}
