//! Commands about the account itself.

use super::args::Global;
use super::exit::{Exit, Failure};
use super::output::{self, Output};
use super::secret;
use super::session::{Session, folder, require_store, wait};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use zixt_client::store::StoreError;
use zixt_client::{Client, ClientError, PassphraseCost};

/// `zixt enrol`
pub async fn enrol(global: &Global, invitation: &str) -> Result<(), Failure> {
    let output = Output { json: global.json };
    let folder = folder(global)?;
    if folder.join("store.sqlite").exists() {
        return Err(ClientError::from(StoreError::Exists(folder)).into());
    }
    let invitation = secret::invitation(invitation)?;
    output.remark(&format!(
        "Invitation for {} to the network '{}'\n  genesis   {}\n  appliance {} (suite {})",
        invitation.name,
        invitation.network,
        invitation.genesis,
        invitation.address,
        invitation.suite.name(),
    ));
    if invitation.lab {
        output.remark("  *** LAB NETWORK: not for production. Its keys lie beside its programs. ***");
    }
    output.remark(
        "Compare the genesis with the one that your organisation has published.\n\
         You speak on the record: every message is signed by this device and recorded for good. Others can prove\n\
         what you said and when. Choose a passphrase for this device; nobody can recover it.",
    );
    let passphrase = secret::new_passphrase(global.passphrase_file.as_deref(), invitation.lab)?;
    let timeout = Duration::from_secs(u64::from(global.timeout));
    let enrolment = Client::enrol(&invitation, &folder, &passphrase, PassphraseCost::DEFAULT);
    let client = match wait(timeout, enrolment).await {
        Ok(client) => client,
        Err(mut failure) => {
            if folder.join("store.sqlite").exists() && failure.exit == Exit::Away {
                failure.advice =
                    "The device's keys are made and kept. Finish the enrolment when the appliance is \
                                  there: zixt sync"
                        .to_owned();
            }
            return Err(failure);
        }
    };
    let mut document =
        json!({ "enrolled": true, "store": folder, "fingerprint": fingerprint(&client).await });
    output::merge(&mut document, output::profile(client.profile()));
    output.result(&document, || {
        let name = super::escape::escape_line(&client.profile().name);
        format!("This device is enrolled as {name}. Talk: zixt chat NAME")
    })
}

/// `zixt whoami`
pub async fn whoami(session: &Session, global: &Global) -> Result<(), Failure> {
    let profile = session.client.profile();
    let fingerprint = fingerprint(&session.client).await;
    let mut document = json!({ "store": folder(global)?, "fingerprint": fingerprint });
    output::merge(&mut document, output::profile(profile));
    session.output.result(&document, || {
        let line = super::escape::escape_line;
        format!(
            "{}{}\n  network     {}\n  genesis     {}\n  suite       {}\n  appliance   {}\n  account     {}\n  \
             device      {}\n  fingerprint {}",
            line(&profile.name),
            if profile.lab() { "  (LAB NETWORK: not for production)" } else { "" },
            line(profile.network()),
            profile.genesis_hash,
            profile.suite.name(),
            line(&profile.address),
            profile.member.account,
            profile.member.device,
            fingerprint.as_deref().unwrap_or("not known before the first sync"),
        )
    })
}

/// This device's fingerprint, if the account's entries are known already.
async fn fingerprint(client: &Client) -> Option<String> {
    let devices = client.devices().await.ok()?;
    devices.into_iter().find(|device| device.own).map(|device| device.fingerprint)
}

/// `zixt status`: answers also when the appliance is away, and ends with that exit code then.
pub async fn status(session: &Session) -> Result<(), Failure> {
    let synced = session.sync().await;
    let threads = session.client.threads().await?;
    let alarms = session.client.alarms().await?.len();
    let profile = session.client.profile();
    let queued: u64 = threads.iter().map(|thread| thread.queued).sum();
    let unread: u64 = threads.iter().map(|thread| thread.unread).sum();
    let height = synced.as_ref().ok().map(|report| report.height.0);
    let reason = synced.as_ref().err().map(|failure| failure.what.clone());
    let document = json!({
        "connected": synced.is_ok(),
        "reason": reason,
        "address": profile.address,
        "network": profile.network(),
        "genesis": profile.genesis_hash.to_hex(),
        "lab": profile.lab(),
        "height": height,
        "threads": threads.len(),
        "unread": unread,
        "queued": queued,
        "alarms": alarms,
    });
    session.output.result(&document, || {
        let state = if synced.is_ok() { "connected" } else { "AWAY" };
        let height = height.map_or_else(|| "not asked".to_owned(), |height| height.to_string());
        format!(
            "appliance      {} ({state})\nnetwork        {}{}\nledger height  {height}\nconversations  {}, {unread} \
             unread, {queued} queued\nalarms         {alarms}",
            super::escape::escape_line(&profile.address),
            super::escape::escape_line(profile.network()),
            if profile.lab() { "  (LAB: not for production)" } else { "" },
            threads.len(),
        )
    })?;
    synced.map(|_| ())
}

/// `zixt passphrase`
pub async fn change_passphrase(global: &Global, new_file: Option<&Path>) -> Result<(), Failure> {
    let folder = require_store(global)?;
    let old = secret::passphrase(global.passphrase_file.as_deref())?;
    let client = Client::open(&folder, &old).await?;
    let new = secret::replacement(new_file, client.profile().lab())?;
    client.change_passphrase(&old, &new, PassphraseCost::DEFAULT).await?;
    let output = Output { json: global.json };
    output.result(&json!({ "changed": true, "store": folder }), || {
        "The passphrase is changed. Copies of the folder made before still open with the old one.".to_owned()
    })
}

/// For commands whose result is a list under one name.
pub fn list(name: &str, items: Vec<Value>) -> Value {
    json!({ name: items })
}
