use super::*;
use crate::Sessions;
use crate::backup::BackupCode;
use crate::backup::BackupRecord;
use crate::blocklist::Blocklist;
use crate::challenge::DeviceProof;
use crate::password::Password;
use crate::place::Channel;
use crate::place::{HeldSource, Network};
use crate::policy::{Cost, Path, PolicyDocument};
use crate::psk::Psk;
use crate::psk::PskProof;
use crate::sample::{MANY, Someone, active, ceremony};
use crate::totp::TotpCode;
use crate::totp::tests::{enrolled, shown};
use crate::voucher::{Issuer, IssuerId, Voucher};
use crate::webauthn::{WebAuthnCredential, WebAuthnProof, WebAuthnVerdict, WebAuthnVerifier};
use std::sync::OnceLock;
use zixt_crypto::password::Params;
use zixt_crypto::{Backend as _, Reference, SigningKey, SigningSeed, SuiteId, digest, fill_random};
use zixt_types::ApplianceId;
use zixt_types::Role;

const PASSWORD: &str = "tall trees lean west";
const ACCOUNT: AccountId = AccountId([7; 16]);

/// An assertion is the challenge's nonce and a counter.
#[derive(Debug)]
struct Authenticator;

impl WebAuthnVerifier for Authenticator {
    fn verify(
        &self,
        challenge: &Challenge,
        credential: &WebAuthnCredential,
        assertion: &[u8],
    ) -> Result<WebAuthnVerdict, WebAuthnError> {
        assert_eq!(credential.state(), b"public key");
        match assertion.split_first_chunk::<32>() {
            Some((nonce, &[count])) if *nonce == challenge.nonce => {
                Ok(WebAuthnVerdict { sign_count: u32::from(count) })
            }
            _ => Err(WebAuthnError::Rejected("challenge")),
        }
    }
}

fn tools(policy: &Policy) -> Tools<'_> {
    Tools { policy, backend: &Reference, webauthn: Some(&Authenticator) }
}

/// A person with everything, made once because hashes take time.
struct Person {
    record: AccountRecord,
    credentials: Credentials,
    codes: Vec<BackupCode>,
    psk: Psk,
    device: KnownDevice,
    key: Box<dyn SigningKey>,
}

fn cheap() -> PolicyDocument {
    let mut document = PolicyDocument::default();
    document.password.cost = Cost(Params::MIN);
    document.backup.cost = Cost(Params::MIN);
    document.backup.codes = 5;
    document
}

fn issuer() -> Issuer {
    Issuer::sso(IssuerId([3; 16]))
}

fn roles(roles: &[Role]) -> Roles {
    Roles::new(roles).unwrap()
}

fn person() -> &'static Person {
    static PERSON: OnceLock<Person> = OnceLock::new();
    PERSON.get_or_init(|| {
        let policy = Policy::cheap(cheap()).unwrap();
        let user = roles(&[Role::User]);
        let record = active(7, &[Role::User]).link(&ceremony(), issuer().link(b"guid")).unwrap().record;
        let mut credentials = Credentials::default();
        let password = Password::parse(PASSWORD).unwrap();
        let list = Blocklist::new("");
        let chosen = PasswordRecord::choose(&policy, user, &password, &list, &[], &mut fill_random).unwrap();
        credentials.set_password(Some(chosen));
        credentials.set_totp(Some(enrolled(&mut fill_random)));
        let psk = Psk::generate(&mut fill_random).unwrap();
        credentials.set_psk(Some(psk.verifier()));
        let (set, codes) = BackupRecord::generate(&policy, &mut fill_random).unwrap();
        credentials.set_backup(Some(set));
        let passkey = WebAuthnCredential::new(b"id", b"public key", 1, "blue key", Timestamp(0)).unwrap();
        assert!(credentials.add_webauthn(passkey));
        let suite = SuiteId::Standard;
        let key = Reference.signing_key(suite, &SigningSeed::from_bytes(&[9; 32])).unwrap();
        let identity = digest::key_hash(suite, key.public_key());
        let device = KnownDevice { id: digest::device_id(identity), suite, identity };
        Person { record, credentials, codes, psk, device, key }
    })
}

