use super::*;
use crate::config::Document;

fn config(kind: &str, more: &str) -> Config {
    let document: Document = toml::from_str(&format!(
        "name = \"x\"\nissuer = \"000102030405060708090a0b0c0d0e0f\"\nkind = \"{kind}\"\nservers = [\"ldaps://a\"]\n\
         bind_dn = \"cn=r\"\npeople = [\"dc=x\"]\n{more}"
    ))
    .unwrap();
    Config::new(&document).unwrap()
}

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const UUID: &[u8] = b"00112233-4455-6677-8899-AABBCCDDEEFF";

fn ldap(more: &[(&str, &[&[u8]])]) -> Option<Person> {
    let mut attributes: Vec<(&str, &[&[u8]])> = vec![("ENTRYUUID", &[UUID]), ("cn", &[b"Ann", b"Annie"])];
    attributes.extend_from_slice(more);
    read(&Entry::sample("uid=ann,dc=x", &attributes), &config("ldap", ""), NOW)
}

fn active(more: &[(&str, &[&[u8]])]) -> Option<Person> {
    let mut attributes: Vec<(&str, &[&[u8]])> = vec![("objectGUID", &[&[0xff; 16]])];
    attributes.extend_from_slice(more);
    read(&Entry::sample("CN=Ann,DC=x", &attributes), &config("active-directory", ""), NOW)
}

#[test]
fn the_id_is_the_key() {
    let ann = ldap(&[("uid", &[b"ann"])]).unwrap();
    assert_eq!(ann.id.to_string(), "00112233445566778899aabbccddeeff");
    assert_eq!((ann.login(), ann.name(), ann.mail()), (Some("ann"), "Ann", ""));
    assert_eq!(id_filter(&ann.id, &config("ldap", "")), "(entryUUID=00112233-4455-6677-8899-aabbccddeeff)");
    let guid = active(&[]).unwrap().id;
    assert_eq!(
        id_filter(&guid, &config("active-directory", "")),
        format!("(objectGUID={})", "\\ff".repeat(16))
    );
    assert!(ldap3::parse_filter(id_filter(&guid, &config("active-directory", ""))).is_ok());

    let without = |values: &[&[u8]]| {
        read(&Entry::sample("uid=ann,dc=x", &[("entryUUID", values)]), &config("ldap", ""), NOW)
    };
    for bad in [&[][..], &[UUID, UUID], &[b"ann"], &[b"00112233-4455-6677-8899-aabbccddeefg"], &[&UUID[1..]]]
    {
        assert!(without(bad).is_none(), "{bad:?}");
    }
    let nameless = Entry::sample("", &[("entryUUID", &[UUID])]);
    assert!(read(&nameless, &config("ldap", ""), NOW).is_none());
}

#[test]
fn several_logins_are_none() {
    assert_eq!(ldap(&[("uid", &[b"ann", b"bob"])]).unwrap().login(), None);
    assert_eq!(ldap(&[]).unwrap().login(), None);
    assert_eq!(ldap(&[("uid", &[&[b'a'; 300]])]).unwrap().login(), None);
    assert_eq!(ldap(&[("uid", &[b"a\nb"])]).unwrap().login(), None);
    assert_eq!(ldap(&[("mail", &[&[b'a'; 300]])]).unwrap().mail(), "");
}

