//! Enrolment, passphrases, key packages and the people one talks to.

use crate::appliance::{Appliance, Way};
use std::sync::Arc;
use zixt_api::ErrorCode;
use zixt_client::store::StoreError;
use zixt_client::trust::TrustError;
use zixt_client::{Client, ClientError, Invitation, PassphraseCost};
use zixt_crypto_fast::AwsLc;
use zixt_types::{Hash, Height};

async fn enrol(
    appliance: &Arc<Appliance>,
    invitation: &Invitation,
    folder: &std::path::Path,
) -> Result<Client, ClientError> {
    let way = Way(Arc::clone(appliance));
    Client::enrol_with(invitation, folder, b"p", PassphraseCost::MIN, Arc::new(AwsLc), &way).await
}

async fn open(
    appliance: &Arc<Appliance>,
    folder: &std::path::Path,
    passphrase: &[u8],
) -> Result<Client, ClientError> {
    Client::open_with(folder, passphrase, Arc::new(AwsLc), &Way(Arc::clone(appliance))).await
}

#[tokio::test]
async fn an_invitation_of_another_ledger_is_refused_and_leaves_nothing_behind() {
    let appliance = Appliance::new();
    let good = appliance.invite("ada");
    let folder = tempfile::tempdir().unwrap();
    let mut other = good.clone();
    other.genesis = Hash([9; 48]);
    let error = enrol(&appliance, &other, folder.path()).await.unwrap_err();
    assert!(matches!(error, ClientError::Trust(fault) if matches!(*fault, TrustError::OtherGenesis { .. })));
    let mut other = good.clone();
    other.checkpoint.header = Hash([9; 48]);
    let error = enrol(&appliance, &other, folder.path()).await.unwrap_err();
    assert!(matches!(error, ClientError::Trust(fault) if matches!(*fault, TrustError::Checkpoint(_))));
    let mut other = good.clone();
    other.checkpoint.height = Height(99);
    let error = enrol(&appliance, &other, folder.path()).await.unwrap_err();
    assert!(matches!(error, ClientError::Trust(fault) if matches!(*fault, TrustError::Checkpoint(_))));
    appliance.offline(true);
    assert!(matches!(enrol(&appliance, &good, folder.path()).await, Err(ClientError::Connection(_))));
    appliance.offline(false);
    assert!(!folder.path().join("store.sqlite").exists());

    enrol(&appliance, &good, folder.path()).await.unwrap();
    let second = tempfile::tempdir().unwrap();
    let error = enrol(&appliance, &good, second.path()).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(problem) if problem.code == ErrorCode::InvitationUsed));
    assert!(!second.path().join("store.sqlite").exists());
}

#[tokio::test]
async fn an_interrupted_enrolment_is_finished_by_the_next_start() {
    let appliance = Appliance::new();
    let invitation = appliance.invite("ada");
    let folder = tempfile::tempdir().unwrap();
    appliance.lock().lose = vec!["/v1/enrol"];
    assert!(matches!(enrol(&appliance, &invitation, folder.path()).await, Err(ClientError::Connection(_))));
    assert!(matches!(open(&appliance, folder.path(), b"p").await, Err(ClientError::Connection(_))));
    appliance.lock().lose.clear();
    let ada = open(&appliance, folder.path(), b"p").await.unwrap();
    assert_eq!(ada.profile().name, "ada");
    assert_eq!(ada.devices().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_passphrase_opens_and_can_be_changed() {
    let appliance = Appliance::new();
    let folder = tempfile::tempdir().unwrap();
    let ada = enrol(&appliance, &appliance.invite("ada"), folder.path()).await.unwrap();
    let in_use = open(&appliance, folder.path(), b"p").await.unwrap_err();
    assert!(matches!(in_use, ClientError::Store(StoreError::InUse)));
    ada.change_passphrase(b"p", b"q", PassphraseCost::MIN).await.unwrap();
    drop(ada);
    let wrong = open(&appliance, folder.path(), b"p").await.unwrap_err();
    assert!(matches!(wrong, ClientError::Store(StoreError::WrongPassphrase)));
    appliance.offline(true);
    open(&appliance, folder.path(), b"q").await.unwrap();
    let nowhere = tempfile::tempdir().unwrap();
    let absent = open(&appliance, nowhere.path(), b"q").await.unwrap_err();
    assert!(matches!(absent, ClientError::Store(StoreError::Absent(_))));
}

#[tokio::test]
async fn key_packages_are_filled_up_and_the_last_resort_works() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let mut threads = Vec::new();
    // Bob stays away; the twenty that he published run out.
    for _ in 0..22 {
        threads.push(ada.client().start_conversation(&["bob"], None).await.unwrap());
    }
    bob.sync().await;
    assert_eq!(bob.client().threads().await.unwrap().len(), 22);
    let last = *threads.last().unwrap();
    assert_eq!(bob.say(last, "through the last resort").await.unwrap(), 1);
    ada.sync().await;
    assert_eq!(ada.texts(last).await, ["through the last resort"]);
    // Whoever came in that way renews the keys at once.
    let epoch = |threads: Vec<zixt_client::ThreadSummary>| {
        threads.into_iter().find(|summary| summary.thread == last).unwrap().epoch.0
    };
    assert_eq!(epoch(ada.client().threads().await.unwrap()), 2);
    bob.sync().await;
    appliance.lock().asked.clear();
    bob.sync().await;
    let asked = appliance.lock().asked.iter().filter(|path| path.starts_with("/v1/key-packages")).count();
    assert_eq!(asked, 1, "filled up before; only the count is asked for");
}

#[tokio::test]
async fn contacts_are_verified_until_their_devices_change() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let contact = ada.client().contact("BOB").await;
    // The test's appliance is strict about case; the client knows nobody yet.
    assert!(matches!(contact, Err(ClientError::UnknownPerson(_))));
    let contact = ada.client().contact("bob").await.unwrap();
    assert_eq!((contact.devices.len(), contact.verified), (1, false));
    assert_eq!(contact.devices[0].fingerprint, bob.client().devices().await.unwrap()[0].fingerprint);
    ada.client().mark_verified(contact.account).await.unwrap();
    appliance.offline(true);
    assert!(ada.client().contact("Bob").await.unwrap().verified, "known by now, in any case of letters");
    appliance.offline(false);
    assert_eq!(ada.client().contacts().await.unwrap().len(), 2);
}