/// An appliance with that person.
struct World {
    policy: Policy,
    attempts: Attempts,
    record: AccountRecord,
    credentials: Credentials,
    devices: Vec<KnownDevice>,
    now: Now,
}

fn at(wall: u64) -> Now {
    Now { wall: Timestamp(wall), ledger: Timestamp(wall) }
}

fn origin(known: bool) -> Origin {
    let held = known.then(|| HeldSource::browser(&[5; 32]));
    Origin { network: Some(Network::of([192, 0, 2, 1].into())), held }
}

impl World {
    fn new(document: PolicyDocument) -> Self {
        let person = person();
        Self {
            policy: Policy::cheap(document).unwrap(),
            attempts: Attempts::load(&[1; 32], []),
            record: person.record.clone(),
            credentials: person.credentials.clone(),
            devices: vec![person.device],
            now: at(1_800_000_000_000),
        }
    }

    fn begin(&self, account: bool, origin: Origin) -> Login {
        let who = if account { Named::Account(ACCOUNT) } else { Named::Nobody("nobody") };
        let start = Start {
            genesis: Hash([1; 48]),
            appliance: ApplianceId([2; 48]),
            who,
            origin,
            channel: Channel::ClientKey(Hash([4; 48])),
        };
        Login::begin(&self.policy, &self.attempts, &start, self.now, &mut fill_random).unwrap()
    }

    fn step(&mut self, login: &mut Login, proof: Proof) -> Step {
        let desk = login.account().map(|_| Desk {
            record: &self.record,
            credentials: &mut self.credentials,
            devices: &self.devices,
        });
        login.step(proof, desk, &mut self.attempts, &tools(&self.policy), self.now, &mut fill_random)
    }

    fn good(&self, login: &Login, factor: Factor, number: u8) -> Proof {
        let person = person();
        let challenge = login.challenge();
        match factor {
            Factor::Password => Proof::Password(Password::parse(PASSWORD).unwrap()),
            Factor::Directory => {
                let issuer = Issuer::directory(IssuerId([3; 16]));
                Proof::Voucher(Voucher::sample(&issuer, b"guid", login.id(), self.now.wall))
            }
            Factor::Sso => Proof::Voucher(Voucher::sample(&issuer(), b"guid", login.id(), self.now.wall)),
            Factor::DeviceKey => {
                let proof = DeviceProof::sign(&*person.key, challenge, ACCOUNT, person.device.id).unwrap();
                Proof::DeviceKey(Box::new(proof))
            }
            Factor::Totp => Proof::Totp(shown(self.credentials.totp().unwrap(), self.now.wall)),
            Factor::Psk => Proof::Psk(person.psk.answer(challenge, ACCOUNT, &mut fill_random).unwrap()),
            Factor::BackupCode => {
                Proof::BackupCode(person.codes[usize::from(number) % person.codes.len()].clone())
            }
            Factor::WebAuthn => {
                let mut assertion = challenge.nonce.to_vec();
                let next = self.credentials.webauthn().first().map_or(1, |known| known.sign_count() + 1);
                assertion.push(u8::try_from(next).unwrap());
                Proof::WebAuthn(WebAuthnProof { credential: b"id".to_vec(), assertion })
            }
        }
    }
}

