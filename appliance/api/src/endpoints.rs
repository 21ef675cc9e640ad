//! Every endpoint, once: the server routes by these paths, the client calls them, `openapi.json` lists them.

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
}

/// Who may call an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Whoever can open a connection.
    Anyone,
    /// An active device of the ledger, known by the TLS key of its connection.
    Device,
    /// The appliance's own user, root, or a user of the configuration's list.
    Admin,
}

/// Where an endpoint is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listener {
    /// TLS 1.3 with post-quantum raw public keys.
    Clients,
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
            Who::Anyone | Who::Device => Listener::Clients,
            Who::Admin => Listener::Admin,
        }
    }
}

const JSON: &str = "application/json";
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
