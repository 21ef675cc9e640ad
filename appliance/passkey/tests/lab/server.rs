//! A server around the sign-in machine, with one account.

use std::net::{IpAddr, Ipv4Addr};
use zixt_crypto::{Backend as _, Reference, SigningKey, SigningSeed, SuiteId, digest, fill_random};
use zixt_identity::{
    AccountRecord, Approved, Attempts, Authority, Blocklist, Caller, Channel, CredentialChange, Credentials,
    Desk, DeviceProof, Factor, Incoming, InvitationCode, KnownDevice, Login, Named, Network, Now, Origin,
    Password, PasswordRecord, Policy, PolicyDocument, Proof, Role, Roles, Sessions, Start, Step, Subject,
    Tools, WebAuthnCredential,
};
use zixt_passkey::{
    CreationOptions, FinishError, PasskeySecret, Person, Registrations, RelyingParty, RequestOptions,
    Settings,
};
use zixt_types::{AccountId, ApplianceId, Hash, Timestamp};

pub const RP_ID: &str = "zixt.test";
pub const ORIGIN: &str = "https://zixt.test";
pub const PASSWORD: &str = "tall trees lean west";
pub const CHANNEL: Channel = Channel::Listener(Hash([4; 48]));
/// When the tests begin.
pub const START: u64 = 1_800_000_000_000;
pub const ADA: Person<'static> = Person { name: "ada", display_name: "Ada Lovelace" };

/// The relying party of the tests, with pages at these origins.
pub fn party(origins: &[&str]) -> RelyingParty {
    let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let settings = Settings { rp_id: RP_ID.into(), name: "Zixt".into(), origins };
    RelyingParty::new(settings, PasskeySecret::from_bytes(&[9; 32])).unwrap()
}

/// A server with one account and the sign-in machine.
pub struct Server {
    pub party: RelyingParty,
    pub registrations: Registrations,
    pub policy: Policy,
    pub attempts: Attempts,
    pub sessions: Sessions,
    pub record: AccountRecord,
    pub credentials: Credentials,
    pub wall: u64,
    device: KnownDevice,
    device_key: Box<dyn SigningKey>,
}

impl Server {
    pub fn new(account: u8, role: Role) -> Self {
        let now = Now { wall: Timestamp(START), ledger: Timestamp(START) };
        let code = InvitationCode::generate(&mut fill_random).unwrap();
        let ceremony = Authority::Ceremony(Approved::danger_of(Hash([1; 48])));
        let (id, roles) = (AccountId([account; 16]), Roles::new(&[role]).unwrap());
        let end = Timestamp(START + 1000);
        let invited = AccountRecord::invite(&ceremony, id, roles, &code, now, end).unwrap();
        let record = invited.accept(&code, now).unwrap().change.record;
        let suite = SuiteId::Standard;
        let device_key = Reference.signing_key(suite, &SigningSeed::from_bytes(&[account; 32])).unwrap();
        let identity = digest::key_hash(suite, device_key.public_key());
        Self {
            party: party(&[ORIGIN]),
            registrations: Registrations::default(),
            policy: Policy::new(PolicyDocument::default()).unwrap(),
            attempts: Attempts::load(&[1; 32], []),
            sessions: Sessions::default(),
            record,
            credentials: Credentials::default(),
            wall: START,
            device: KnownDevice { id: digest::device_id(identity), suite, identity },
            device_key,
        }
    }

    pub fn now(&self) -> Now {
        Now { wall: Timestamp(self.wall), ledger: Timestamp(self.wall) }
    }

    pub fn origin() -> Origin {
        Origin { network: Some(Network::of(IpAddr::V4(Ipv4Addr::LOCALHOST))), held: None }
    }

    pub fn begin(&self) -> Login {
        self.begin_over(CHANNEL)
    }

    pub fn begin_over(&self, channel: Channel) -> Login {
        let start = Start {
            genesis: Hash([1; 48]),
            appliance: ApplianceId([2; 48]),
            who: Named::Account(self.record.id()),
            origin: Self::origin(),
            channel,
        };
        Login::begin(&self.policy, &self.attempts, &start, self.now(), &mut fill_random).unwrap()
    }

    /// The three steps of a proof.
    pub fn step(&mut self, login: &mut Login, proof: Proof) -> Step {
        let now = self.now();
        let incoming = Incoming {
            factor: proof.factor(),
            origin: Self::origin(),
            channel: login.challenge().channel,
            device: proof.factor() == Factor::DeviceKey,
        };
        let admitted =
            login.admit(&self.policy, &mut self.attempts, Some(&self.credentials), &incoming, now).unwrap();
        let devices = [self.device];
        let tools = Tools { policy: &self.policy, backend: &Reference, webauthn: Some(&self.party) };
        let subject = Subject { record: &self.record, credentials: &self.credentials, devices: &devices };
        let examined = login.examine(admitted, proof, Some(subject), &tools, now, &mut fill_random);
        let desk = Desk { record: &self.record, credentials: &mut self.credentials, devices: &devices };
        login.conclude(&self.policy, examined, Some(desk), &mut self.attempts, now)
    }

    /// A session by the account's device.
    pub fn session(&mut self) -> Caller {
        let mut login = self.begin();
        let challenge = login.challenge().clone();
        let proof =
            DeviceProof::sign(&*self.device_key, &challenge, self.record.id(), self.device.id).unwrap();
        let Step::Done(grant) = self.step(&mut login, Proof::DeviceKey(Box::new(proof))) else {
            panic!("the device signs in")
        };
        let (token, _) = self.sessions.open(*grant, &mut fill_random).unwrap();
        let (binding, now) = (CHANNEL.binding(), self.now());
        self.sessions.check(&self.policy, &token, &binding, now, |_| Some(&self.record)).unwrap()
    }

    pub fn options(&mut self, caller: &Caller) -> CreationOptions {
        let actor = caller.acting(&self.record, Timestamp(self.wall)).unwrap();
        let registered = self.credentials.webauthn();
        self.registrations.begin(&self.party, &actor, ADA, registered, &mut fill_random).unwrap()
    }

    pub fn finish(&mut self, caller: &Caller, text: &[u8]) -> Result<WebAuthnCredential, FinishError> {
        let actor = caller.acting(&self.record, Timestamp(self.wall)).unwrap();
        let registered = self.credentials.webauthn();
        self.registrations.finish(&self.party, &actor, text, "blue key", registered)
    }

    /// Changes what the account signs in with, as its owner.
    pub fn change(&mut self, change: CredentialChange) {
        let caller = self.session();
        let actor = caller.acting(&self.record, Timestamp(self.wall)).unwrap();
        let changed = self.record.change_credentials(&actor, &mut self.credentials, change).unwrap();
        self.record = changed.record;
    }

    pub fn set_password(&mut self) {
        let password = Password::parse(PASSWORD).unwrap();
        let (list, roles) = (Blocklist::new(""), self.record.roles());
        let chosen =
            PasswordRecord::choose(&self.policy, roles, &password, &list, &[], &mut fill_random).unwrap();
        self.change(CredentialChange::Password(Some(chosen)));
    }

    /// What the page of a sign-in gets.
    pub fn ask(&self, login: &Login) -> RequestOptions {
        self.party.options(login.challenge(), "ada", self.credentials.webauthn(), Timestamp(self.wall))
    }
}
