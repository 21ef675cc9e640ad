//! What the word of an identity provider is worth: a sign-in at the provider becomes a voucher, the voucher a session,
//! and the session has none of the permissions that need a proof of one's own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

mod lab;

use lab::oidc::{Attempt, BROWSER, Lab, NOW_MS, SECRET, now};
use secrecy::SecretString;
use std::net::{IpAddr, Ipv4Addr};
use zixt_crypto::{Reference, fill_random};
use zixt_identity::{
    AccountRecord, Approved, Attempts, Authority, Channel, Credentials, Desk, Factor, Incoming,
    InvitationCode, Issuer, IssuerId, Login, Named, Network, Now, Origin, PERMISSIONS, Policy,
    PolicyDocument, Proof, Role, Roles, Sessions, Start, Step, Subject, Tools,
};
use zixt_sso::oidc::{Config, Provider};
use zixt_sso::{Assertion, Browser, OtherLogin};
use zixt_types::{AccountId, ApplianceId, Hash, Timestamp};

const CHANNEL: Channel = Channel::Listener(Hash([4; 48]));
const ORIGIN: fn() -> Origin =
    || Origin { network: Some(Network::of(IpAddr::V4(Ipv4Addr::LOCALHOST))), held: None };

fn both() -> Now {
    Now { wall: Timestamp(NOW_MS), ledger: Timestamp(NOW_MS) }
}

fn ceremony() -> Authority<'static> {
    Authority::Ceremony(Approved::danger_of(Hash([1; 48])))
}

/// A person in use, linked to `alice-1` at the provider.
fn linked(role: Role, issuer: &Issuer) -> AccountRecord {
    let code = InvitationCode::generate(&mut fill_random).unwrap();
    let roles = Roles::new(&[role]).unwrap();
    let end = Timestamp(NOW_MS + 1000);
    let invited = AccountRecord::invite(&ceremony(), AccountId([9; 16]), roles, &code, both(), end).unwrap();
    let active = invited.accept(&code, both()).unwrap().change.record;
    active.link(&ceremony(), issuer.link(b"alice-1")).unwrap().record
}

struct Server {
    policy: Policy,
    attempts: Attempts,
    record: AccountRecord,
    credentials: Credentials,
}

impl Server {
    fn new(role: Role, issuer: &Issuer) -> Self {
        Self {
            policy: Policy::new(PolicyDocument::default()).unwrap(),
            attempts: Attempts::load(&[1; 32], []),
            record: linked(role, issuer),
            credentials: Credentials::default(),
        }
    }

    fn begin(&self) -> Login {
        let start = Start {
            genesis: Hash([1; 48]),
            appliance: ApplianceId([2; 48]),
            who: Named::Account(self.record.id()),
            origin: ORIGIN(),
            channel: CHANNEL,
        };
        Login::begin(&self.policy, &self.attempts, &start, both(), &mut fill_random).unwrap()
    }

    /// The three steps of a proof, with the assertion in the middle.
    fn end(&mut self, login: &mut Login, issuer: &Issuer, assertion: Option<&Assertion>) -> Step {
        let incoming =
            Incoming { factor: Factor::Sso, origin: ORIGIN(), channel: CHANNEL.binding(), device: false };
        let admitted = login
            .admit(&self.policy, &mut self.attempts, Some(&self.credentials), &incoming, both())
            .unwrap();
        let proof = match assertion {
            Some(assertion) => Proof::Voucher(assertion.vouch(issuer, &admitted, now()).unwrap()),
            None => issuer.refuse(),
        };
        let tools = Tools { policy: &self.policy, backend: &Reference, webauthn: None };
        let subject = Subject { record: &self.record, credentials: &self.credentials, devices: &[] };
        let examined = login.examine(admitted, proof, Some(subject), &tools, both(), &mut fill_random);
        let desk = Desk { record: &self.record, credentials: &mut self.credentials, devices: &[] };
        login.conclude(&self.policy, examined, Some(desk), &mut self.attempts, both())
    }
}

