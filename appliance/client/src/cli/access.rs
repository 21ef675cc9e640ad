//! Commands about access: `zixt account` and `zixt people`.

use super::args::{AccountCommand, PeopleCommand};
use super::escape::escape_line;
use super::exit::{Exit, Failure};
use super::secret;
use super::session::Session;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use qrcodegen::{QrCode, QrCodeEcc};
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::sync::Arc;
use zeroize::Zeroizing;
use zixt_api::{
    AccountInfo, Bytes64, ClockInfo, DirectoryInfo, FactorKind, Hex, LinkInfo, NewServiceToken, RoleName,
    ServiceTokenInfo, SessionInfo, SignInProof,
};
use zixt_client::connection::Factors;
use zixt_client::{Client, Deed};
use zixt_crypto::fill_random;
use zixt_identity::{Challenge, Psk, TotpCode};
use zixt_types::{AccountId, Hash, Member, RecoveryId, SessionId, Timestamp};

/// Asks the person at the terminal for what a sign-in wants more.
pub struct Terminal;

impl Terminal {
    /// Says that whoever sits at the terminal gives further factors.
    pub fn of(client: &Client) {
        if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
            client.ask_for_factors(Arc::new(Self));
        }
    }
}

impl Factors for Terminal {
    fn give<'a>(
        &'a self,
        factors: &'a [FactorKind],
        challenge: &'a Challenge,
        member: Member,
    ) -> BoxFuture<'a, Option<SignInProof>> {
        async move {
            let names: Vec<_> = factors
                .iter()
                .filter_map(|factor| match factor {
                    FactorKind::Totp => Some("the code of your authenticator app"),
                    FactorKind::BackupCode => Some("a backup code"),
                    FactorKind::Psk => Some("your pre-shared key"),
                    _ => None,
                })
                .collect();
            if names.is_empty() {
                return None;
            }
            let prompt = format!("The sign-in asks for {}: ", names.join(" or "));
            let typed = tokio::task::spawn_blocking(move || rpassword::prompt_password(prompt)).await;
            let typed = Zeroizing::new(typed.ok()?.ok()?);
            proof_of(typed.trim(), factors, challenge, member)
        }
        .boxed()
    }
}

/// What somebody typed, by its form: one of the kinds that are asked for.
fn proof_of(
    typed: &str,
    factors: &[FactorKind],
    challenge: &Challenge,
    member: Member,
) -> Option<SignInProof> {
    let asked = |kind| factors.contains(&kind);
    if asked(FactorKind::Totp) && TotpCode::parse(typed).is_some() {
        return Some(SignInProof::Totp { code: Zeroizing::new(typed.to_owned()).into() });
    }
    if asked(FactorKind::Psk)
        && let Some(psk) = Psk::from_text(typed)
    {
        let answer = psk.answer(challenge, member.account, &mut fill_random).ok()?;
        return Some(SignInProof::Psk { nonce: Bytes64(answer.nonce.to_vec()), mac: Hex(answer.mac) });
    }
    if asked(FactorKind::BackupCode) {
        return Some(SignInProof::BackupCode { code: Zeroizing::new(typed.to_owned()).into() });
    }
    None
}

