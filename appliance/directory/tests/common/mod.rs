//! Settings and shorthands of the tests.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a failure is a failed test"
)]

use crate::peers::slapd;
use std::time::{SystemTime, UNIX_EPOCH};
use zixt_directory::{
    BindError, Bound, Config, Directory, Document, Faults, Plan, Read, Refusal, Secrets, Snapshot,
    Unavailable,
};
use zixt_identity::Issuer;
use zixt_types::Timestamp;

pub fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// Settings for slapd, with these lines in addition or instead.
pub fn settings(servers: &[String], more: &str) -> Document {
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let replaced: Vec<String> = more.lines().map(name).collect();
    let base = format!(
        "name = \"test\"\nissuer = \"0f0e0d0c0b0a09080706050403020100\"\nkind = \"ldap\"\nservers = {servers:?}\n\
         bind_dn = {:?}\npeople = [\"ou=people,{SUFFIX}\"]\ngroups = [\"ou=groups,{SUFFIX}\"]\n\
         page_size = 50\nconnect_timeout_s = 20\n",
        slapd::READER,
        SUFFIX = slapd::SUFFIX
    );
    let kept: String =
        base.lines().filter(|line| !replaced.contains(&name(line))).map(|line| format!("{line}\n")).collect();
    toml::from_str(&format!("{kept}{more}")).unwrap()
}

pub fn directory(document: &Document, authority_pem: Vec<u8>) -> Directory {
    let secrets = Secrets { password: slapd::READER_PASSWORD.to_owned().into(), authority_pem };
    of(Config::new(document).unwrap(), secrets)
}

pub fn of(config: Config, secrets: Secrets) -> Directory {
    let issuer = Issuer::directory(config.issuer());
    Directory::new(config, issuer, secrets).unwrap()
}

pub fn refusal(answer: Result<Bound, BindError>) -> Refusal {
    match answer {
        Err(BindError::Refused(refused)) => refused.reason(),
        other => panic!("not refused: {other:?}"),
    }
}

pub fn unavailable(answer: Result<Bound, BindError>) -> String {
    match answer {
        Err(BindError::Unavailable(unavailable @ Unavailable::NoServer { .. })) => unavailable.to_string(),
        other => panic!("not unavailable: {other:?}"),
    }
}

/// Reads, and compares with what was read before.
pub async fn step(
    directory: &Directory,
    old: &Snapshot,
) -> (Read, Result<Plan, Box<zixt_directory::HeldPlan>>) {
    let read = directory.sync(Some(old), now()).await.unwrap();
    let linked = zixt_directory::Linked::default();
    let basis = zixt_directory::Basis { before: Some(old), linked: &linked, recent: Default::default() };
    let safety = directory.config().safety();
    let plan = zixt_directory::compare(directory.issuer(), basis, &read.snapshot, Faults::default(), safety);
    (read, plan)
}

/// What happened to whom, by their login names.
pub fn told(plan: &Plan) -> Vec<String> {
    let mut told: Vec<String> = plan
        .changes()
        .iter()
        .map(|change| {
            let login = change.person.as_ref().and_then(|person| person.login()).unwrap_or("?");
            format!("{login} {:?}", change.what)
        })
        .collect();
    told.sort_unstable();
    told
}