#[test]
fn who_is_disabled() {
    let enabled = |person: Option<Person>| person.unwrap().is_enabled(NOW);
    assert!(enabled(ldap(&[])));
    assert!(!enabled(ldap(&[("pwdAccountLockedTime", &[b"000001010000Z"])])));
    assert!(
        enabled(ldap(&[("pwdAccountLockedTime", &[b"20261128000000Z"])])),
        "wrong passwords, for a while"
    );
    assert!(!enabled(ldap(&[("nsAccountLock", &[b"TRUE"])])));
    assert!(enabled(ldap(&[("nsAccountLock", &[b"false"])])));
    assert!(enabled(ldap(&[("shadowExpire", &[b"-1"])])));
    let today = (NOW.0 / 86_400_000).to_string();
    let tomorrow = (NOW.0 / 86_400_000 + 1).to_string();
    assert!(!enabled(ldap(&[("shadowExpire", &[today.as_bytes()])])));
    assert!(enabled(ldap(&[("shadowExpire", &[tomorrow.as_bytes()])])));
    assert!(!enabled(ldap(&[("shadowExpire", &[b"soon"])])), "what cannot be read lets nobody in");

    // NOW is 2026-11-18T11:06:40Z.
    for name in ["krbPrincipalExpiration", "pwdEndTime"] {
        assert!(!enabled(ldap(&[(name, &[b"20261118110640Z"])])), "{name}");
        assert!(enabled(ldap(&[(name, &[b"20261118110641Z"])])), "{name}");
        assert!(!enabled(ldap(&[(name, &[b"soon"])])), "{name}");
    }
    assert!(enabled(ldap(&[("krbPasswordExpiration", &[b"20200101000000Z"])])), "their sessions go on");

    let control = |more: &[(&str, &[&[u8]])]| {
        let mut all: Vec<(&str, &[&[u8]])> = vec![("userAccountControl", &[b"512"])];
        all.extend_from_slice(more);
        active(&all)
    };
    assert!(!enabled(active(&[])), "an account that may not be read");
    assert!(!enabled(active(&[("userAccountControl", &[b"514"])])));
    assert!(enabled(control(&[])));
    assert!(enabled(control(&[("accountExpires", &[b"0"])])));
    assert!(enabled(control(&[("accountExpires", &[b"9223372036854775807"])])));
    let filetime = |ms: u64| ((ms + FILETIME_EPOCH_MS) * 10_000).to_string();
    assert!(!enabled(control(&[("accountExpires", &[filetime(NOW.0).as_bytes()])])));
    assert!(enabled(control(&[("accountExpires", &[filetime(NOW.0 + 1).as_bytes()])])));
    assert!(!enabled(control(&[("accountExpires", &[b"-5"])])));
}

#[test]
fn a_password_that_is_over() {
    let of =
        |kind, name: &str, value: &[u8]| of_password(&Entry::sample("uid=a", &[(name, &[value])]), kind, NOW);
    for name in ["krbPasswordExpiration", "passwordExpirationTime"] {
        let expired = Some(Refusal::PasswordExpired);
        for over in [&b"20261118110640Z"[..], b"19700101000000Z", b"soon"] {
            assert_eq!(of(Kind::Ldap, name, over), expired, "{name}");
        }
        assert_eq!(of(Kind::Ldap, name, b"20261118110641Z"), None, "{name}");
        assert_eq!(of(Kind::ActiveDirectory, name, b"19700101000000Z"), None, "it refuses by itself");
    }
    assert_eq!(of(Kind::Ldap, "pwdReset", b"TRUE"), Some(Refusal::MustChangePassword));
    assert_eq!(of(Kind::Ldap, "pwdReset", b"FALSE"), None);
    assert_eq!(of(Kind::Ldap, "cn", b"Ann"), None);
}

#[test]
fn versions_of_an_entry() {
    let of = |name: &str, value: &[u8], more: &str| {
        version(&Entry::sample("dc=x", &[(name, &[value])]), &config("ldap", more), NOW)
    };
    let (one, other) =
        (of("entryCSN", b"20261128000000.1Z#1", ""), of("entryCSN", b"20261128000000.1Z#2", ""));
    assert!(one != 0 && other != 0 && one != other);
    assert_eq!(of("nothing", b"", ""), 0);
    let timestamps = "version_attribute = \"modifyTimestamp\"";
    // 1795000000 is 2026-11-18T11:06:40Z.
    assert_eq!(of("modifyTimestamp", b"20261118110640Z", timestamps), 0, "it may change within this second");
    assert_eq!(of("modifyTimestamp", b"20261118105641Z", timestamps), 0);
    assert_ne!(of("modifyTimestamp", b"20261118105640Z", timestamps), 0);
    assert_eq!(of("modifyTimestamp", b"yesterday", timestamps), 0);
}

#[test]
fn times_are_read() {
    for (text, ms) in [
        ("19700101000000Z", 0),
        ("20000229235959.25Z", 951_868_799_000),
        ("20261118110640Z", 1_795_000_000_000),
    ] {
        assert_eq!(generalized_time(text.as_bytes()), Some(Timestamp(ms)), "{text}");
    }
    for bad in
        ["", "Z", "2026Z", "20261318110640Z", "20261118110640", "20261118110640+0100", "19691231235959Z"]
    {
        assert_eq!(generalized_time(bad.as_bytes()), None, "{bad}");
    }
}