/// `zixt account`
pub async fn account(session: &Session, command: AccountCommand) -> Result<(), Failure> {
    let client = &session.client;
    match command {
        AccountCommand::Show => show(session).await,
        AccountCommand::Sessions => {
            let list = session.wait(client.sessions()).await?;
            let document = json!({ "sessions": list.sessions.iter().map(session_json).collect::<Vec<_>>() });
            session.output.result(&document, || list.sessions.iter().map(session_line).collect())
        }
        AccountCommand::EndSessions { session: one } => {
            let one = one.as_deref().map(session_id).transpose()?;
            let ended = session.wait(client.end_sessions(one)).await?;
            session.output.result(&json!({ "ended": ended }), || format!("{ended} session(s) ended."))
        }
        AccountCommand::Password { remove: true, .. } => {
            session.wait(client.set_password(None)).await?;
            done(session, "The password is removed. All other sessions have ended.")
        }
        AccountCommand::Password { remove: false, new_password_file } => {
            let password = secret::replacement(new_password_file.as_deref(), true)?;
            let password = String::from_utf8(password.to_vec())
                .map(Zeroizing::new)
                .map_err(|_| Failure::usage("the password is not UTF-8", "Choose another."))?;
            session.wait(client.set_password(Some(password))).await?;
            done(session, "The password is set. All other sessions have ended.")
        }
        AccountCommand::Totp { remove: true } => {
            session.wait(client.remove_totp()).await?;
            done(session, "The authenticator app is removed. All other sessions have ended.")
        }
        AccountCommand::Totp { remove: false } => totp(session).await,
        AccountCommand::BackupCodes => {
            let codes = session.wait(client.make_backup_codes()).await?;
            let texts: Vec<&str> = codes.iter().map(|code| code.expose()).collect();
            session.output.result(&json!({ "codes": texts }), || {
                format!(
                    "Each is good once. They are shown once; those of before are void. Keep them on paper.\n\n{}",
                    texts.join("\n")
                )
            })
        }
        AccountCommand::Link { directory, login, directory_password_file } => {
            let password = secret::of_directory(directory_password_file.as_deref())?;
            session.wait(client.link(directory, login, password)).await?;
            done(session, "The account is linked. All other sessions have ended.")
        }
        AccountCommand::Unlink { issuer } => {
            session.wait(client.unlink(&issuer)).await?;
            done(session, "The link is gone. All other sessions have ended.")
        }
        AccountCommand::Psk { remove: true } => {
            session.wait(client.remove_psk()).await?;
            done(session, "The pre-shared key is removed. All other sessions have ended.")
        }
        AccountCommand::Psk { remove: false } => {
            let psk = session.wait(client.make_psk()).await?;
            let text = psk.to_text();
            session.output.result(&json!({ "psk": text.as_str() }), || {
                format!(
                    "The appliance has its verifier only. It is shown once: keep it apart from this device.\n\n{}",
                    text.as_str()
                )
            })
        }
    }
}

async fn show(session: &Session) -> Result<(), Failure> {
    let me = session.wait(session.client.me()).await?;
    let roles: Vec<_> = me.roles.iter().map(|role| role.name()).collect();
    let factors: Vec<_> = me.factors.iter().map(|factor| factor.name()).collect();
    let document = json!({
        "account": me.account.to_string(),
        "name": me.name,
        "roles": roles,
        "session": me.session.to_string(),
        "factors": factors,
        "backup_codes_left": me.backup_codes_left,
        "failures": me.failures,
        "links": me.links,
    });
    session.output.result(&document, || {
        let mut text = format!(
            "{}\n  account       {}\n  roles         {}\n  signs in with {}\n  backup codes  {} left",
            escape_line(me.name.as_deref().unwrap_or("(no name)")),
            me.account,
            roles.join(", "),
            factors.join(", "),
            me.backup_codes_left,
        );
        for link in &me.links {
            text.push_str(&format!("\n  linked to     {}", link_text(link)));
        }
        if me.failures > 0 {
            text.push_str(&format!(
                "\n  WARNING       {} failed attempts from unknown sources since the last good one",
                me.failures
            ));
        }
        text
    })
}

