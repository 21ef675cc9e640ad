//! Which user may ask for which purpose.

use std::collections::{BTreeMap, BTreeSet};
use zixt_hsm_protocol::{CustodyError, Purpose};

/// The allow-list. Who is not on it may do nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    allowed: BTreeMap<u32, BTreeSet<Purpose>>,
}

impl Policy {
    /// Everything for one user and for root, who could take it anyway.
    #[must_use]
    pub fn own_user_and_root(uid: u32) -> Self {
        let mut policy = Self::default();
        policy.allow(uid, Purpose::ALL);
        policy.allow(0, Purpose::ALL);
        policy
    }

    /// Allows a user more purposes.
    pub fn allow(&mut self, uid: u32, purposes: impl IntoIterator<Item = Purpose>) {
        self.allowed.entry(uid).or_default().extend(purposes);
    }

    /// Whether a user may do this.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn check(&self, uid: u32, purpose: Purpose) -> Result<(), CustodyError> {
        match self.allowed.get(&uid) {
            Some(purposes) if purposes.contains(&purpose) => Ok(()),
            _ => Err(CustodyError::NotAllowed { uid, purpose }),
        }
    }

    /// Whether a user may do anything at all.
    #[must_use]
    pub fn knows(&self, uid: u32) -> bool {
        self.allowed.get(&uid).is_some_and(|purposes| !purposes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_allowed() {
        let mut policy = Policy::default();
        policy.allow(1000, [Purpose::TlsServer]);
        policy.allow(1000, [Purpose::Status]);
        for purpose in Purpose::ALL {
            let listed = matches!(purpose, Purpose::TlsServer | Purpose::Status);
            assert_eq!(policy.check(1000, purpose).is_ok(), listed, "{purpose}");
            assert_eq!(policy.check(0, purpose), Err(CustodyError::NotAllowed { uid: 0, purpose }));
        }
        assert!(policy.knows(1000) && !policy.knows(0));
        let policy = Policy::own_user_and_root(5);
        assert!(Purpose::ALL.into_iter().all(|p| policy.check(5, p).is_ok() && policy.check(0, p).is_ok()));
        assert!(!policy.knows(6));
    }
}
