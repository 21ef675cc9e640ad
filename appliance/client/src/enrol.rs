//! Enrolment: from an invitation to a device that the ledger knows.

use crate::connection::{Api, Connector, Target};
use crate::engine::Engine;
use crate::error::ClientError;
use crate::records::{self, Prepared, ProfileRecord};
use crate::shared::{Core, now, random, wire};
use crate::store::{Batch, Space, Store};
use crate::trust::{Checker, Ledger};
use std::path::Path;
use std::sync::Arc;
use zixt_api::{EnrolRequest, Invitation};
use zixt_crypto::password::Params;
use zixt_crypto::selftest::generate_signing_key;
use zixt_crypto::{Backend, SigningKey, SigningSeed, cose, digest, labels};
use zixt_crypto_fast::tls::PinnedKey;
use zixt_types::{Author, Body, Canonical, Member, MessageId, Payload};

const PROFILE: &[u8] = b"profile";

/// Makes keys, checks the appliance against the invitation, makes the store and hands the device in.
pub async fn enrol(
    invitation: &Invitation,
    folder: &Path,
    passphrase: &[u8],
    cost: Params,
    backend: Arc<dyn Backend>,
    connector: &dyn Connector,
) -> Result<Engine, ClientError> {
    let suite = invitation.suite;
    let crypto = |error: &dyn std::fmt::Display| ClientError::Crypto(error.to_string());
    let fresh = || generate_signing_key(&*backend, suite).map_err(|error| crypto(&error));
    let ((identity_seed, identity), (mls_seed, mls), (tls_seed, tls)) = (fresh()?, fresh()?, fresh()?);
    let invitation_key = backend
        .signing_key(suite, &SigningSeed::from_bytes(invitation.seed.as_bytes()))
        .map_err(|error| crypto(&error))?;

    // First whether the appliance is the right one and its ledger the invitation's; a store is made only then.
    let target = Target { address: invitation.address.clone(), suite, pin: PinnedKey(invitation.tls) };
    let tls_public = tls.public_key().to_vec();
    let api = Api::new(connector.transport(&target, Arc::new(tls))?);
    let network = api.network().await?;
    let checker = Checker::bootstrap(&network, invitation.genesis, Arc::clone(&backend))?;
    if !checker.genesis.suites.contains(&suite) {
        return Err(ClientError::Invitation("this network does not allow its suite".to_owned()));
    }

    let hash = |key: &[u8]| digest::key_hash(suite, key);
    let device = digest::device_id(hash(identity.public_key()));
    let body = Body {
        version: Body::VERSION,
        suite,
        genesis: invitation.genesis,
        thread: digest::account_thread(invitation.account),
        author: Author::Invitation(invitation.account),
        counter: 0,
        message_id: MessageId(random()?),
        sent_at: now(),
        last_seen: None,
        payload: Payload::DeviceAdd {
            device,
            identity: hash(identity.public_key()),
            mls: hash(mls.public_key()),
            tls: hash(&tls_public),
        },
    };
    let bytes = body.to_bytes();
    let sign = |key: &dyn SigningKey, label| cose::sign(key, label, &bytes).map_err(|error| crypto(&error));
    let keys = [identity.public_key(), mls.public_key(), &tls_public, invitation_key.public_key()];
    let prepared = Prepared {
        signature: sign(&*invitation_key, labels::INVITATION)?,
        possession: Some(sign(&*identity, labels::DEVICE_CROSS_CERT)?),
        attachments: keys.iter().map(|key| records::Blob(key.to_vec())).collect(),
        disclosure: None,
        body: bytes,
    };
    let record = ProfileRecord {
        version: records::VERSION,
        suite,
        genesis: checker.genesis.to_bytes(),
        keyring: (*checker.keyring).clone(),
        address: invitation.address.clone(),
        tls_pin: invitation.tls,
        name: invitation.name.clone(),
        member: Member { account: invitation.account, device },
        identity: *identity_seed.as_bytes(),
        mls: *mls_seed.as_bytes(),
        tls: *tls_seed.as_bytes(),
        state_key: random()?,
        checkpoint: (invitation.checkpoint.height, invitation.checkpoint.header),
        enrolling: Some(prepared),
    };
    let store = Store::create(folder, passphrase, cost).await?;
    // Point of no return: once these keys are handed in, the invitation is used up. They have to survive.
    let mut batch = Batch::new();
    batch.put(Space::Profile, PROFILE, records::encode(&record));
    store.commit(batch).await?;
    let result = resume(store, record, backend, connector).await;
    if let Err(error) = &result
        && definite(error)
    {
        remove(folder);
    }
    result
}