async fn totp(session: &Session) -> Result<(), Failure> {
    let uri = session.wait(session.client.begin_totp()).await?;
    if session.output.json {
        // A program shows the code by itself: `{"uri": …}` now, and the code comes on the standard input.
        super::output::line(&super::escape::json(&json!({ "uri": uri.expose() }).to_string()))?;
    } else {
        let code = QrCode::encode_text(uri.expose(), QrCodeEcc::Medium)
            .map_err(|error| Failure::new(Exit::Internal, error.to_string(), ""))?;
        eprintln!("{}", picture(&code));
        eprintln!("Scan this with your authenticator app, or type its secret:\n\n{}\n", uri.expose());
    }
    let typed = tokio::task::spawn_blocking(read_code).await;
    let typed = typed.map_err(|error| Failure::new(Exit::Internal, error.to_string(), ""))??;
    session.wait(session.client.confirm_totp(typed)).await?;
    done(session, "The authenticator app is enrolled. All other sessions have ended.")
}

/// A code from the terminal, or from the standard input if that is none.
fn read_code() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    if std::io::stdin().is_terminal() {
        eprint!("The code that it shows now: ");
    }
    std::io::stdin().read_line(&mut line).map_err(|error| {
        Failure::usage(format!("the code cannot be read: {error}"), "Type it in a terminal.")
    })?;
    Ok(Zeroizing::new(line.trim().to_owned()))
}

/// Two modules above each other in one letter, dark on light.
fn picture(code: &QrCode) -> String {
    let size = code.size();
    let mut text = String::new();
    for y in (-2..size + 2).step_by(2) {
        for x in -2..size + 2 {
            text.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => ' ',
                (true, false) => '▄',
                (false, true) => '▀',
                (false, false) => '█',
            });
        }
        text.push('\n');
    }
    text
}

