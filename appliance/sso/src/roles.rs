//! Which roles an identity provider's word asks for.
//!
//! It *asks*: what an account may do stands in its record, which its people change
//! ([`zixt_identity::AccountRecord`]). A privileged role cannot even be asked for.

use serde::Deserialize;
use std::collections::BTreeSet;
use thiserror::Error;
use zixt_identity::Role;

/// Rules of one provider.
pub const ROLE_RULES_MAX: usize = 64;
/// Values of the claim or attribute that are looked at. More than that is refused, not cut off.
pub const ROLE_VALUES_MAX: usize = 512;

/// One rule as the configuration has it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    /// The value of the claim or attribute, compared byte by byte.
    pub value: String,
    /// The role: `user` or `operator`.
    pub role: String,
}

/// Why rules are refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RoleRulesError {
    /// No such role.
    #[error("there is no role {0:?}")]
    Unknown(String),
    /// A role that an identity provider cannot give.
    #[error(
        "an identity provider cannot ask for the role {0}: it is given by people, in a ceremony or by an officer"
    )]
    Privileged(Role),
    /// More than [`ROLE_RULES_MAX`].
    #[error("more than {ROLE_RULES_MAX} rules")]
    TooMany,
    /// A value that is empty would match by accident.
    #[error("a rule has an empty value")]
    Empty,
}

/// Rules that were checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RoleRules(Vec<(String, Role)>);

impl RoleRules {
    /// Checks them.
    ///
    /// # Errors
    /// [`RoleRulesError`]
    pub fn new(rules: &[RoleRule]) -> Result<Self, RoleRulesError> {
        if rules.len() > ROLE_RULES_MAX {
            return Err(RoleRulesError::TooMany);
        }
        let check = |rule: &RoleRule| {
            let named = Role::ALL.into_iter().find(|role| role.name() == rule.role);
            match named {
                None => Err(RoleRulesError::Unknown(rule.role.clone())),
                // A person who signs in is no program; programs show tokens (see `oidc::Introspector`).
                Some(role) if role.is_privileged() || role == Role::Service => {
                    Err(RoleRulesError::Privileged(role))
                }
                Some(_) if rule.value.is_empty() => Err(RoleRulesError::Empty),
                Some(role) => Ok((rule.value.clone(), role)),
            }
        };
        rules.iter().map(check).collect::<Result<_, _>>().map(Self)
    }

    /// The roles that these values ask for.
    pub(crate) fn wanted<'a>(&self, values: impl Iterator<Item = &'a str>) -> BTreeSet<Role> {
        let values: BTreeSet<&str> = values.collect();
        self.0.iter().filter(|(value, _)| values.contains(value.as_str())).map(|(_, role)| *role).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(value: &str, role: &str) -> RoleRule {
        RoleRule { value: value.into(), role: role.into() }
    }

    #[test]
    fn no_rule_asks_for_a_privileged_role() {
        for role in Role::ALL {
            let rules = RoleRules::new(&[rule("x", role.name())]);
            let harmless = matches!(role, Role::User | Role::Operator);
            assert_eq!(rules.is_ok(), harmless, "{role}");
            if !harmless {
                assert_eq!(rules, Err(RoleRulesError::Privileged(role)));
            }
        }
        assert_eq!(RoleRules::new(&[rule("x", "root")]), Err(RoleRulesError::Unknown("root".into())));
        assert_eq!(RoleRules::new(&[rule("", "user")]), Err(RoleRulesError::Empty));
        assert_eq!(
            RoleRules::new(&vec![rule("x", "user"); ROLE_RULES_MAX + 1]),
            Err(RoleRulesError::TooMany)
        );
    }

    #[test]
    fn values_are_compared_exactly() {
        let rules = RoleRules::new(&[rule("zixt-ops", "operator"), rule("zixt", "user")]).unwrap();
        assert_eq!(rules.wanted(["zixt"].into_iter()), BTreeSet::from([Role::User]));
        assert_eq!(
            rules.wanted(["zixt-ops", "zixt"].into_iter()),
            BTreeSet::from([Role::User, Role::Operator])
        );
        assert_eq!(rules.wanted(["Zixt", " zixt", "zixt-op", "administrator"].into_iter()), BTreeSet::new());
    }
}