/// Opens what a folder holds, and finishes an enrolment that was interrupted.
pub async fn open(
    folder: &Path,
    passphrase: &[u8],
    backend: Arc<dyn Backend>,
    connector: &dyn Connector,
) -> Result<Engine, ClientError> {
    let store = Store::open(folder, passphrase).await?;
    let Some(bytes) = store.get(Space::Profile, PROFILE).await? else {
        // The crash came between the making of the store and its first content.
        drop(store);
        remove(folder);
        return Err(crate::store::StoreError::Absent(folder.to_owned()).into());
    };
    let record: ProfileRecord = records::decode(Space::Profile, &bytes)?;
    if record.enrolling.is_some() {
        return resume(store, record, backend, connector).await;
    }
    let core = Core::assemble(store, &record, backend, connector).await?;
    Engine::load(Arc::new(core)).await
}

/// Hands the device in (again: the appliance gives the same receipt) and checks the receipt.
async fn resume(
    store: Store,
    mut record: ProfileRecord,
    backend: Arc<dyn Backend>,
    connector: &dyn Connector,
) -> Result<Engine, ClientError> {
    let core = Core::assemble(store.clone(), &record, backend, connector).await?;
    let mut ledger = Ledger::load(core.checker()?, store.clone()).await?;
    let api = core.api.clone();
    if ledger.tip().is_none() {
        ledger.begin(&api, record.checkpoint).await?;
    }
    if let Some(prepared) = &record.enrolling {
        let request = EnrolRequest { submission: wire(prepared), name: Some(record.name.clone()) };
        let receipt = api.enrol(&request).await?;
        let possession = prepared.possession.as_deref();
        let entry = ledger.checker.receipt(&receipt, &prepared.body, &prepared.signature, possession)?;
        let header = ledger.accept(&api, &receipt.proof.certified).await?;
        let place = (&entry.position, &entry.salt, &entry.hash, entry.height);
        let state = ledger.checker.recorded(entry.body.thread, place, &receipt.proof, &header)?;
        ledger.saw_shard(state);
    }
    record.enrolling = None;
    let mut batch = ledger.changes().clone();
    batch.put(Space::Profile, PROFILE, records::encode(&record));
    store.commit(batch).await?;

    let mut engine = Engine::load(Arc::new(core)).await?;
    // The device is enrolled. What follows is done again with every connection, so a fault here is not fatal.
    let me = engine.core.me().account;
    let finished = async {
        engine.refresh(me).await?;
        engine.publish_keys().await
    };
    if let Err(error) = finished.await {
        match engine.noticed(error, None).await? {
            error @ ClientError::Trust(_) => return Err(error),
            error => log::warn!("after enrolment: {error}"),
        }
    }
    Ok(engine)
}

/// Whether the appliance refused for good, so that the keys are worth nothing.
fn definite(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(problem) => problem.status < 500 && problem.status != 429,
        ClientError::Trust(_) => true,
        _ => false,
    }
}

fn remove(folder: &Path) {
    for name in ["store.sqlite", "store.sqlite-wal", "store.sqlite-shm"] {
        // What is not there need not be removed.
        let _absent = std::fs::remove_file(folder.join(name));
    }
}