/// `zixt people`
pub async fn people(session: &Session, command: PeopleCommand) -> Result<(), Failure> {
    let client = &session.client;
    match command {
        PeopleCommand::List => {
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let page = session.wait(client.people(after)).await?;
                all.extend(page.accounts);
                match page.next {
                    Some(next) => after = Some(next.0),
                    None => break,
                }
            }
            let document = json!({ "people": all.iter().map(info_json).collect::<Vec<_>>() });
            session.output.result(&document, || all.iter().map(info_line).collect())
        }
        PeopleCommand::Show { person } => {
            let account = find(session, &person).await?;
            say(session, &session.wait(client.person(account)).await?)
        }
        PeopleCommand::Suspend { person } => deal(session, &person, Deed::Suspend).await,
        PeopleCommand::Resume { person } => deal(session, &person, Deed::Resume).await,
        PeopleCommand::Offboard { person } => deal(session, &person, Deed::Offboard).await,
        PeopleCommand::LiftLockout { person } => deal(session, &person, Deed::LiftLockout).await,
        PeopleCommand::Roles { person, roles } => deal(session, &person, Deed::Roles(roles)).await,
        PeopleCommand::EndSessions { person } => {
            let account = find(session, &person).await?;
            let ended = session.wait(client.end_sessions_of(account)).await?;
            session.output.result(&json!({ "ended": ended }), || format!("{ended} session(s) ended."))
        }
        PeopleCommand::Unlink { person, issuer } => {
            let account = find(session, &person).await?;
            session.wait(client.unlink_somebody(account, &issuer)).await?;
            done(session, "The link is gone. All sessions of the account have ended.")
        }
        PeopleCommand::Clock => clock(session, session.wait(client.clock()).await?),
        PeopleCommand::SetClock { time, far } => {
            clock(session, session.wait(client.set_clock(Timestamp(time), far)).await?)
        }
        PeopleCommand::MakeToken { person, name, scopes, days, networks } => {
            let account = find(session, &person).await?;
            let new = NewServiceToken { name, scopes, days, networks };
            let made = session.wait(client.make_token(account, &new)).await?;
            let document = json!({
                "token": made.token.expose(),
                "id": made.id.to_string(),
                "expires_at_ms": made.expires_at,
            });
            session.output.result(&document, || {
                format!(
                    "The token {} is good until {}. It is shown once.\n\n{}",
                    made.id,
                    Timestamp(made.expires_at).utc(),
                    made.token.expose()
                )
            })
        }
        PeopleCommand::Tokens { person } => {
            let account = find(session, &person).await?;
            let list = session.wait(client.tokens(account)).await?;
            let document = serde_json::to_value(&list)
                .map_err(|error| Failure::new(Exit::Internal, error.to_string(), ""))?;
            session.output.result(&document, || list.tokens.iter().map(token_line).collect())
        }
        PeopleCommand::EndToken { person, token } => {
            let account = find(session, &person).await?;
            let token = SessionId::from_hex(&token).ok_or_else(|| {
                Failure::usage("a token's id has 32 hexadecimal digits", "`zixt people tokens` lists them.")
            })?;
            session.wait(client.end_token(account, token)).await?;
            done(session, "The token is good no more.")
        }
        PeopleCommand::Directories => {
            let list = session.wait(client.directories()).await?;
            let document = serde_json::to_value(&list)
                .map_err(|error| Failure::new(Exit::Internal, error.to_string(), ""))?;
            session.output.result(&document, || list.directories.iter().map(directory_lines).collect())
        }
        PeopleCommand::ReadDirectory { issuer } => {
            session.wait(client.read_directory(&issuer)).await?;
            done(session, "The directory is being read. `zixt people directories` shows how it went.")
        }
        PeopleCommand::Release { issuer, digest } => {
            let digest = Hash::from_hex(&digest).ok_or_else(|| {
                Failure::usage("a digest has 96 hexadecimal digits", "`zixt people directories` shows it.")
            })?;
            session.wait(client.release_directory(&issuer, digest)).await?;
            done(session, "Released: it is done in the next round, if it is still the same.")
        }
        PeopleCommand::Recover { person } => {
            let account = find(session, &person).await?;
            let asked = session.wait(client.request_recovery(account)).await?;
            session.output.result(&json!({ "recovery": asked.recovery.to_string() }), || {
                format!(
                    "A security officer has to approve it within 72 hours: zixt people approve {}",
                    asked.recovery
                )
            })
        }
        PeopleCommand::Recoveries => {
            let list = session.wait(client.recoveries()).await?;
            let each = |one: &zixt_api::RecoveryInfo| {
                json!({
                    "recovery": one.recovery.to_string(),
                    "account": one.account.to_string(),
                    "requested_by": one.requested_by.to_string(),
                    "requested_at_ms": one.requested_at,
                })
            };
            let document = json!({ "recoveries": list.recoveries.iter().map(each).collect::<Vec<_>>() });
            session.output.result(&document, || {
                list.recoveries
                    .iter()
                    .map(|one| {
                        format!(
                            "{}  account {}  asked by {} at {}\n",
                            one.recovery,
                            one.account,
                            one.requested_by,
                            Timestamp(one.requested_at).utc()
                        )
                    })
                    .collect()
            })
        }
        PeopleCommand::Approve { recovery } => {
            let id = RecoveryId::from_hex(&recovery).ok_or_else(|| {
                Failure::usage("a recovery has 32 hexadecimal digits", "`zixt people recoveries` lists them.")
            })?;
            let given = session.wait(client.approve_recovery(id)).await?;
            let document = json!({ "code": given.code.expose(), "expires_at_ms": given.expires_at });
            session.output.result(&document, || {
                format!(
                    "Give this code to the person, by hand. It is shown once, and good until {}.\n\n{}",
                    Timestamp(given.expires_at).utc(),
                    given.code.expose()
                )
            })
        }
    }
}

async fn deal(session: &Session, person: &str, deed: Deed) -> Result<(), Failure> {
    let account = find(session, person).await?;
    say(session, &session.wait(session.client.deal(account, &deed)).await?)
}

fn say(session: &Session, info: &AccountInfo) -> Result<(), Failure> {
    session.output.result(&info_json(info), || info_line(info))
}