/// Signs in at the lab's provider for this sign-in.
async fn at_the_provider(lab: &Lab, login: &Login, change: impl Fn(&mut Attempt)) -> Option<Assertion> {
    let config = Config::new(&lab.document()).unwrap();
    let provider = Provider::discover(config, SecretString::from(SECRET), &now).await.unwrap();
    let begun = provider.begin(login.id(), Browser::of(&BROWSER), now(), &mut fill_random).unwrap();
    lab::oidc::answer_of(lab, &provider, begun, login.id(), change).await
}

#[tokio::test]
async fn the_word_of_a_provider_opens_a_session_without_the_permissions_of_a_proof_of_ones_own() {
    let lab = Lab::start().await;
    let issuer = Issuer::sso(IssuerId([7; 16]));
    let mut server = Server::new(Role::User, &issuer);
    let mut login = server.begin();
    let assertion = at_the_provider(&lab, &login, |_| ()).await.unwrap();
    let Step::Done(grant) = server.end(&mut login, &issuer, Some(&assertion)) else { panic!("no session") };
    let mut sessions = Sessions::default();
    let (token, _) = sessions.open(*grant, &mut fill_random).unwrap();
    let record = server.record.clone();
    let caller =
        sessions.check(&server.policy, &token, &CHANNEL.binding(), both(), |_| Some(&record)).unwrap();
    let mut refused = 0;
    for (permission, _) in PERMISSIONS {
        let may = caller.require(*permission).is_ok();
        if permission.needs_own_proof() {
            refused += 1;
            assert!(!may, "{permission:?}");
        } else {
            assert_eq!(may, record.roles().may(*permission), "{permission:?}");
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn an_administrator_does_not_come_in_on_the_word_of_a_provider() {
    let lab = Lab::start().await;
    let issuer = Issuer::sso(IssuerId([7; 16]));
    for role in [Role::Administrator, Role::SecurityOfficer, Role::Auditor, Role::Operator] {
        let mut server = Server::new(role, &issuer);
        let mut login = server.begin();
        let assertion = at_the_provider(&lab, &login, |_| ()).await.unwrap();
        let step = server.end(&mut login, &issuer, Some(&assertion));
        assert!(!matches!(step, Step::Done(_)), "{role} signed in without a factor of their own");
    }
}

#[tokio::test]
async fn the_word_is_about_one_person_for_one_sign_in_of_one_provider() {
    let lab = Lab::start().await;
    let issuer = Issuer::sso(IssuerId([7; 16]));
    let mut server = Server::new(Role::User, &issuer);
    // Another person.
    let mut login = server.begin();
    let mallory = at_the_provider(&lab, &login, |attempt| attempt.claim("sub", "mallory-1")).await.unwrap();
    assert!(matches!(server.end(&mut login, &issuer, Some(&mallory)), Step::Refused { .. }));
    // Another provider, with the same person.
    let mut login = server.begin();
    let assertion = at_the_provider(&lab, &login, |_| ()).await.unwrap();
    let other = Issuer::sso(IssuerId([8; 16]));
    assert!(matches!(server.end(&mut login, &other, Some(&assertion)), Step::Refused { .. }));
    // Another sign-in.
    let another = server.begin();
    let incoming =
        Incoming { factor: Factor::Sso, origin: ORIGIN(), channel: CHANNEL.binding(), device: false };
    let admitted = another
        .admit(&server.policy, &mut server.attempts, Some(&server.credentials), &incoming, both())
        .unwrap();
    assert_eq!(assertion.vouch(&issuer, &admitted, now()).err(), Some(OtherLogin));
    // No word at all counts like a wrong password.
    let mut login = server.begin();
    assert!(matches!(server.end(&mut login, &issuer, None), Step::Refused { .. }));
}
