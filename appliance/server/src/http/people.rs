//! The endpoints for sign-in, for one's own access, and for other people's accounts.

use super::Failure;
use super::request::{Anybody, AtDoor, By, OwnPage, PathParts, SignedIn, id, json, query};
use crate::access::{Deed, parse_issuer, passkey_id};
use crate::app::App;
use crate::room::ENROL_BYTES_MAX;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use http::Uri;
use serde::Deserialize;
use std::sync::Arc;
use zixt_api::{
    Acceptance, AccountInfo, AccountPage, BackupCodes, ClockInfo, DirectoryList, DirectoryRelease, Done,
    EventPage, Me, NewClock, NewLink, NewPasskey, NewPassword, NewRoles, NewServiceToken, PasskeyCreation,
    PasskeyList, PasskeyRequest, PskVerifier, RecoveryCode, RecoveryInfo, RecoveryList, Renewed,
    ServiceTokenList, ServiceTokenMade, SessionList, SessionsEnded, SignInBegun, SignInProof, SignInRequest,
    SignInStep, SignInWays, TotpConfirmation, TotpEnrolment, VaultFile, VaultShareGiven, endpoints,
};
use zixt_types::{AccountId, limits};

/// A vault in base64, and room for the JSON around it.
const VAULT_REQUEST_BYTES_MAX: usize = limits::VAULT_BYTES_MAX / 3 * 4 + 1024;

type Answer<T> = Result<Json<T>, Failure>;
type Here = State<Arc<App>>;

/// The routes. All are served on the clients' listener.
pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route(endpoints::SIGN_IN, post(begin))
        .route(endpoints::SIGN_IN_PROOF, post(prove))
        .route(endpoints::ACCEPT, post(accept))
        .route(endpoints::SIGN_IN_WAYS, get(ways))
        .route(endpoints::SIGN_IN_PASSKEY, post(passkey_options))
        .route(endpoints::MY_PASSKEYS, get(passkeys).post(add_passkey))
        .route(endpoints::MY_PASSKEYS_BEGIN, post(begin_passkey))
        .route(endpoints::MY_PASSKEY, delete(remove_passkey))
        .route(endpoints::MY_LINKS, post(link))
        .route(endpoints::MY_LINK, delete(unlink))
        .route(endpoints::PERSON_LINK, delete(unlink_somebody))
        .route(endpoints::CLOCK, get(clock).put(set_clock))
        .route(endpoints::PERSON_TOKENS, get(tokens).post(make_token))
        .route(endpoints::PERSON_TOKEN, delete(end_token))
        .route(endpoints::EVENTS, get(events))
        .route(endpoints::DIRECTORIES, get(directories))
        .route(endpoints::DIRECTORY_READ, post(read_directory))
        .route(endpoints::DIRECTORY_RELEASE, post(release_directory))
        .route(endpoints::ME, get(me))
        .route(endpoints::SIGN_OUT, post(sign_out))
        .route(endpoints::MY_SESSIONS, get(my_sessions).delete(end_others))
        .route(endpoints::MY_SESSION, delete(end_session))
        .route(endpoints::MY_PASSWORD, put(set_password).delete(remove_password))
        .route(endpoints::MY_TOTP, post(begin_totp).delete(remove_totp))
        .route(endpoints::MY_TOTP_CONFIRM, post(confirm_totp))
        .route(endpoints::MY_BACKUP_CODES, post(make_backup_codes).delete(remove_backup_codes))
        .route(endpoints::MY_PSK, put(set_psk).delete(remove_psk))
        .route(endpoints::MY_LOCKOUT_LIFT, post(lift_own))
        .route(endpoints::MY_VAULT, get(vault).put(put_vault))
        .route(endpoints::MY_VAULT_SHARE, post(vault_share))
        .route(endpoints::PEOPLE, get(people))
        .route(endpoints::PERSON, get(person))
        .route(endpoints::PERSON_SUSPEND, post(suspend))
        .route(endpoints::PERSON_RESUME, post(resume))
        .route(endpoints::PERSON_OFFBOARD, post(offboard))
        .route(endpoints::PERSON_ROLES, put(set_roles))
        .route(endpoints::PERSON_SESSIONS, get(sessions_of).delete(end_sessions_of))
        .route(endpoints::PERSON_LOCKOUT_LIFT, post(lift))
        .route(endpoints::PERSON_RECOVERY, post(request_recovery))
        .route(endpoints::RECOVERIES, get(recoveries))
        .route(endpoints::RECOVERY_APPROVE, post(approve_recovery))
}