/// An account by its id or by its name.
async fn find(session: &Session, person: &str) -> Result<AccountId, Failure> {
    if let Some(account) = AccountId::from_hex(person) {
        return Ok(account);
    }
    let (wanted, mut after) = (person.to_lowercase(), None);
    loop {
        let page = session.wait(session.client.people(after)).await?;
        let found = page
            .accounts
            .iter()
            .find(|info| info.name.as_ref().is_some_and(|name| name.to_lowercase() == wanted));
        if let Some(info) = found {
            return Ok(info.account.0);
        }
        match page.next {
            Some(next) => after = Some(next.0),
            None => {
                return Err(Failure::usage(
                    format!("nobody here is called '{person}'"),
                    "`zixt people list` shows them.",
                ));
            }
        }
    }
}

/// An issuer, as it is written.
pub fn issuer(text: &str) -> Result<String, String> {
    if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("an issuer has 32 hexadecimal digits".to_owned())
    }
}

fn directory_lines(info: &DirectoryInfo) -> String {
    let read = match info.last_success {
        Some(at) => format!("{} people, read {}", info.people, Timestamp(at).utc()),
        None => "not read yet".to_owned(),
    };
    let mut text = format!("{}  {}  {read}\n", info.issuer, escape_line(&info.name));
    if let Some(error) = &info.last_error {
        text.push_str(&format!("  FAILING since {} round(s): {}\n", info.failures, escape_line(error)));
    }
    for fault in &info.faults {
        text.push_str(&format!("  wrong there: {}\n", escape_line(fault)));
    }
    if let Some(held) = &info.held {
        text.push_str("  HELD BACK: it would take too much at once, and nothing of what it says is done.\n");
        for reason in &held.reasons {
            text.push_str(&format!("    {}\n", escape_line(reason)));
        }
        let logins: Vec<_> = held.logins.iter().map(|login| escape_line(login)).collect();
        text.push_str(&format!("    {} would lose their access: {}\n", held.suspends, logins.join(", ")));
        text.push_str(&format!(
            "    If that is right: zixt people release {} {}\n",
            info.issuer, held.digest
        ));
    }
    text
}

fn clock(session: &Session, info: ClockInfo) -> Result<(), Failure> {
    let document =
        serde_json::to_value(info).map_err(|error| Failure::new(Exit::Internal, error.to_string(), ""))?;
    session.output.result(&document, || {
        format!(
            "wall clock   {}\nmachine's    {}  ({} ms from it)\nledger time  {}  (the wall clock is {} ms ahead)\n",
            Timestamp(info.wall).utc(),
            Timestamp(info.system).utc(),
            info.offset_ms,
            Timestamp(info.ledger).utc(),
            info.ahead_of_ledger_ms
        )
    })
}

/// A time in UTC (RFC 3339), to the second, in milliseconds since 1970.
pub fn utc(text: &str) -> Result<u64, String> {
    let wrong = || "a time is written like this: 2026-11-28T06:30:00Z".to_owned();
    let shape = text.len() == 20
        && text.bytes().zip("dddd-dd-ddTdd:dd:ddZ".bytes()).all(|(found, wanted)| match wanted {
            b'd' => found.is_ascii_digit(),
            other => found == other,
        });
    if !shape {
        return Err(wrong());
    }
    let number = |at: usize, digits: usize| text[at..at + digits].parse::<u64>().map_err(|_| wrong());
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
        return Err(wrong());
    }
    // Days from a civil date (Howard Hinnant, "chrono-compatible low-level date algorithms"), the inverse of what
    // `Timestamp::utc` does.
    let (from_march, of_year) = if month > 2 { (month - 3, year) } else { (month + 9, year - 1) };
    let in_year = (153 * from_march + 2) / 5 + day - 1;
    let days = of_year * 365 + of_year / 4 - of_year / 100 + of_year / 400 + in_year - 719_468;
    let ms = (days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000;
    // A day that its month does not have comes out as another one.
    if Timestamp(ms).utc()[..19] == text[..19] { Ok(ms) } else { Err(wrong()) }
}

