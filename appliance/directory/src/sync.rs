//! Reading everybody: all of it the first time, and later what changed.
//!
//! Later means: a list of ids with a short version of each entry, and then the entries whose version is another. That
//! list is what finds those who are gone. A cookie or a change number alone does not: whoever is moved out of the
//! tree, or no longer passes the filter, or becomes invisible to the account that reads, leaves no change behind that
//! could be found. An Active Directory that has committed nothing at all since is not asked for the list.

use std::collections::HashMap;
use std::time::Duration;

use zixt_crypto::{hash, labels};
use zixt_types::{Hash, Timestamp};

use crate::config::{Config, Kind};
use crate::connection::{Query, Searcher, ServerError};
use crate::faults::{Fault, Faults};
use crate::groups;
use crate::limits;
use crate::person;
use crate::snapshot::{Person, PersonId, Snapshot};
use crate::wire::printable;

/// How everybody was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All of it.
    Full,
    /// Ids and versions, and this many entries.
    Incremental {
        /// Entries that were read.
        entries: usize,
    },
    /// The directory has committed nothing since.
    Unchanged,
}

/// What a synchronisation has read.
#[derive(Debug)]
pub struct Read {
    /// Everybody, now.
    pub snapshot: Snapshot,
    /// What is wrong in the directory, as far as the snapshot does not show it.
    pub faults: Faults,
    /// How it was read.
    pub mode: Mode,
    /// From which server.
    pub server: String,
    /// How long it took.
    pub took: Duration,
}

/// Reads everybody. Whatever keeps the list from being complete is an error: a list that ends early would look like people
/// who are gone.
pub(crate) async fn read(
    searcher: &mut Searcher,
    config: &Config,
    old: Option<&Snapshot>,
    now: Timestamp,
) -> Result<(Snapshot, Faults, Mode), ServerError> {
    let source = source(searcher, config).await?;
    let old = old.filter(|old| old.settings == config.settings());
    // Update numbers of one domain controller mean nothing at another one.
    let numbers = config.kind == Kind::ActiveDirectory;
    let comparable =
        old.filter(|old| old.source == source.0 && (source.0 != Snapshot::NO_SOURCE || !numbers));
    // A controller whose numbers went back was set back, whatever id it has.
    let comparable = comparable.filter(|old| old.usn <= source.1);
    let mut reading =
        Reading { config, now, people: HashMap::new(), doubtful: Vec::new(), faults: Faults::default() };
    let mode = match comparable {
        Some(old) if source.1 != 0 && old.usn == source.1 => {
            let same = Snapshot::new(now, config.settings(), source, old.people().to_vec());
            return Ok((same, Faults::default(), Mode::Unchanged));
        }
        Some(old) => match reading.changes(searcher, old).await? {
            Some(entries) => Mode::Incremental { entries },
            None => {
                reading = Reading {
                    people: HashMap::new(),
                    doubtful: Vec::new(),
                    faults: Faults::default(),
                    ..reading
                };
                reading.all(searcher).await?;
                Mode::Full
            }
        },
        None => {
            reading.all(searcher).await?;
            Mode::Full
        }
    };
    reading.ask_again(searcher, old).await?;
    let mut people: Vec<Person> = reading.people.into_values().collect();
    let mut faults = reading.faults;
    groups::set_wanted(searcher, config, &mut people, &mut faults).await?;
    Ok((Snapshot::new(now, config.settings(), source, people), faults, mode))
}