fn bad(login: &Login, factor: Factor) -> Proof {
    let person = person();
    match factor {
        Factor::Password => Proof::Password(Password::parse("tall trees lean east").unwrap()),
        Factor::Directory | Factor::Sso => {
            let other = Issuer::sso(IssuerId([4; 16]));
            Proof::Voucher(Voucher::sample(&other, b"guid", login.id(), Timestamp(1_800_000_000_000)))
        }
        Factor::DeviceKey => {
            let other = Reference.signing_key(SuiteId::Standard, &SigningSeed::from_bytes(&[8; 32])).unwrap();
            let proof = DeviceProof::sign(&*other, login.challenge(), ACCOUNT, person.device.id).unwrap();
            Proof::DeviceKey(Box::new(proof))
        }
        Factor::Totp => Proof::Totp(TotpCode::parse("99999999").unwrap()),
        Factor::Psk => Proof::Psk(PskProof { nonce: [0; 32], mac: Hash([0; 48]) }),
        Factor::BackupCode => Proof::BackupCode(BackupCode::parse("0000-0000-0000-0000").unwrap()),
        Factor::WebAuthn => {
            Proof::WebAuthn(WebAuthnProof { credential: b"id".to_vec(), assertion: vec![0; 33] })
        }
    }
}

fn set(factors: &[Factor]) -> FactorSet {
    factors.iter().copied().collect()
}

fn user_paths(paths: Vec<Path>) -> PolicyDocument {
    let mut document = cheap();
    document.roles[Role::User as usize].paths = paths;
    document
}