fn token_line(info: &ServiceTokenInfo) -> String {
    let networks = if info.networks.is_empty() { "everywhere".to_owned() } else { info.networks.join(", ") };
    format!(
        "{}  {}  [{}]  from {networks}  until {}\n",
        info.id,
        escape_line(&info.name),
        info.scopes.join(" "),
        Timestamp(info.expires_at).utc()
    )
}

/// Who else vouches for somebody.
fn link_text(link: &LinkInfo) -> String {
    format!(
        "{} at {} ({})",
        escape_line(link.login.as_deref().unwrap_or("somebody")),
        escape_line(link.name.as_deref().unwrap_or("a directory that is not configured")),
        link.issuer
    )
}

fn session_id(text: &str) -> Result<SessionId, Failure> {
    SessionId::from_hex(text).ok_or_else(|| {
        Failure::usage("a session has 32 hexadecimal digits", "`zixt account sessions` lists them.")
    })
}

fn done(session: &Session, text: &str) -> Result<(), Failure> {
    session.output.result(&json!({ "done": true }), || text.to_owned())
}

fn session_json(info: &SessionInfo) -> Value {
    json!({
        "session": info.session.to_string(),
        "current": info.current,
        "factors": info.factors.iter().map(|factor| factor.name()).collect::<Vec<_>>(),
        "network": info.network,
        "signed_in_at_ms": info.signed_in_at,
        "used_at_ms": info.used_at,
    })
}

fn session_line(info: &SessionInfo) -> String {
    let factors: Vec<_> = info.factors.iter().map(|factor| factor.name()).collect();
    format!(
        "{}  {}  from {}  since {}  used {}{}\n",
        info.session,
        factors.join("+"),
        info.network.as_deref().unwrap_or("this machine"),
        Timestamp(info.signed_in_at).utc(),
        Timestamp(info.used_at).utc(),
        if info.current { "  (this one)" } else { "" },
    )
}

fn info_json(info: &AccountInfo) -> Value {
    json!({
        "account": info.account.to_string(),
        "name": info.name,
        "status": status(info),
        "roles": info.roles.iter().map(|role| role.name()).collect::<Vec<_>>(),
        "devices": info.devices.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "sessions": info.sessions,
        "failures": info.failures,
        "links": info.links,
    })
}

fn info_line(info: &AccountInfo) -> String {
    let roles: Vec<_> = info.roles.iter().map(|role| role.name()).collect();
    format!(
        "{}  {:<10}  {}  [{}]  {} device(s), {} session(s), {} failure(s)\n",
        info.account,
        status(info),
        escape_line(info.name.as_deref().unwrap_or("(no name)")),
        roles.join(" "),
        info.devices.len(),
        info.sessions,
        info.failures,
    )
}

const fn status(info: &AccountInfo) -> &'static str {
    match info.status {
        zixt_api::AccountStatus::Invited => "invited",
        zixt_api::AccountStatus::Active => "active",
        zixt_api::AccountStatus::Suspended => "suspended",
        zixt_api::AccountStatus::Offboarded => "offboarded",
    }
}

/// A role, by its name.
pub fn role(text: &str) -> Result<RoleName, String> {
    RoleName::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| {
        let known: Vec<_> = RoleName::ALL.iter().map(|role| role.name()).collect();
        format!("there are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::utc;
    use zixt_types::Timestamp;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for ms in [0, 951_782_400_000, 951_868_799_000, 1_795_847_400_000, 4_102_444_799_000] {
            let text = Timestamp(ms).utc();
            assert_eq!(utc(&format!("{}Z", &text[..19])), Ok(ms));
        }
        for wrong in [
            "2026-11-28",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "1969-12-31T23:59:59Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00+01",
            "２026-01-01T00:00Z",
        ] {
            assert!(utc(wrong).is_err(), "{wrong}");
        }
    }
}