#[derive(Deserialize)]
struct PageQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// Which accounts a page is to show.
pub(super) fn page(uri: &Uri) -> Result<(Option<AccountId>, Option<usize>), Failure> {
    let PageQuery { after, limit } = query(uri)?;
    Ok((after.as_deref().map(id).transpose()?, limit))
}

async fn begin(
    State(app): Here,
    AtDoor(door): AtDoor,
    Anybody(sender): Anybody,
    body: Body,
) -> Answer<SignInBegun> {
    let (request, _room) = json::<SignInRequest>(&app, body, ENROL_BYTES_MAX, sender).await?;
    Ok(Json(app.begin_sign_in(&door, request).await?))
}

async fn prove(
    State(app): Here,
    PathParts(sign_in): PathParts<String>,
    AtDoor(door): AtDoor,
    Anybody(sender): Anybody,
    By(by): By,
    OwnPage(page): OwnPage,
    body: Body,
) -> Result<Response, Failure> {
    let sign_in = id(&sign_in)?;
    let (proof, _room) = json::<SignInProof>(&app, body, ENROL_BYTES_MAX, sender).await?;
    let step = app.sign_in_step(&door, by, sign_in, proof).await?;
    let token = match &step {
        SignInStep::Done { token, .. } => Some(token.clone()),
        SignInStep::Need { .. } => None,
    };
    let mut response = Json(step).into_response();
    // A page of ours has its session in a cookie that it does not see.
    if let (Some(headers), Some(token)) = (page, token) {
        super::sso::sign_in(&mut response, &headers, token.expose());
    }
    Ok(response)
}

async fn accept(
    State(app): Here,
    AtDoor(door): AtDoor,
    Anybody(sender): Anybody,
    By(by): By,
    body: Body,
) -> Answer<Done> {
    let (request, _room) = json::<Acceptance>(&app, body, ENROL_BYTES_MAX, sender).await?;
    app.accept(&door, by, request).await?;
    Ok(Json(Done {}))
}

