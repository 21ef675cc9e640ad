//! The calls of the API, typed.

use super::{ConnectionError, Lines, Opened, Request, Response, Transport};
use crate::error::ClientError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::sync::Arc;
use zixt_api::endpoints::{self, fill};
use zixt_api::{
    AccountName, AccountView, CertifiedHeader, ClaimRequest, ClaimResponse, Consistency, EnrolRequest,
    EntryPage, EntryProof, KeyPackageCounts, KeyPackageUpload, Method, Network, Problem, Receipt,
    SubmitRequest, SubmitResponse, SystemView, ThreadView,
};
use zixt_types::{AccountId, Height, Seq, ShardState, ThreadId, limits};

/// Longest JSON answer: an account with all its devices, a page of entries, key packages for a large group.
const JSON_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Longest answer that holds headers and proofs only.
const PROOF_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The calls of one appliance's API, as one device.
#[derive(Clone)]
pub struct Api(Arc<dyn Transport>);

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

impl Api {
    /// The calls over a transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self(transport)
    }

    pub(crate) async fn network(&self) -> Result<Network, ClientError> {
        self.get(endpoints::NETWORK.to_owned(), PROOF_BYTES_MAX).await
    }

    pub(crate) async fn header(&self, height: Height) -> Result<CertifiedHeader, ClientError> {
        let path = fill(endpoints::HEADER, &[&height]);
        self.get(path, PROOF_BYTES_MAX).await
    }

    pub(crate) async fn consistency(
        &self,
        from: Height,
        shards: &[ShardState],
    ) -> Result<Consistency, ClientError> {
        let mut path = format!("{}?from_height={from}", endpoints::CONSISTENCY);
        for (index, state) in shards.iter().enumerate() {
            let before = if index == 0 { "&shards=" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(path, "{before}{}:{}", state.shard, state.size);
        }
        self.get(path, PROOF_BYTES_MAX).await
    }

    pub(crate) async fn system(&self, from: Seq) -> Result<SystemView, ClientError> {
        self.get(format!("{}?from={from}", endpoints::SYSTEM), JSON_BYTES_MAX).await
    }

    pub(crate) async fn enrol(&self, request: &EnrolRequest) -> Result<Receipt, ClientError> {
        self.post(endpoints::ENROL.to_owned(), request, PROOF_BYTES_MAX).await
    }

    pub(crate) async fn account_named(&self, name: &str) -> Result<AccountName, ClientError> {
        let path = format!("{}?name={}", endpoints::ACCOUNTS, escaped(name));
        self.get(path, 64 * 1024).await
    }

    pub(crate) async fn account(&self, account: AccountId) -> Result<AccountView, ClientError> {
        let path = fill(endpoints::ACCOUNT, &[&account]);
        self.get(path, JSON_BYTES_MAX).await
    }

    pub(crate) async fn key_package_counts(&self) -> Result<KeyPackageCounts, ClientError> {
        self.get(endpoints::KEY_PACKAGES.to_owned(), 64 * 1024).await
    }

    pub(crate) async fn upload_key_packages(
        &self,
        upload: &KeyPackageUpload,
    ) -> Result<KeyPackageCounts, ClientError> {
        self.post(endpoints::KEY_PACKAGES.to_owned(), upload, 64 * 1024).await
    }

    pub(crate) async fn claim_key_packages(
        &self,
        accounts: &[AccountId],
    ) -> Result<ClaimResponse, ClientError> {
        let request = ClaimRequest { accounts: accounts.iter().map(|account| (*account).into()).collect() };
        self.post(endpoints::KEY_PACKAGES_CLAIM.to_owned(), &request, JSON_BYTES_MAX).await
    }

    pub(crate) async fn submit(&self, request: &SubmitRequest) -> Result<SubmitResponse, ClientError> {
        self.post(endpoints::SUBMISSIONS.to_owned(), request, PROOF_BYTES_MAX).await
    }

    pub(crate) async fn thread(&self, thread: ThreadId) -> Result<ThreadView, ClientError> {
        let path = fill(endpoints::THREAD, &[&thread]);
        self.get(path, PROOF_BYTES_MAX).await
    }

    pub(crate) async fn entries(&self, thread: ThreadId, from: Seq) -> Result<EntryPage, ClientError> {
        let limit = limits::ENTRIES_PAGE_MAX;
        let entries = fill(endpoints::ENTRIES, &[&thread]);
        let path = format!("{entries}?from={from}&limit={limit}");
        self.get(path, JSON_BYTES_MAX).await
    }

    pub(crate) async fn proof(&self, thread: ThreadId, seq: Seq) -> Result<EntryProof, ClientError> {
        let path = fill(endpoints::PROOF, &[&thread, &seq]);
        self.get(path, PROOF_BYTES_MAX).await
    }

    pub(crate) async fn attachment(
        &self,
        thread: ThreadId,
        seq: Seq,
        index: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let path = fill(endpoints::ATTACHMENT, &[&thread, &seq, &index]);
        let request = Request {
            method: Method::Get,
            path,
            body: None,
            answer_bytes_max: limits::COMMIT_BYTES_MAX.max(limits::TREE_BYTES_MAX),
        };
        let response = self.0.request(request).await?;
        if response.status == 200 { Ok(response.body) } else { Err(refusal(&response)) }
    }

    pub(crate) async fn stream(&self, after: u64) -> Result<Box<dyn Lines>, ClientError> {
        match self.0.stream(after).await? {
            Opened::Stream(lines) => Ok(lines),
            Opened::Refused(response) => Err(refusal(&response)),
        }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: String,
        answer_bytes_max: usize,
    ) -> Result<T, ClientError> {
        self.call(Request { method: Method::Get, path, body: None, answer_bytes_max }).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: String,
        body: &impl Serialize,
        answer_bytes_max: usize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ConnectionError::Protocol(error.to_string()))?;
        self.call(Request { method: Method::Post, path, body: Some(body), answer_bytes_max }).await
    }

    async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, ClientError> {
        let response = self.0.request(request).await?;
        if response.status != 200 {
            return Err(refusal(&response));
        }
        let answer = serde_json::from_slice(&response.body)
            .map_err(|error| ConnectionError::Protocol(error.to_string()))?;
        Ok(answer)
    }
}

fn refusal(response: &Response) -> ClientError {
    match serde_json::from_slice::<Problem>(&response.body) {
        Ok(problem) => problem.into(),
        Err(_) => ConnectionError::Protocol(format!("status {} without a problem", response.status)).into(),
    }
}

/// Percent-encoding of everything that is not unreserved (RFC 3986 section 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_escaped() {
        assert_eq!(super::escaped("Ada Ö&x.y"), "Ada%20%C3%96%26x.y");
    }
}
