//! Every endpoint, once: the server routes by these paths, the client calls them, `openapi.json` lists them.

use crate::RoleName;

/// `GET`: whether the appliance can do its work.
pub const HEALTHZ: &str = "/healthz";
/// `GET`: genesis, keyring and latest header.
pub const NETWORK: &str = "/v1/network";
/// `GET`: one header.
pub const HEADER: &str = "/v1/headers/{height}";
/// `GET ?from_height=H&shards=SHARD:SIZE,…`: proof that the ledger only grew.
pub const CONSISTENCY: &str = "/v1/consistency";
/// `GET ?from=`: what officers decided about the network's keys.
pub const SYSTEM: &str = "/v1/system";
/// `POST`: the first device of an account.
pub const ENROL: &str = "/v1/enrol";
/// `GET ?name=`: the account of a name.
pub const ACCOUNTS: &str = "/v1/accounts";
/// `GET`: an account's thread with keys and proof.
pub const ACCOUNT: &str = "/v1/accounts/{account}";
/// `GET` counts and `POST` key packages of the own device.
pub const KEY_PACKAGES: &str = "/v1/key-packages";
/// `POST`: a key package of every active device of some accounts.
pub const KEY_PACKAGES_CLAIM: &str = "/v1/key-packages/claim";
/// `POST`: hand in entries.
pub const SUBMISSIONS: &str = "/v1/submissions";
/// `GET`: a thread's head, epoch and members, with proof.
pub const THREAD: &str = "/v1/threads/{thread}";
/// `GET ?from=&limit=`: a thread's entries.
pub const ENTRIES: &str = "/v1/threads/{thread}/entries";
/// `GET`: an attachment, as raw bytes.
pub const ATTACHMENT: &str = "/v1/threads/{thread}/entries/{seq}/attachments/{index}";
/// `GET`: proof of an entry at the latest height.
pub const PROOF: &str = "/v1/threads/{thread}/entries/{seq}/proof";
/// `GET ?after=POSITION`: the push stream.
pub const STREAM: &str = "/v1/stream";
/// Admin socket, `POST`: create an account.
pub const ADMIN_INVITATIONS: &str = "/v1/admin/invitations";
/// Admin socket, `POST`: record what officers decided.
pub const ADMIN_DECISIONS: &str = "/v1/admin/decisions";
/// Admin socket, `GET`: status.
pub const ADMIN_STATUS: &str = "/v1/admin/status";

/// Admin socket, `GET ?from=&limit=&form=`: records of the audit journal.
pub const ADMIN_AUDIT: &str = "/v1/admin/audit";
/// Admin socket, `GET ?first=&last=`: a range of the audit journal as a file.
pub const ADMIN_AUDIT_EXPORT: &str = "/v1/admin/audit/export";