/// Which domain controller it is, and its highest update number. Read before anything else, so that what changes
/// meanwhile has a higher number.
async fn source(searcher: &mut Searcher, config: &Config) -> Result<(Hash, u64), ServerError> {
    if config.kind != Kind::ActiveDirectory {
        return Ok((Snapshot::NO_SOURCE, 0));
    }
    let root = Query {
        base: "",
        whole_subtree: false,
        filter: "(objectClass=*)",
        attributes: &["dsServiceName", "highestCommittedUSN"],
    };
    let root = searcher.one(root).await?;
    let text = |name: &str| {
        root.as_ref()
            .and_then(|root| root.value(name))
            .and_then(|value| String::from_utf8(value.to_vec()).ok())
    };
    let usn = text("highestCommittedUSN").and_then(|number| number.parse::<u64>().ok());
    let (Some(service), Some(usn)) = (text("dsServiceName"), usn) else {
        // Without them nothing can be compared, and everything is read each time.
        return Ok((Snapshot::NO_SOURCE, 0));
    };
    // A controller that was set back from a backup counts its numbers again, under another id.
    let settings = Query {
        base: &service,
        whole_subtree: false,
        filter: "(objectClass=*)",
        attributes: &["invocationId"],
    };
    let invocation = match searcher.one(settings).await {
        Ok(entry) => entry.and_then(|entry| entry.value("invocationId").map(<[u8]>::to_vec)),
        // Not everybody may read it.
        Err(ServerError::Result { .. }) => None,
        Err(error) => return Err(error),
    };
    let Some(invocation) = invocation.filter(|id| !id.is_empty()) else {
        return Ok((Snapshot::NO_SOURCE, 0));
    };
    let source = hash::sha384(labels::DIRECTORY_SOURCE, &[service.to_lowercase().as_bytes(), &invocation]);
    Ok((source, usn))
}

struct Reading<'a> {
    config: &'a Config,
    now: Timestamp,
    people: HashMap<PersonId, Person>,
    /// Found twice, or not where they should be: each is asked for by itself.
    doubtful: Vec<PersonId>,
    faults: Faults,
}