async fn me(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<Me> {
    Ok(Json(app.me(&who).await?))
}

async fn sign_out(
    State(app): Here,
    OwnPage(page): OwnPage,
    SignedIn { who, .. }: SignedIn,
) -> Result<Response, Failure> {
    app.sign_out(&who).await?;
    let mut response = Json(Done {}).into_response();
    if page.is_some() {
        super::sso::sign_out(&mut response);
    }
    Ok(response)
}

async fn my_sessions(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<SessionList> {
    Ok(Json(app.sessions(&who, None).await?))
}

async fn end_others(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<SessionsEnded> {
    Ok(Json(SessionsEnded { ended: app.end_sessions(&who, None).await? }))
}

async fn end_session(
    State(app): Here,
    PathParts(session): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<SessionsEnded> {
    Ok(Json(SessionsEnded { ended: app.end_session(&who, id(&session)?).await? }))
}

async fn set_password(State(app): Here, SignedIn { who, sender }: SignedIn, body: Body) -> Answer<Renewed> {
    let (new, _room) = json::<NewPassword>(&app, body, ENROL_BYTES_MAX, sender).await?;
    Ok(Json(app.set_password(&who, Some(&new.password)).await?))
}

async fn remove_password(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<Renewed> {
    Ok(Json(app.set_password(&who, None).await?))
}

async fn begin_totp(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<TotpEnrolment> {
    Ok(Json(app.begin_totp(&who).await?))
}

async fn confirm_totp(State(app): Here, SignedIn { who, sender }: SignedIn, body: Body) -> Answer<Renewed> {
    let (request, _room) = json::<TotpConfirmation>(&app, body, ENROL_BYTES_MAX, sender).await?;
    Ok(Json(app.confirm_totp(&who, &request.code).await?))
}

async fn remove_totp(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<Renewed> {
    Ok(Json(app.remove_totp(&who).await?))
}

async fn make_backup_codes(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<BackupCodes> {
    Ok(Json(app.make_backup_codes(&who).await?))
}

async fn remove_backup_codes(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<Renewed> {
    Ok(Json(app.remove_backup_codes(&who).await?))
}

async fn set_psk(State(app): Here, SignedIn { who, sender }: SignedIn, body: Body) -> Answer<Renewed> {
    let (verifier, _room) = json::<PskVerifier>(&app, body, ENROL_BYTES_MAX, sender).await?;
    Ok(Json(app.set_psk(&who, Some(verifier)).await?))
}

async fn remove_psk(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<Renewed> {
    Ok(Json(app.set_psk(&who, None).await?))
}

async fn lift_own(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<Done> {
    app.lift_lockout(&who, None).await?;
    Ok(Json(Done {}))
}

async fn ways(State(app): Here) -> Json<SignInWays> {
    Json(SignInWays { ways: app.access.ways() })
}

async fn passkey_options(
    State(app): Here,
    PathParts(sign_in): PathParts<String>,
    AtDoor(door): AtDoor,
) -> Answer<PasskeyRequest> {
    Ok(Json(app.access.passkey_options(&door, id(&sign_in)?).await?))
}

async fn passkeys(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<PasskeyList> {
    Ok(Json(app.access.passkeys(&who.caller).await?))
}

async fn begin_passkey(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<PasskeyCreation> {
    Ok(Json(app.begin_passkey(&who).await?))
}

async fn add_passkey(State(app): Here, SignedIn { who, sender }: SignedIn, body: Body) -> Answer<Renewed> {
    let (new, _room) = json::<NewPasskey>(&app, body, ENROL_BYTES_MAX, sender).await?;
    Ok(Json(app.add_passkey(&who, &new).await?))
}

async fn remove_passkey(
    State(app): Here,
    PathParts(passkey): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<Renewed> {
    Ok(Json(app.remove_passkey(&who, passkey_id(&passkey)?).await?))
}

async fn link(
    State(app): Here,
    AtDoor(door): AtDoor,
    SignedIn { who, sender }: SignedIn,
    body: Body,
) -> Answer<Renewed> {
    let (new, _room) = json::<NewLink>(&app, body, ENROL_BYTES_MAX, sender).await?;
    Ok(Json(app.link(&door, &who, &new).await?))
}

async fn unlink(
    State(app): Here,
    PathParts(issuer): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<Renewed> {
    Ok(Json(app.unlink(&who, parse_issuer(&issuer)?).await?))
}

async fn unlink_somebody(
    State(app): Here,
    PathParts((account, issuer)): PathParts<(String, String)>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<Done> {
    app.unlink_somebody(&who, id(&account)?, parse_issuer(&issuer)?).await?;
    Ok(Json(Done {}))
}

async fn clock(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<ClockInfo> {
    Ok(Json(app.clock(&who)?))
}

async fn set_clock(State(app): Here, SignedIn { who, sender }: SignedIn, body: Body) -> Answer<ClockInfo> {
    let (new, _room) = json::<NewClock>(&app, body, ENROL_BYTES_MAX, sender).await?;
    Ok(Json(app.set_clock(&who, new).await?))
}

async fn make_token(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, sender }: SignedIn,
    body: Body,
) -> Answer<ServiceTokenMade> {
    let account = id(&account)?;
    let (new, _room) = json::<NewServiceToken>(&app, body, ENROL_BYTES_MAX, sender).await?;
    Ok(Json(app.make_token(&who, account, new).await?))
}

async fn tokens(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<ServiceTokenList> {
    Ok(Json(app.tokens(&who, id(&account)?).await?))
}

async fn end_token(
    State(app): Here,
    PathParts((account, token)): PathParts<(String, String)>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<Done> {
    app.end_token(&who, id(&account)?, id(&token)?).await?;
    Ok(Json(Done {}))
}

#[derive(Deserialize)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn events(State(app): Here, SignedIn { who, .. }: SignedIn, uri: Uri) -> Answer<EventPage> {
    let EventsQuery { after, limit } = query(&uri)?;
    Ok(Json(app.happened(&who, after, limit).await?))
}

async fn directories(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<DirectoryList> {
    Ok(Json(app.directories(&who).await?))
}

async fn read_directory(
    State(app): Here,
    PathParts(directory): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<Done> {
    app.read_directory(&who, parse_issuer(&directory)?)?;
    Ok(Json(Done {}))
}

async fn release_directory(
    State(app): Here,
    PathParts(directory): PathParts<String>,
    SignedIn { who, sender }: SignedIn,
    body: Body,
) -> Answer<Done> {
    let issuer = parse_issuer(&directory)?;
    let (release, _room) = json::<DirectoryRelease>(&app, body, ENROL_BYTES_MAX, sender).await?;
    app.release_directory(&who, issuer, release.digest.0).await?;
    Ok(Json(Done {}))
}

async fn vault(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<VaultFile> {
    Ok(Json(VaultFile { vault: app.vault(&who).await? }))
}

async fn put_vault(State(app): Here, SignedIn { who, sender }: SignedIn, body: Body) -> Answer<Done> {
    let (file, _room) = json::<VaultFile>(&app, body, VAULT_REQUEST_BYTES_MAX, sender).await?;
    app.put_vault(&who, &file.vault).await?;
    Ok(Json(Done {}))
}

async fn vault_share(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<VaultShareGiven> {
    Ok(Json(app.vault_share(&who).await?))
}

async fn people(State(app): Here, SignedIn { who, .. }: SignedIn, uri: Uri) -> Answer<AccountPage> {
    let (after, limit) = page(&uri)?;
    Ok(Json(app.people(&who, after, limit).await?))
}

async fn person(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<AccountInfo> {
    Ok(Json(app.person(&who, id(&account)?).await?))
}

async fn suspend(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<AccountInfo> {
    Ok(Json(app.deal(&who, id(&account)?, Deed::Suspend).await?))
}

async fn resume(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<AccountInfo> {
    Ok(Json(app.deal(&who, id(&account)?, Deed::Resume).await?))
}

async fn offboard(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<AccountInfo> {
    Ok(Json(app.deal(&who, id(&account)?, Deed::Offboard).await?))
}

async fn set_roles(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, sender }: SignedIn,
    body: Body,
) -> Answer<AccountInfo> {
    let account = id(&account)?;
    let (roles, _room) = json::<NewRoles>(&app, body, ENROL_BYTES_MAX, sender).await?;
    Ok(Json(app.deal(&who, account, Deed::Roles(roles)).await?))
}

async fn sessions_of(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<SessionList> {
    Ok(Json(app.sessions(&who, Some(id(&account)?)).await?))
}

async fn end_sessions_of(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<SessionsEnded> {
    Ok(Json(SessionsEnded { ended: app.end_sessions(&who, Some(id(&account)?)).await? }))
}

async fn lift(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<Done> {
    app.lift_lockout(&who, Some(id(&account)?)).await?;
    Ok(Json(Done {}))
}

async fn request_recovery(
    State(app): Here,
    PathParts(account): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<RecoveryInfo> {
    Ok(Json(app.request_recovery(&who, id(&account)?).await?))
}

async fn recoveries(State(app): Here, SignedIn { who, .. }: SignedIn) -> Answer<RecoveryList> {
    Ok(Json(app.recoveries(&who).await?))
}

async fn approve_recovery(
    State(app): Here,
    PathParts(recovery): PathParts<String>,
    SignedIn { who, .. }: SignedIn,
) -> Answer<RecoveryCode> {
    Ok(Json(app.approve_recovery(&who, id(&recovery)?).await?))
}