/// `POST`: begin a sign-in.
pub const SIGN_IN: &str = "/v1/sign-in";
/// `POST`: one proof of a sign-in.
pub const SIGN_IN_PROOF: &str = "/v1/sign-in/{sign_in}/proof";
/// `POST`: come with the code of an invitation or recovery.
pub const ACCEPT: &str = "/v1/accept";
/// `GET`: the caller.
pub const ME: &str = "/v1/me";
/// `POST`: end the session.
pub const SIGN_OUT: &str = "/v1/me/sign-out";
/// `GET` the caller's sessions, `DELETE` all others.
pub const MY_SESSIONS: &str = "/v1/me/sessions";
/// `DELETE`: one of the caller's sessions.
pub const MY_SESSION: &str = "/v1/me/sessions/{session}";
/// `PUT`, `DELETE`: the caller's password.
pub const MY_PASSWORD: &str = "/v1/me/password";
/// `POST`, `DELETE`: the caller's authenticator app.
pub const MY_TOTP: &str = "/v1/me/totp";
/// `POST`: the first code of a new authenticator app.
pub const MY_TOTP_CONFIRM: &str = "/v1/me/totp/confirm";
/// `POST`, `DELETE`: the caller's backup codes.
pub const MY_BACKUP_CODES: &str = "/v1/me/backup-codes";
/// `PUT`, `DELETE`: the caller's pre-shared key.
pub const MY_PSK: &str = "/v1/me/psk";
/// `POST`: forgive the failed attempts at one's own account.
pub const MY_LOCKOUT_LIFT: &str = "/v1/me/lift-lockout";
/// `GET`, `PUT`: the caller's vault.
pub const MY_VAULT: &str = "/v1/me/vault";
/// `POST`: the appliance's share of the vault's key.
pub const MY_VAULT_SHARE: &str = "/v1/me/vault/share";
/// `GET ?after=&limit=`: accounts.
pub const PEOPLE: &str = "/v1/people";
/// `GET`: an account.
pub const PERSON: &str = "/v1/people/{account}";
/// `POST`: hold an account.
pub const PERSON_SUSPEND: &str = "/v1/people/{account}/suspend";
/// `POST`: let it in again.
pub const PERSON_RESUME: &str = "/v1/people/{account}/resume";
/// `POST`: end it for good.
pub const PERSON_OFFBOARD: &str = "/v1/people/{account}/offboard";
/// `PUT`: its roles.
pub const PERSON_ROLES: &str = "/v1/people/{account}/roles";
/// `GET`, `DELETE`: its sessions.
pub const PERSON_SESSIONS: &str = "/v1/people/{account}/sessions";
/// `POST`: forgive the failed attempts.
pub const PERSON_LOCKOUT_LIFT: &str = "/v1/people/{account}/lift-lockout";
/// `POST`: ask for its recovery.
pub const PERSON_RECOVERY: &str = "/v1/people/{account}/recovery";
/// `GET`: the recoveries that wait.
pub const RECOVERIES: &str = "/v1/recoveries";
/// `POST`: approve one.
pub const RECOVERY_APPROVE: &str = "/v1/recoveries/{recovery}/approve";
/// `POST`: what a page asks of an authenticator for a sign-in.
pub const SIGN_IN_PASSKEY: &str = "/v1/sign-in/{sign_in}/passkey";
/// `GET`, `POST`: the caller's passkeys.
pub const MY_PASSKEYS: &str = "/v1/me/passkeys";
/// `POST`: what a page asks of an authenticator for a new passkey.
pub const MY_PASSKEYS_BEGIN: &str = "/v1/me/passkeys/begin";
/// `DELETE`: removes a passkey of the caller, by its id in hexadecimal digits.
pub const MY_PASSKEY: &str = "/v1/me/passkeys/{passkey}";
/// Web listener, `GET`: begins a sign-in at an identity provider; the browser goes there.
pub const SSO_BEGIN: &str = "/v1/sso/{issuer}/begin";
/// Web listener, `GET ?code=&state=&iss=`: the identity provider's answer, by the browser.
pub const SSO_CALLBACK: &str = "/v1/sso/{issuer}/callback";
/// Web listener, `POST` with a form: the identity provider ends sessions (back-channel log-out).
pub const SSO_LOGOUT: &str = "/v1/sso/{issuer}/logout";
/// Web listener, `GET`: the browser goes to where the identity provider's own session ends.
pub const SSO_END: &str = "/v1/sso/{issuer}/end";
/// Web listener, `POST`: begins to link the caller to who they are at an identity provider.
pub const MY_SSO_LINKS: &str = "/v1/me/sso-links";
/// `GET`, `PUT`: the appliance's clocks.
pub const CLOCK: &str = "/v1/clock";
/// `GET`, `POST`: tokens of a program.
pub const PERSON_TOKENS: &str = "/v1/people/{account}/tokens";
/// `DELETE`: ends a token of a program.
pub const PERSON_TOKEN: &str = "/v1/people/{account}/tokens/{token}";
/// `GET ?after=&limit=`: what happened to accounts, devices and directories.
pub const EVENTS: &str = "/v1/events";
/// `GET`: what people who are known elsewhere can sign in with.
pub const SIGN_IN_WAYS: &str = "/v1/sign-in/ways";
/// `POST`: links the caller to who they are at a directory.
pub const MY_LINKS: &str = "/v1/me/links";
/// `DELETE`: takes a link of the caller away.
pub const MY_LINK: &str = "/v1/me/links/{issuer}";
/// `DELETE`: takes a link of somebody away.
pub const PERSON_LINK: &str = "/v1/people/{account}/links/{issuer}";
/// `GET`: how directories are.
pub const DIRECTORIES: &str = "/v1/directories";
/// `POST`: reads a directory now.
pub const DIRECTORY_READ: &str = "/v1/directories/{issuer}/read";
/// `POST`: lets happen what a directory was kept from.
pub const DIRECTORY_RELEASE: &str = "/v1/directories/{issuer}/release";
/// Admin socket, `GET ?after=&limit=`: accounts, for the local console.
pub const ADMIN_PEOPLE: &str = "/v1/admin/people";

