//! Which roles people's groups stand for, groups in groups included.

use std::collections::{HashMap, HashSet};

use crate::config::{Config, Kind};
use crate::connection::{Query, Searcher, ServerError};
use crate::dn::Dn;
use crate::faults::{Fault, Faults};
use crate::limits;
use crate::person;
use crate::snapshot::{Person, PersonId, Wanted};

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
            for (member, spelled) in members {
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

/// Where in the list a person is, by their name; without those whose name several have.
struct People {
    places: HashMap<Dn, usize>,
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
        let mut shared: Vec<Dn> = shared.into_iter().collect();
        shared.sort_unstable();
        Self { places, shared }
    }
}

/// What has been read of groups. Members of a group that two roles lead to are read once.
struct Groups {
    known: Option<HashSet<Dn>>,
    members: HashMap<Dn, Option<Vec<(Dn, String)>>>,
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

    /// The members of a group with their names as they are written; `None` if it does not exist.
    async fn members(
        &mut self,
        searcher: &mut Searcher,
        config: &Config,
        dn: &Dn,
        spelled: &str,
    ) -> Result<Option<&[(Dn, String)]>, ServerError> {
        if !self.members.contains_key(dn) {
            let query = Query {
                base: spelled,
                whole_subtree: false,
                filter: &config.group_filter,
                attributes: &["member", "uniqueMember"],
            };
            let members = searcher.one(query).await?.map(|group| {
                let values = group.values("member").into_iter().chain(group.values("uniqueMember"));
                let named = |value: &[u8]| {
                    let text = std::str::from_utf8(value).ok()?;
                    // A unique member's name may end in #'bits'B (RFC 4517 section 3.3.21); such a one finds nobody.
                    Some((Dn::parse(text)?, text.to_owned()))
                };
                values.filter_map(named).collect::<Vec<_>>()
            });
            self.count = self.count.saturating_add(members.as_ref().map_or(0, Vec::len));
            if self.count > limits::MEMBERS_MAX {
                return Err(ServerError::TooMany { what: "members of groups", max: limits::MEMBERS_MAX });
            }
            self.members.insert(dn.clone(), members);
        }
        Ok(self.members.get(dn).and_then(Option::as_deref))
    }
}
