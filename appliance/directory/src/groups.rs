//! Which roles people's groups stand for, groups in groups included.

use std::collections::{HashMap, HashSet};

use crate::config::{Config, Kind};
use crate::connection::{Query, Searcher, ServerError};
use crate::dn::Dn;
use crate::faults::{Fault, Faults};
use crate::limits;
use crate::person;
use crate::snapshot::{Person, PersonId, Wanted, login_key};

/// Membership in Active Directory, through any number of groups: LDAP_MATCHING_RULE_IN_CHAIN ([MS-ADTS] section
/// 3.1.1.3.4.4.3).
const IN_CHAIN: &str = "memberOf:1.2.840.113556.1.4.1941:";

/// Sets what everybody is wanted for. All of it is asked each time: a change of members changes no person's entry.
pub(crate) async fn set_wanted(
    searcher: &mut Searcher,
    config: &Config,
    people: &mut [Person],
    faults: &mut Faults,
) -> Result<(), ServerError> {
    for person in people.iter_mut() {
        person.wanted = Wanted::default();
    }
    if config.roles.is_empty() {
        return Ok(());
    }
    match config.kind {
        Kind::ActiveDirectory => by_matching_rule(searcher, config, people, faults).await,
        Kind::Ldap => by_members(searcher, config, people, faults).await,
    }
}

/// The directory goes through the groups itself. So nothing has to be read of groups that stand for no role, and not the
/// members of a large group in pieces.
async fn by_matching_rule(
    searcher: &mut Searcher,
    config: &Config,
    people: &mut [Person],
    faults: &mut Faults,
) -> Result<(), ServerError> {
    let places: HashMap<PersonId, usize> =
        people.iter().enumerate().map(|(at, person)| (person.id.clone(), at)).collect();
    for (group, role) in &config.roles {
        let exists =
            Query { base: group, whole_subtree: false, filter: &config.group_filter, attributes: &["1.1"] };
        if searcher.one(exists).await?.is_none() {
            faults.add(Fault::NoGroup { dn: group.clone() });
            continue;
        }
        let filter =
            format!("(&{}({IN_CHAIN}={}))", config.person_filter, ldap3::ldap_escape(group.as_str()));
        for base in &config.people {
            let query = Query {
                base,
                whole_subtree: true,
                filter: &filter,
                attributes: &[config.attributes.id.as_str()],
            };
            searcher
                .all(query, config.page_size, limits::PEOPLE_MAX, &mut |entry| {
                    if let Some(at) = person::id(&entry, config).and_then(|id| places.get(&id)) {
                        people[*at].wanted.add(*role);
                    }
                    Ok(())
                })
                .await?;
        }
    }
    Ok(())
}

/// From each group that stands for a role to its members, and on to the members of those that are groups. Each group
/// is read once, so that groups that contain each other end.
async fn by_members(
    searcher: &mut Searcher,
    config: &Config,
    people: &mut [Person],
    faults: &mut Faults,
) -> Result<(), ServerError> {
    let names = People::of(people);
    for dn in &names.shared {
        faults.add(Fault::SharedName { dn: dn.as_str().to_owned() });
    }
    let bases: Vec<Dn> = config.groups.iter().filter_map(|base| Dn::parse(base)).collect();
    let mut groups = Groups { known: None, members: HashMap::new(), count: 0 };
    for (group, role) in &config.roles {
        let Some(start) = Dn::parse(group) else { continue };
        let mut seen = HashSet::from([start.clone()]);
        let mut open = vec![(start, group.clone())];
        let mut is_root = true;
        while let Some((dn, spelled)) = open.pop() {
            let Some(members) = groups.members(searcher, config, &dn, &spelled).await? else {
                if std::mem::take(&mut is_root) {
                    faults.add(Fault::NoGroup { dn: group.clone() });
                }
                continue;
            };
            is_root = false;
            let mut further = Vec::new();
            for login in &members.logins {
                if let Some(at) = names.logins.get(login) {
                    people[*at].wanted.add(*role);
                }
            }
            for (member, spelled) in &members.names {
                if let Some(at) = names.places.get(member) {
                    people[*at].wanted.add(*role);
                } else if bases.iter().any(|base| member.is_within(base)) && !seen.contains(member) {
                    further.push((member.clone(), spelled.clone()));
                }
            }
            if further.is_empty() {
                continue;
            }
            let known = groups.known(searcher, config).await?;
            for (member, spelled) in further {
                if known.contains(&member) && seen.insert(member.clone()) {
                    open.push((member, spelled));
                }
            }
        }
    }
    Ok(())
}