/// Fills a path's placeholders, in order. What is filled in must be an id or a number: it is not escaped.
#[must_use]
pub fn fill(path: &str, values: &[&(dyn std::fmt::Display + Sync)]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(path.len() + 64);
    let (mut rest, mut values) = (path, values.iter());
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        if let Some(value) = values.next() {
            // Writing to a String cannot fail.
            let _ = write!(out, "{value}");
        }
        rest = after.split_once('}').map_or("", |(_, tail)| tail);
    }
    out.push_str(rest);
    out
}

/// An HTTP method that the API uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
}

/// Who may call an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Whoever can open a connection.
    Anyone,
    /// An active device of the ledger, known by the TLS key of its connection, whose user has signed in on it.
    Device,
    /// Whoever has signed in.
    Account,
    /// Whoever has signed in and has one of these roles.
    Roles(&'static [RoleName]),
    /// Whoever comes to the web listener with a browser.
    Browser,
    /// The appliance's own user, root, or a user of the configuration's list.
    Admin,
}

/// Where an endpoint is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listener {
    /// TLS 1.3 with post-quantum raw public keys.
    Clients,
    /// The web listener alone: TLS 1.3 with a certificate.
    Web,
    /// The admin socket.
    Admin,
}

/// An endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its method.
    pub method: Method,
    /// Its path with placeholders in braces.
    pub path: &'static str,
    /// Who may call it.
    pub who: Who,
    /// What it does.
    pub summary: &'static str,
    /// Parameters of the query: name, whether it is required, what it means.
    pub query: &'static [(&'static str, bool, &'static str)],
    /// Name of the request body's type.
    pub request: Option<&'static str>,
    /// Media type and type name of the answer.
    pub response: (&'static str, Option<&'static str>),
}

impl Endpoint {
    /// Where it is served.
    #[must_use]
    pub const fn listener(&self) -> Listener {
        match self.who {
            Who::Anyone | Who::Device | Who::Account | Who::Roles(_) => Listener::Clients,
            Who::Browser => Listener::Web,
            Who::Admin => Listener::Admin,
        }
    }
}

const JSON: &str = "application/json";
/// Media type of what browsers are sent.
pub(crate) const HTML: &str = "text/html";
/// Media type of the push stream.
pub const NDJSON: &str = "application/x-ndjson";
/// Media type of attachments.
pub const OCTETS: &str = "application/octet-stream";

const fn get(path: &'static str, who: Who, summary: &'static str, response: &'static str) -> Endpoint {
    Endpoint {
        method: Method::Get,
        path,
        who,
        summary,
        query: &[],
        request: None,
        response: (JSON, Some(response)),
    }
}

const fn post(
    path: &'static str,
    who: Who,
    summary: &'static str,
    request: &'static str,
    response: &'static str,
) -> Endpoint {
    let request = Some(request);
    Endpoint {
        method: Method::Post,
        path,
        who,
        summary,
        query: &[],
        request,
        response: (JSON, Some(response)),
    }
}

/// Changes something, and takes no body.
const fn bare(
    method: Method,
    path: &'static str,
    who: Who,
    summary: &'static str,
    response: &'static str,
) -> Endpoint {
    Endpoint { method, ..get(path, who, summary, response) }
}

const fn put(
    path: &'static str,
    who: Who,
    summary: &'static str,
    request: &'static str,
    response: &'static str,
) -> Endpoint {
    Endpoint { method: Method::Put, ..post(path, who, summary, request, response) }
}

/// See `Permission` in `zixt-identity`; the server's tests compare.
const USERS: Who = Who::Roles(&[RoleName::User]);
const WATCHERS: Who =
    Who::Roles(&[RoleName::SecurityOfficer, RoleName::Administrator, RoleName::Operator, RoleName::Auditor]);
const RUNNERS: Who = Who::Roles(&[RoleName::SecurityOfficer, RoleName::Administrator]);
const ADMINISTRATORS: Who = Who::Roles(&[RoleName::Administrator]);
const OFFICERS: Who = Who::Roles(&[RoleName::SecurityOfficer]);
const PEOPLE_ONLY: Who = Who::Roles(&[
    RoleName::SecurityOfficer,
    RoleName::Administrator,
    RoleName::Operator,
    RoleName::Auditor,
    RoleName::User,
]);