fn because(step: &Step) -> &Because {
    match step {
        Step::Refused { because, .. } => because,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_password_and_a_code_open_a_session() {
    let then = vec![set(&[Factor::Totp, Factor::BackupCode])];
    let mut world = World::new(user_paths(vec![Path { first: Factor::Password, then }]));
    let mut login = world.begin(true, origin(true));
    let proof = world.good(&login, Factor::Password, 0);
    let Step::Need(next) = world.step(&mut login, proof) else { panic!() };
    assert_eq!(next, set(&[Factor::Totp, Factor::BackupCode]));
    let proof = world.good(&login, Factor::BackupCode, 0);
    let Step::Done(grant) = world.step(&mut login, proof) else { panic!() };
    assert_eq!((grant.first(), grant.further()), (Factor::Password, set(&[Factor::BackupCode])));
    assert_eq!(grant.backup_low(), None);
    assert!(world.credentials.knows(&HeldSource::browser(&[5; 32])));
    let mut sessions = Sessions::default();
    let (token, _) = sessions.open(*grant, &mut fill_random).unwrap();
    let channel = Channel::ClientKey(Hash([4; 48])).binding();
    let found = sessions.check(&world.policy, &token, &channel, world.now, |_| Some(&world.record));
    assert_eq!(found.unwrap().account(), ACCOUNT);
    // The last codes are announced.
    let mut login = world.begin(true, origin(true));
    let proof = world.good(&login, Factor::Password, 0);
    assert!(matches!(world.step(&mut login, proof), Step::Need(_)));
    let proof = world.good(&login, Factor::BackupCode, 1);
    let Step::Done(grant) = world.step(&mut login, proof) else { panic!() };
    assert_eq!(grant.backup_low(), Some(3));
}

#[test]
fn a_device_key_signs_in_alone_and_its_proof_is_for_one_sign_in() {
    let mut world = World::new(cheap());
    let mut login = world.begin(true, origin(false));
    let replayed = world.good(&login, Factor::DeviceKey, 0);
    let again = world.good(&login, Factor::DeviceKey, 0);
    assert!(matches!(world.step(&mut login, replayed), Step::Done(_)));
    assert_eq!(because(&world.step(&mut login, again)), &Because::Over);
    let stale = world.good(&login, Factor::DeviceKey, 0);
    let mut other = world.begin(true, origin(false));
    let step = world.step(&mut other, stale);
    assert_eq!(because(&step), &Because::Device(DeviceProofError::OtherChallenge));
    // A device that is revoked while its proof is looked at does not get in.
    let proof = world.good(&other, Factor::DeviceKey, 0);
    let admission = other
        .admit(&world.policy, &mut world.attempts, None, &other.incoming(Factor::DeviceKey), world.now)
        .unwrap();
    let subject = Subject { record: &world.record, credentials: &world.credentials, devices: &world.devices };
    let examined =
        other.examine(admission, proof, Some(subject), &tools(&world.policy), world.now, &mut fill_random);
    let desk = Desk { record: &world.record, credentials: &mut world.credentials, devices: &[] };
    let step = other.conclude(&world.policy, examined, Some(desk), &mut world.attempts, world.now);
    assert_eq!(because(&step), &Because::Device(DeviceProofError::UnknownDevice));
}

#[test]
fn strangers_get_the_same_answers() {
    let mut world = World::new(cheap());
    let mut hard = 0;
    for n in 0..80u64 {
        world.now = at(1_800_000_000_000 + n * 3_600_000);
        let mut steps = [true, false].map(|account| {
            let origin = Origin { network: None, held: None };
            let mut login = world.begin(account, origin);
            let proof = bad(&login, Factor::Password);
            world.step(&mut login, proof)
        });
        match &mut steps {
            [Step::Refused { over: one, .. }, Step::Refused { over: other, .. }] => assert_eq!(one, other),
            [Step::LockedUntil(one), Step::LockedUntil(other)] => {
                assert_eq!(one, other);
                hard += u32::from(one.until.is_none());
            }
            steps => panic!("{steps:?}"),
        }
    }
    assert_eq!(hard, 20);
    // A person who is known here comes in all the same.
    world.credentials.remember(HeldSource::browser(&[5; 32]), world.now.wall);
    let mut login = world.begin(true, origin(true));
    let proof = world.good(&login, Factor::Password, 0);
    assert!(matches!(world.step(&mut login, proof), Step::Done(_)));
}

#[test]
fn two_proofs_at_once_are_one() {
    let then = vec![set(&[Factor::Totp])];
    let mut world = World::new(user_paths(vec![Path { first: Factor::Password, then }]));
    // Two sign-ins with the same one-time password, both looked at before either is concluded.
    let mut logins = [world.begin(true, origin(false)), world.begin(true, origin(false))];
    for login in &mut logins {
        let proof = world.good(login, Factor::Password, 0);
        assert!(matches!(world.step(login, proof), Step::Need(_)));
    }
    let mut examined = Vec::new();
    for login in &logins {
        let admission = login
            .admit(
                &world.policy,
                &mut world.attempts,
                Some(&world.credentials),
                &login.incoming(Factor::Totp),
                world.now,
            )
            .unwrap();
        let subject =
            Subject { record: &world.record, credentials: &world.credentials, devices: &world.devices };
        let proof = world.good(login, Factor::Totp, 0);
        let found = login.examine(
            admission,
            proof,
            Some(subject),
            &tools(&world.policy),
            world.now,
            &mut fill_random,
        );
        examined.push(found);
    }
    let steps: Vec<_> = logins
        .iter_mut()
        .zip(examined)
        .map(|(login, examined)| {
            let desk =
                Desk { record: &world.record, credentials: &mut world.credentials, devices: &world.devices };
            login.conclude(&world.policy, examined, Some(desk), &mut world.attempts, world.now)
        })
        .collect();
    assert!(matches!(steps[0], Step::Done(_)));
    assert_eq!(because(&steps[1]), &Because::Totp(TotpError::Used));
}

#[test]
fn what_was_looked_at_before_another_proof_is_not_taken() {
    let mut world = World::new(cheap());
    let mut login = world.begin(true, origin(false));
    let subject = Subject { record: &world.record, credentials: &world.credentials, devices: &world.devices };
    let admission = login
        .admit(&world.policy, &mut world.attempts, None, &login.incoming(Factor::Password), world.now)
        .unwrap();
    let proof = world.good(&login, Factor::Password, 0);
    let good =
        login.examine(admission, proof, Some(subject), &tools(&world.policy), world.now, &mut fill_random);
    let proof = bad(&login, Factor::Password);
    let step = world.step(&mut login, proof);
    assert_eq!(because(&step), &Because::WrongPassword);
    let desk = Desk { record: &world.record, credentials: &mut world.credentials, devices: &world.devices };
    let step = login.conclude(&world.policy, good, Some(desk), &mut world.attempts, world.now);
    assert_eq!(because(&step), &Because::Overtaken);
}

#[test]
fn a_short_password_is_never_the_only_factor() {
    let mut document = cheap();
    document.roles[Role::User as usize].paths =
        vec![Path { first: Factor::Password, then: vec![set(&[Factor::Totp])] }];
    let mut world = World::new(document.clone());
    let short = Password::parse("tall tre").unwrap();
    let list = Blocklist::new("");
    let user = roles(&[Role::User]);
    let record = PasswordRecord::choose(&world.policy, user, &short, &list, &[], &mut fill_random).unwrap();
    assert!(!record.stands_alone());
    world.credentials.set_password(Some(record));
    // A policy that asks for longer ones asks it of those who have chosen before, too.
    let mut longer = cheap();
    longer.password.chars_min_alone = 64;
    let mut old = World::new(longer);
    let mut login = old.begin(true, origin(false));
    let proof = old.good(&login, Factor::Password, 0);
    assert_eq!(because(&old.step(&mut login, proof)), &Because::PasswordNotEnough);
    // Then the policy drops the second factor.
    document.roles[Role::User as usize].paths[0].then.clear();
    world.policy = Policy::cheap(document).unwrap();
    let mut login = world.begin(true, origin(false));
    let step = world.step(&mut login, Proof::Password(short.clone()));
    assert_eq!(because(&step), &Because::PasswordNotEnough);
    let chosen = PasswordRecord::choose(&world.policy, user, &short, &list, &[], &mut fill_random);
    assert_eq!(chosen.err(), Some(crate::ChooseError::TooShort { got: 8, min: 15 }));
}

#[test]
fn an_old_hash_is_renewed() {
    let mut world = World::new(cheap());
    let before = world.credentials.password().cloned();
    let mut document = cheap();
    document.password.cost = Cost(Params::new(8 * 1024, 2, 1).unwrap());
    world.policy = Policy::cheap(document).unwrap();
    for _ in 0..2 {
        let mut login = world.begin(true, origin(false));
        let proof = world.good(&login, Factor::Password, 0);
        assert!(matches!(world.step(&mut login, proof), Step::Done(_)));
        assert_ne!(world.credentials.password().cloned(), before);
    }
}

#[test]
fn a_sign_in_ends_with_its_time_its_proofs_and_a_clock_that_is_set_back() {
    let mut world = World::new(cheap());
    let start = world.now;
    for wall in [start.wall.0 + 300_001, start.wall.0 - 1] {
        world.now = start;
        let mut login = world.begin(true, origin(false));
        world.now = at(wall);
        let proof = world.good(&login, Factor::Password, 0);
        assert_eq!(because(&world.step(&mut login, proof)), &Because::Expired);
    }
    world.now = at(start.wall.0 + 10_000_000);
    world.attempts = Attempts::load(&[1; 32], []);
    let mut login = world.begin(true, origin(false));
    let mut over = 0;
    for n in 0..20 {
        world.now = at(world.now.wall.0 + n);
        world.attempts = Attempts::load(&[1; 32], []);
        let proof = bad(&login, Factor::Totp);
        over += u32::from(matches!(world.step(&mut login, proof), Step::Refused { over: true, .. }));
    }
    assert_eq!(over, 11);
}

#[test]
fn a_voucher_is_for_one_person_and_a_short_time() {
    let mut world = World::new(cheap());
    let wall = world.now.wall.0;
    let here = issuer();
    let elsewhere = Issuer::sso(IssuerId([4; 16]));
    let cases = [
        (&here, &b"other guid"[..], wall, Because::NotLinked),
        (&elsewhere, b"guid", wall, Because::NotLinked),
        (&here, b"guid", wall - 60_001, Because::VoucherExpired),
        (&here, b"guid", wall + 1, Because::VoucherExpired),
    ];
    for (by, id, at, expected) in cases {
        let mut login = world.begin(true, origin(false));
        let voucher = Voucher::sample(by, id, login.id(), Timestamp(at));
        assert_eq!(because(&world.step(&mut login, Proof::Voucher(voucher))), &expected);
    }
    world.attempts = Attempts::load(&[1; 32], []);
    // What an issuer says for one sign-in is not said for another.
    let (one, mut other) = (world.begin(true, origin(false)), world.begin(true, origin(false)));
    let incoming = one.incoming(Factor::Sso);
    let admitted = one.admit(&world.policy, &mut world.attempts, None, &incoming, world.now).unwrap();
    let voucher = here.vouch(&admitted, b"guid", world.now.wall);
    assert_eq!(because(&world.step(&mut other, Proof::Voucher(voucher))), &Because::OtherSignIn);
    let mut login = world.begin(true, origin(false));
    let proof = world.good(&login, Factor::Sso, 0);
    let Step::Done(grant) = world.step(&mut login, proof) else { panic!() };
    assert_eq!((grant.first(), grant.further()), (Factor::Sso, FactorSet::EMPTY));
}

#[test]
fn a_directory_that_says_no_is_counted_like_a_wrong_password() {
    let mut world = World::new(cheap());
    let start = world.now.wall.0;
    let steps: Vec<_> = (0..61u64)
        .map(|n| {
            world.now = at(start + n * 3_600_000);
            let mut login = world.begin(true, Origin { network: None, held: None });
            world.step(&mut login, Issuer::directory(IssuerId([3; 16])).refuse())
        })
        .collect();
    let refused = |step: &&Step| matches!(step, Step::Refused { .. });
    assert_eq!(steps.iter().filter(refused).count(), 60);
    assert!(matches!(steps[60], Step::LockedUntil(Locked { until: None })));
    // So is every other way in that can be guessed at, and a device is not.
    let mut login = world.begin(true, origin(false));
    let proof = world.good(&login, Factor::Password, 0);
    assert!(matches!(world.step(&mut login, proof), Step::LockedUntil(_)));
    let proof = world.good(&login, Factor::DeviceKey, 0);
    assert!(matches!(world.step(&mut login, proof), Step::Done(_)));
}

#[test]
fn nobody_continues_what_somebody_else_has_begun() {
    let then = vec![set(&[Factor::BackupCode])];
    let mut world = World::new(user_paths(vec![Path { first: Factor::Password, then }]));
    let mut login = world.begin(true, origin(true));
    let proof = world.good(&login, Factor::Password, 0);
    assert!(matches!(world.step(&mut login, proof), Step::Need(_)));
    let here = login.incoming(Factor::BackupCode);
    let elsewhere = [
        Incoming { channel: Channel::ClientKey(Hash([9; 48])).binding(), ..here },
        Incoming { origin: origin(false), ..here },
        Incoming { origin: Origin { network: None, ..here.origin }, ..here },
    ];
    let before = world.attempts.changes();
    for incoming in elsewhere {
        let found = login.admit(&world.policy, &mut world.attempts, None, &incoming, world.now);
        assert_eq!(found.err(), Some(NotAdmitted::OtherConnection));
    }
    assert_eq!(world.attempts.changes(), before);
    // What was counted for one kind of proof is not used for another, which would be counted otherwise.
    let key = login.incoming(Factor::DeviceKey);
    let admitted = login.admit(&world.policy, &mut world.attempts, None, &key, world.now).unwrap();
    let subject = Subject { record: &world.record, credentials: &world.credentials, devices: &world.devices };
    let proof = world.good(&login, Factor::BackupCode, 0);
    let tools = tools(&world.policy);
    let examined = login.examine(admitted, proof, Some(subject), &tools, world.now, &mut fill_random);
    let desk = Desk { record: &world.record, credentials: &mut world.credentials, devices: &world.devices };
    let step = login.conclude(&world.policy, examined, Some(desk), &mut world.attempts, world.now);
    assert_eq!(because(&step), &Because::NotAdmitted);
    let proof = world.good(&login, Factor::BackupCode, 0);
    assert!(matches!(world.step(&mut login, proof), Step::Done(_)));
}

#[test]
fn a_right_password_that_leads_nowhere_is_told_like_a_wrong_one() {
    let then = vec![set(&[Factor::WebAuthn])];
    let mut world = World::new(user_paths(vec![Path { first: Factor::Password, then }]));
    assert!(world.credentials.remove_webauthn(b"id"));
    let mut login = world.begin(true, origin(false));
    for _ in 0..2 {
        let proof = world.good(&login, Factor::Password, 0);
        let step = world.step(&mut login, proof);
        assert!(matches!(step, Step::Refused { because: Because::CannotComplete, over: false }), "{step:?}");
    }
}

#[test]
fn a_code_of_a_seed_that_was_replaced_is_not_taken() {
    let then = vec![set(&[Factor::Totp])];
    let mut world = World::new(user_paths(vec![Path { first: Factor::Password, then }]));
    let mut login = world.begin(true, origin(false));
    let proof = world.good(&login, Factor::Password, 0);
    assert!(matches!(world.step(&mut login, proof), Step::Need(_)));
    let incoming = login.incoming(Factor::Totp);
    let admitted = login.admit(&world.policy, &mut world.attempts, None, &incoming, world.now).unwrap();
    let subject = Subject { record: &world.record, credentials: &world.credentials, devices: &[] };
    let (proof, tools) = (world.good(&login, Factor::Totp, 0), tools(&world.policy));
    let examined = login.examine(admitted, proof, Some(subject), &tools, world.now, &mut fill_random);
    world.credentials.set_totp(Some(enrolled(&mut fill_random)));
    let desk = Desk { record: &world.record, credentials: &mut world.credentials, devices: &[] };
    let step = login.conclude(&world.policy, examined, Some(desk), &mut world.attempts, world.now);
    assert_eq!(because(&step), &Because::Changed);
}

#[test]
fn an_account_that_is_held_or_changed_meanwhile_does_not_get_in() {
    let admin = Someone::new(1, &[Role::Administrator]);
    let then = vec![set(&[Factor::Totp])];
    let mut world = World::new(user_paths(vec![Path { first: Factor::Password, then }]));
    let mut login = world.begin(true, origin(false));
    let proof = world.good(&login, Factor::Password, 0);
    assert!(matches!(world.step(&mut login, proof), Step::Need(_)));
    let before = world.record.clone();
    // Held and let in again between two factors: the sign-in was begun by somebody who was then not trusted.
    let held = before.suspend(&admin.by(), MANY, world.now.wall).unwrap().record;
    world.record = held.clone();
    let proof = world.good(&login, Factor::Totp, 0);
    assert_eq!(because(&world.step(&mut login, proof)), &Because::NotActive("suspended"));
    world.record = held.resume(&admin.by()).unwrap().record;
    world.now = at(world.now.wall.0 + 30_000);
    let proof = world.good(&login, Factor::Totp, 0);
    assert_eq!(because(&world.step(&mut login, proof)), &Because::Changed);
    // A new password while the old one is looked at.
    world.record = before;
    let mut login = world.begin(true, origin(false));
    let admission = login
        .admit(&world.policy, &mut world.attempts, None, &login.incoming(Factor::Password), world.now)
        .unwrap();
    let subject = Subject { record: &world.record, credentials: &world.credentials, devices: &[] };
    let proof = world.good(&login, Factor::Password, 0);
    let tools = tools(&world.policy);
    let examined = login.examine(admission, proof, Some(subject), &tools, world.now, &mut fill_random);
    world.credentials.set_password(None);
    let desk = Desk { record: &world.record, credentials: &mut world.credentials, devices: &[] };
    let step = login.conclude(&world.policy, examined, Some(desk), &mut world.attempts, world.now);
    assert_eq!(because(&step), &Because::Changed);
}

#[test]
fn nothing_secret_is_printed() {
    let world = World::new(cheap());
    let login = world.begin(true, origin(false));
    for factor in [Factor::Password, Factor::Totp, Factor::BackupCode] {
        let printed = format!("{:?}", world.good(&login, factor, 0));
        assert!(printed.contains("redacted"), "{printed}");
    }
}

#[path = "login_model_tests.rs"]
mod model;