/// Where in the list a person is, by their name or login; without those whose name or login several have.
struct People {
    places: HashMap<Dn, usize>,
    logins: HashMap<String, usize>,
    shared: Vec<Dn>,
}

impl People {
    fn of(people: &[Person]) -> Self {
        let mut places = HashMap::with_capacity(people.len());
        let mut shared = HashSet::new();
        for (at, person) in people.iter().enumerate() {
            if let Some(dn) = Dn::parse(&person.dn)
                && places.insert(dn.clone(), at).is_some()
            {
                shared.insert(dn);
            }
        }
        places.retain(|dn, _| !shared.contains(dn));
        let (mut logins, mut shared_logins) = (HashMap::new(), HashSet::new());
        for (at, person) in people.iter().enumerate() {
            if let Some(key) = person.login().and_then(login_key)
                && logins.insert(key.clone(), at).is_some()
            {
                shared_logins.insert(key);
            }
        }
        logins.retain(|key, _| !shared_logins.contains(key));
        let mut shared: Vec<Dn> = shared.into_iter().collect();
        shared.sort_unstable();
        Self { places, logins, shared }
    }
}

/// Who is in a group.
struct Members {
    /// With their names as they are written.
    names: Vec<(Dn, String)>,
    /// In groups of RFC 2307.
    logins: Vec<String>,
}

/// What has been read of groups. Members of a group that two roles lead to are read once.
struct Groups {
    known: Option<HashSet<Dn>>,
    members: HashMap<Dn, Option<Members>>,
    count: usize,
}

impl Groups {
    /// The names of all groups, so that a member that is none is not asked for by itself. Read when a member that is no
    /// person turns up.
    async fn known(&mut self, searcher: &mut Searcher, config: &Config) -> Result<&HashSet<Dn>, ServerError> {
        if self.known.is_none() {
            let mut known = HashSet::new();
            for base in &config.groups {
                let query =
                    Query { base, whole_subtree: true, filter: &config.group_filter, attributes: &["1.1"] };
                searcher
                    .all(query, config.page_size, limits::GROUPS_MAX, &mut |entry| {
                        known.extend(Dn::parse(entry.dn()));
                        Ok(())
                    })
                    .await?;
            }
            self.known = Some(known);
        }
        Ok(self.known.get_or_insert_default())
    }

    /// The members of a group; `None` if it does not exist.
    async fn members(
        &mut self,
        searcher: &mut Searcher,
        config: &Config,
        dn: &Dn,
        spelled: &str,
    ) -> Result<Option<&Members>, ServerError> {
        if !self.members.contains_key(dn) {
            let query = Query {
                base: spelled,
                whole_subtree: false,
                filter: &config.group_filter,
                attributes: &["member", "uniqueMember", "memberUid"],
            };
            let members = searcher.one(query).await?.map(|group| {
                let values = group.values("member").into_iter().chain(group.values("uniqueMember"));
                let named = |value: &[u8]| {
                    let text = std::str::from_utf8(value).ok()?;
                    // A unique member's name may end in #'bits'B (RFC 4517 section 3.3.21); such a one finds nobody.
                    Some((Dn::parse(text)?, text.to_owned()))
                };
                let names: Vec<_> = values.filter_map(named).collect();
                // They are values of `uid`, and say nothing where people sign in by something else.
                let by_uid = config.attributes.login.eq_ignore_ascii_case("uid");
                let logins = if by_uid { group.values("memberUid") } else { Vec::new() };
                let logins =
                    logins.into_iter().filter_map(|value| login_key(std::str::from_utf8(value).ok()?));
                Members { names, logins: logins.collect() }
            });
            let count = members.as_ref().map_or(0, |members| members.names.len() + members.logins.len());
            self.count = self.count.saturating_add(count);
            if self.count > limits::MEMBERS_MAX {
                return Err(ServerError::TooMany { what: "members of groups", max: limits::MEMBERS_MAX });
            }
            self.members.insert(dn.clone(), members);
        }
        Ok(self.members.get(dn).and_then(Option::as_ref))
    }
}