const PAGE: &[(&str, bool, &str)] =
    &[("after", false, "the account after which the page begins"), ("limit", false, "how many; at most 256")];

const fn with_query(endpoint: Endpoint, query: &'static [(&'static str, bool, &'static str)]) -> Endpoint {
    Endpoint { query, ..endpoint }
}

/// Every endpoint.
pub const ENDPOINTS: &[Endpoint] = &[
    get(HEALTHZ, Who::Anyone, "Whether the appliance can do its work (503 if not)", "Health"),
    get(NETWORK, Who::Anyone, "Genesis, its public keys, and the latest header", "Network"),
    get(HEADER, Who::Anyone, "A header with its certificate", "CertifiedHeader"),
    with_query(
        get(CONSISTENCY, Who::Anyone, "Proof that the ledger only grew", "Consistency"),
        &[
            ("from_height", true, "height of the older header; 0 for none"),
            ("shards", false, "older sizes of shards, as `shard:size`, separated by commas"),
        ],
    ),
    with_query(
        get(
            SYSTEM,
            Who::Anyone,
            "What officers decided about keys: entries of the system thread",
            "SystemView",
        ),
        &[("from", false, "the first seq; 0 if absent")],
    ),
    post(ENROL, Who::Anyone, "Adds the first device of an account", "EnrolRequest", "Receipt"),
    with_query(
        get(ACCOUNTS, Who::Device, "The account of a name", "AccountName"),
        &[("name", true, "the name; upper and lower case are the same")],
    ),
    get(ACCOUNT, Who::Device, "An account's whole thread, with keys and proof", "AccountView"),
    get(KEY_PACKAGES, Who::Device, "How many key packages of the calling device wait", "KeyPackageCounts"),
    post(
        KEY_PACKAGES,
        Who::Device,
        "Adds key packages of the calling device",
        "KeyPackageUpload",
        "KeyPackageCounts",
    ),
    post(
        KEY_PACKAGES_CLAIM,
        Who::Device,
        "Hands out a key package of every active device of some accounts",
        "ClaimRequest",
        "ClaimResponse",
    ),
    post(
        SUBMISSIONS,
        Who::Device,
        "Hands in entries of one thread; answers when they are final",
        "SubmitRequest",
        "SubmitResponse",
    ),
    get(THREAD, Who::Device, "A thread's head, epoch and members, with proof", "ThreadView"),
    with_query(
        get(ENTRIES, Who::Device, "A thread's entries, in order", "EntryPage"),
        &[("from", false, "the first seq; 0 if absent"), ("limit", false, "how many; at most 256")],
    ),
    Endpoint {
        method: Method::Get,
        path: ATTACHMENT,
        who: Who::Device,
        summary: "An attachment, as raw bytes",
        query: &[],
        request: None,
        response: (OCTETS, None),
    },
    get(PROOF, Who::Device, "Proof of an entry at the latest height", "EntryProof"),
    Endpoint {
        method: Method::Get,
        path: STREAM,
        who: Who::Device,
        summary: "The calling device's events, as they come: one StreamLine a line",
        query: &[("after", false, "the last position that was handled durably; acknowledges it")],
        request: None,
        response: (NDJSON, Some("StreamLine")),
    },
    post(SIGN_IN, Who::Anyone, "Begins a sign-in", "SignInRequest", "SignInBegun"),
    post(
        SIGN_IN_PROOF,
        Who::Anyone,
        "One proof of a sign-in, over the connection that it began on",
        "SignInProof",
        "SignInStep",
    ),
    post(
        ACCEPT,
        Who::Anyone,
        "Sets the password of an account by the code that was given by hand",
        "Acceptance",
        "Done",
    ),
    get(SIGN_IN_WAYS, Who::Anyone, "What people who are known elsewhere can sign in with", "SignInWays"),
    bare(
        Method::Post,
        SIGN_IN_PASSKEY,
        Who::Anyone,
        "What a page asks of an authenticator for a sign-in",
        "PasskeyRequest",
    ),
    get(MY_PASSKEYS, PEOPLE_ONLY, "The caller's passkeys", "PasskeyList"),
    bare(
        Method::Post,
        MY_PASSKEYS_BEGIN,
        PEOPLE_ONLY,
        "What a page asks of an authenticator for a new passkey",
        "PasskeyCreation",
    ),
    post(MY_PASSKEYS, PEOPLE_ONLY, "Adds a passkey; all other sessions end", "NewPasskey", "Renewed"),
    bare(Method::Delete, MY_PASSKEY, PEOPLE_ONLY, "Removes a passkey of the caller", "Renewed"),
    post(
        MY_LINKS,
        PEOPLE_ONLY,
        "Links the caller to who they are at a directory; all other sessions end",
        "NewLink",
        "Renewed",
    ),
    bare(Method::Delete, MY_LINK, PEOPLE_ONLY, "Takes a link of the caller away", "Renewed"),
    bare(Method::Delete, PERSON_LINK, ADMINISTRATORS, "Takes a link of somebody away", "Done"),
    Endpoint {
        response: (HTML, None),
        ..get(SSO_BEGIN, Who::Browser, "Begins a sign-in at an identity provider", "")
    },
    Endpoint {
        response: (HTML, None),
        ..with_query(
            get(SSO_CALLBACK, Who::Browser, "The identity provider's answer", ""),
            &[
                ("code", false, "RFC 6749 section 4.1.2"),
                ("state", false, "RFC 6749 section 4.1.2"),
                ("iss", false, "RFC 9207"),
                ("error", false, "RFC 6749 section 4.1.2.1"),
            ],
        )
    },
    Endpoint {
        response: (HTML, None),
        ..bare(Method::Post, SSO_LOGOUT, Who::Browser, "The identity provider ends sessions", "")
    },
    Endpoint {
        response: (HTML, None),
        ..get(SSO_END, Who::Browser, "The browser goes where the identity provider's session ends", "")
    },
    post(
        MY_SSO_LINKS,
        Who::Browser,
        "Begins to link the caller, whose session is in the browser, to who they are at an identity provider",
        "NewSsoLink",
        "SsoRedirect",
    ),
    get(CLOCK, WATCHERS, "How the appliance's clocks stand", "ClockInfo"),
    put(CLOCK, OFFICERS, "Sets the appliance's wall clock", "NewClock", "ClockInfo"),
    get(PERSON_TOKENS, ADMINISTRATORS, "The tokens of a program", "ServiceTokenList"),
    post(
        PERSON_TOKENS,
        ADMINISTRATORS,
        "Makes a token for a program. It is shown once",
        "NewServiceToken",
        "ServiceTokenMade",
    ),
    bare(Method::Delete, PERSON_TOKEN, ADMINISTRATORS, "Ends a token of a program", "Done"),
    with_query(
        get(EVENTS, WATCHERS, "What happened to accounts, devices and directories, in order", "EventPage"),
        &[
            ("after", false, "the number after which it begins; 0 if absent"),
            ("limit", false, "how many at most; 256 if absent or more"),
        ],
    ),
    get(DIRECTORIES, WATCHERS, "How directories are", "DirectoryList"),
    bare(Method::Post, DIRECTORY_READ, ADMINISTRATORS, "Reads a directory now", "Done"),
    post(
        DIRECTORY_RELEASE,
        OFFICERS,
        "Lets happen what a directory was kept from, because it takes much from many",
        "DirectoryRelease",
        "Done",
    ),
    get(ME, Who::Account, "The caller", "Me"),
    bare(Method::Post, SIGN_OUT, Who::Account, "Ends the session that asks", "Done"),
    get(MY_SESSIONS, PEOPLE_ONLY, "The caller's sessions", "SessionList"),
    bare(
        Method::Delete,
        MY_SESSIONS,
        PEOPLE_ONLY,
        "Ends all sessions of the caller but this",
        "SessionsEnded",
    ),
    bare(Method::Delete, MY_SESSION, PEOPLE_ONLY, "Ends one of the caller's sessions", "SessionsEnded"),
    put(
        MY_PASSWORD,
        PEOPLE_ONLY,
        "Sets the caller's password; all other sessions end",
        "NewPassword",
        "Renewed",
    ),
    bare(Method::Delete, MY_PASSWORD, PEOPLE_ONLY, "Removes the caller's password", "Renewed"),
    bare(Method::Post, MY_TOTP, PEOPLE_ONLY, "Begins to enrol an authenticator app", "TotpEnrolment"),
    bare(Method::Delete, MY_TOTP, PEOPLE_ONLY, "Removes the authenticator app", "Renewed"),
    post(
        MY_TOTP_CONFIRM,
        PEOPLE_ONLY,
        "Shows a code of the new authenticator app, which then counts",
        "TotpConfirmation",
        "Renewed",
    ),
    bare(Method::Post, MY_BACKUP_CODES, PEOPLE_ONLY, "Makes new backup codes", "BackupCodes"),
    bare(Method::Delete, MY_BACKUP_CODES, PEOPLE_ONLY, "Removes the backup codes", "Renewed"),
    put(MY_PSK, PEOPLE_ONLY, "Sets the pre-shared key's verifier", "PskVerifier", "Renewed"),
    bare(Method::Delete, MY_PSK, PEOPLE_ONLY, "Removes the pre-shared key", "Renewed"),
    bare(
        Method::Post,
        MY_LOCKOUT_LIFT,
        PEOPLE_ONLY,
        "Forgives the failed attempts at the caller's account",
        "Done",
    ),
    get(MY_VAULT, USERS, "The caller's vault", "VaultFile"),
    put(MY_VAULT, USERS, "Replaces the caller's vault by its next generation", "VaultFile", "Done"),
    bare(
        Method::Post,
        MY_VAULT_SHARE,
        USERS,
        "The appliance's share of the vault's key: a few times a day",
        "VaultShareGiven",
    ),
    with_query(get(PEOPLE, WATCHERS, "Accounts, ascending by id", "AccountPage"), PAGE),
    get(PERSON, WATCHERS, "An account", "AccountInfo"),
    bare(
        Method::Post,
        PERSON_SUSPEND,
        RUNNERS,
        "Holds an account: its sessions and streams end",
        "AccountInfo",
    ),
    bare(Method::Post, PERSON_RESUME, RUNNERS, "Lets a held account in again", "AccountInfo"),
    bare(Method::Post, PERSON_OFFBOARD, RUNNERS, "Ends an account for good", "AccountInfo"),
    put(
        PERSON_ROLES,
        RUNNERS,
        "Gives an account other roles; officers and administrators take a ceremony",
        "NewRoles",
        "AccountInfo",
    ),
    get(PERSON_SESSIONS, RUNNERS, "An account's sessions", "SessionList"),
    bare(Method::Delete, PERSON_SESSIONS, RUNNERS, "Ends all sessions of an account", "SessionsEnded"),
    bare(Method::Post, PERSON_LOCKOUT_LIFT, RUNNERS, "Forgives the failed attempts at an account", "Done"),
    bare(
        Method::Post,
        PERSON_RECOVERY,
        ADMINISTRATORS,
        "Asks for the recovery of an account whose person lost every factor",
        "RecoveryInfo",
    ),
    get(RECOVERIES, RUNNERS, "The recoveries that wait for a security officer", "RecoveryList"),
    bare(
        Method::Post,
        RECOVERY_APPROVE,
        OFFICERS,
        "Approves a recovery: gives the code for the person",
        "RecoveryCode",
    ),
    with_query(
        get(ADMIN_PEOPLE, Who::Admin, "Accounts, ascending by id, for the local console", "AccountPage"),
        PAGE,
    ),
    post(ADMIN_INVITATIONS, Who::Admin, "Creates an account", "AdminInvitation", "Receipt"),
    post(ADMIN_DECISIONS, Who::Admin, "Records what officers decided", "AdminDecision", "Receipt"),
    get(ADMIN_STATUS, Who::Admin, "What an administrator sees", "AdminStatus"),
    with_query(
        get(
            ADMIN_AUDIT,
            Who::Admin,
            "Records of the audit journal; that they were read is recorded",
            "AuditPage",
        ),
        &[
            ("from", false, "the first record; 1 if absent"),
            ("limit", false, "how many; at most 256"),
            ("form", false, "json, if absent, or cef"),
        ],
    ),
    Endpoint {
        method: Method::Get,
        path: ADMIN_AUDIT_EXPORT,
        who: Who::Admin,
        summary: "A range of the audit journal as a file; that it was exported is recorded",
        query: &[
            ("first", false, "the first record; 1 if absent"),
            ("last", false, "the last one; the newest if absent"),
        ],
        request: None,
        response: (OCTETS, None),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn endpoints_are_unique() {
        let all: BTreeSet<_> = ENDPOINTS.iter().map(|e| (e.path, format!("{:?}", e.method))).collect();
        assert_eq!(all.len(), ENDPOINTS.len());
    }

    #[test]
    fn placeholders_are_filled_in_order() {
        assert_eq!(fill(ATTACHMENT, &[&"ab", &7, &0]), "/v1/threads/ab/entries/7/attachments/0");
        assert_eq!(fill(NETWORK, &[]), NETWORK);
    }
}
