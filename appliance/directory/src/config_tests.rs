use super::*;

pub(crate) const SAMPLE: &str = r#"
    name = "head office"
    issuer = "000102030405060708090a0b0c0d0e0f"
    kind = "ldap"
    servers = ["ldaps://one.example", "ldap://192.0.2.7:1389/"]
    bind_dn = "cn=reader,dc=example"
    people = ["ou=people,dc=example"]
    roles = [{ group = "cn=staff,ou=groups,dc=example", role = "user" }]
"#;

fn read(text: &str) -> Result<Config, String> {
    let document: Document = toml::from_str(text).map_err(|error| error.to_string())?;
    Config::new(&document).map_err(|error| error.to_string())
}

fn with(change: &str) -> Result<Config, String> {
    let name = change.split('=').next().unwrap().trim();
    let rest: String =
        SAMPLE.lines().filter(|line| !line.trim().starts_with(name)).collect::<Vec<_>>().join("\n");
    read(&format!("{change}\n{rest}"))
}

#[test]
fn what_is_left_out_has_a_value_for_the_kind() {
    let ldap = read(SAMPLE).unwrap();
    assert_eq!((ldap.attributes.id.as_str(), ldap.attributes.id_syntax), ("entryUUID", IdSyntax::Uuid));
    assert_eq!(ldap.groups, ldap.people);
    assert_eq!(
        ldap.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["ldaps://one.example:636", "ldap://192.0.2.7:1389"]
    );
    assert_eq!(ldap.interval, Duration::from_secs(60));
    assert_eq!(ldap.safety, Safety { people: 10, percent: 20 });
    let active = with("kind = \"active-directory\"").unwrap();
    assert_eq!(
        (active.attributes.id.as_str(), active.attributes.id_syntax),
        ("objectGUID", IdSyntax::Octets)
    );
    assert_eq!(active.attributes.login, "sAMAccountName");
    assert_ne!(ldap.settings(), active.settings());
    assert_eq!(ldap.settings(), read(SAMPLE).unwrap().settings());
}

#[test]
fn servers_are_never_spoken_to_in_plain_text() {
    for (url, security) in [
        ("ldaps://a", Security::Ldaps),
        ("ldap://a", Security::StartTls),
        ("ldaps://[2001:db8::1]:7", Security::Ldaps),
    ] {
        assert_eq!(with(&format!("servers = [\"{url}\"]")).unwrap().servers[0].security, security);
    }
    for url in [
        "http://a",
        "ldapi:///x",
        "ldap:a",
        "a",
        "ldaps://",
        "ldaps://a:0",
        "ldaps://a:x",
        "ldaps://a/dc=x",
        "ldaps://u@a",
        "ldaps://a:1:2",
        "LDAP://a",
        "ldaps://[::1",
        "ldaps://a b",
    ] {
        assert!(with(&format!("servers = [\"{url}\"]")).is_err(), "{url}");
    }
    assert!(with("servers = []").is_err());
}

#[test]
fn a_directory_maps_to_no_privileged_role() {
    for role in Role::ALL {
        let rule = format!("roles = [{{ group = \"cn=a\", role = \"{}\" }}]", role.name());
        let expected = matches!(role, Role::User | Role::Operator);
        assert_eq!(with(&rule).is_ok(), expected, "{role}");
        assert!(!(expected && role.is_privileged()));
    }
    assert!(with("roles = [{ group = \"cn=a\", role = \"root\" }]").is_err());
}

#[test]
fn what_cannot_be_is_refused() {
    for bad in [
        "issuer = \"00\"",
        "issuer = \"00000000000000000000000000000000\"",
        "name = \"\"",
        "name = \"a\\nb\"",
        "people = []",
        "people = [\"dc=example\", \"ou=a,DC=example\"]",
        "people = [\"dc=example\", \"dc=Example\"]",
        "people = [\"nonsense\"]",
        "bind_dn = \"\"",
        "person_filter = \"(uid=*\"",
        "person_filter = \"uid=*\"",
        "person_filter = \"(a=b)(c=d)\"",
        "login_attribute = \"uid=*)(a\"",
        "id_attribute = \"\"",
        "page_size = 0",
        "page_size = 100000",
        "interval_s = 1",
        "safe_percent = 100",
        "binds_max = 0",
        "surprise = 1",
        "decoy_dn = \"\"",
    ] {
        assert!(with(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_share_or_a_number() {
    let safety = Safety::default();
    assert_eq!(
        (safety.allowed(0), safety.allowed(20), safety.allowed(51), safety.allowed(1000)),
        (10, 10, 10, 200)
    );
    assert_eq!(Safety { people: 0, percent: 0 }.allowed(1000), 0);
}