impl Reading<'_> {
    fn is_full(&self) -> Result<(), ServerError> {
        if self.people.len() > limits::PEOPLE_MAX || self.doubtful.len() > limits::PEOPLE_MAX {
            return Err(ServerError::TooMany { what: "people", max: limits::PEOPLE_MAX });
        }
        Ok(())
    }

    fn no_id(&mut self, dn: &str) {
        self.faults.add(Fault::NoId { dn: printable(dn, limits::DN_BYTES_MAX) });
    }

    async fn all(&mut self, searcher: &mut Searcher) -> Result<(), ServerError> {
        let config = self.config;
        let attributes = person::attributes(config);
        for base in &config.people {
            let query =
                Query { base, whole_subtree: true, filter: &config.person_filter, attributes: &attributes };
            searcher
                .all(query, config.page_size, limits::PEOPLE_MAX, &mut |entry| {
                    let Some(person) = person::read(&entry, config, self.now) else {
                        self.no_id(entry.dn());
                        return Ok(());
                    };
                    let id = person.id.clone();
                    if self.people.insert(id.clone(), person).is_some() {
                        self.doubtful.push(id);
                    }
                    self.is_full()
                })
                .await?;
        }
        Ok(())
    }

    /// Reads the list, and the entries that are other than in `old`. `None` if there are so many that reading everything
    /// is quicker.
    async fn changes(
        &mut self,
        searcher: &mut Searcher,
        old: &Snapshot,
    ) -> Result<Option<usize>, ServerError> {
        let config = self.config;
        let attributes = [config.attributes.id.as_str(), config.attributes.version.as_str()];
        let mut changed: Vec<(PersonId, Box<str>)> = Vec::new();
        for base in &config.people {
            let query =
                Query { base, whole_subtree: true, filter: &config.person_filter, attributes: &attributes };
            searcher
                .all(query, config.page_size, limits::PEOPLE_MAX, &mut |entry| {
                    let (Some(id), Some(dn)) = (person::id(&entry, config), person::dn(&entry)) else {
                        self.no_id(entry.dn());
                        return Ok(());
                    };
                    let version = person::version(&entry, config, self.now);
                    let before = old.person(&id);
                    let known = before
                        .filter(|before| version != 0 && before.version == version && before.dn() == dn);
                    // In either case somebody with this id has been seen now.
                    let person = known.or(before).cloned().unwrap_or_else(|| placeholder(&id));
                    if self.people.insert(id.clone(), person).is_some() {
                        self.doubtful.push(id);
                    } else if known.is_none() && changed.len() <= limits::SINGLE_READS_MAX {
                        changed.push((id, dn.into()));
                    }
                    self.is_full()
                })
                .await?;
        }
        if changed.len() > limits::SINGLE_READS_MAX {
            return Ok(None);
        }
        let attributes = person::attributes(config);
        let entries = changed.len();
        for (id, dn) in changed {
            let query = Query {
                base: &dn,
                whole_subtree: false,
                filter: &config.person_filter,
                attributes: &attributes,
            };
            let person = searcher.one(query).await?.and_then(|entry| person::read(&entry, config, self.now));
            match person.filter(|person| person.id == id) {
                Some(person) => drop(self.people.insert(id, person)),
                // Renamed, moved or gone between the two questions.
                None => self.doubtful.push(id),
            }
        }
        Ok(Some(entries))
    }

    /// Asks by their ids for those who were found twice, or whom the list does not have any more. Somebody who is moved
    /// from one part of the tree to another while it is read is found twice or not at all.
    async fn ask_again(
        &mut self,
        searcher: &mut Searcher,
        old: Option<&Snapshot>,
    ) -> Result<(), ServerError> {
        let gone = old.map_or(&[][..], Snapshot::people).iter().map(Person::id);
        let mut ids = std::mem::take(&mut self.doubtful);
        let gone: Vec<PersonId> = gone.filter(|id| !self.people.contains_key(id)).cloned().collect();
        // So many are not on the move. Either they are gone, which the first of them show, or the list was not complete.
        let missing = gone.len();
        let asked: Vec<PersonId> = gone.into_iter().take(limits::ASKED_AGAIN_MAX).collect();
        ids.extend_from_slice(&asked);
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > 2 * limits::ASKED_AGAIN_MAX {
            return Err(ServerError::TooMany { what: "people with one id", max: limits::ASKED_AGAIN_MAX });
        }
        let config = self.config;
        let attributes = person::attributes(config);
        for ids in ids.chunks(limits::IDS_IN_FILTER_MAX) {
            let any: String = ids.iter().map(|id| person::id_filter(id, config)).collect();
            let filter = format!("(&{}(|{any}))", config.person_filter);
            let mut found: HashMap<PersonId, Vec<Person>> = HashMap::new();
            for base in &config.people {
                let query = Query { base, whole_subtree: true, filter: &filter, attributes: &attributes };
                searcher
                    .all(query, config.page_size, 2 * limits::IDS_IN_FILTER_MAX, &mut |entry| {
                        if let Some(person) = person::read(&entry, config, self.now) {
                            found.entry(person.id.clone()).or_default().push(person);
                        }
                        Ok(())
                    })
                    .await?;
            }
            for id in ids {
                match found.remove(id).unwrap_or_default().as_mut_slice() {
                    [] => drop(self.people.remove(id)),
                    [only] => drop(self.people.insert(id.clone(), only.clone())),
                    // Nobody knows which of them the account's person is.
                    [first, ..] => {
                        first.disabled = true;
                        first.login = "".into();
                        first.version = 0;
                        self.people.insert(id.clone(), first.clone());
                        self.faults.add(Fault::SharedId { id: id.clone() });
                    }
                }
            }
        }
        if missing > limits::ASKED_AGAIN_MAX && asked.iter().any(|id| self.people.contains_key(id)) {
            return Err(ServerError::Incomplete { missing });
        }
        Ok(())
    }
}

/// Somebody of whom only the id has been read so far.
fn placeholder(id: &PersonId) -> Person {
    Person {
        id: id.clone(),
        version: 0,
        dn: "".into(),
        login: "".into(),
        name: "".into(),
        mail: "".into(),
        disabled: true,
        expires: Person::NEVER,
        wanted: Default::default(),
    }
}
