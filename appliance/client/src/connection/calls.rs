//! The calls of the API, typed.

use super::{ConnectionError, Lines, Opened, Request, Response, SignIn, Transport};
use crate::error::ClientError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::sync::Arc;
use zixt_api::endpoints::{self, fill};
use zixt_api::{
    AccountName, AccountView, CertifiedHeader, ClaimRequest, ClaimResponse, Consistency, EnrolRequest,
    EntryPage, EntryProof, ErrorCode, KeyPackageCounts, KeyPackageUpload, Method, Network, Problem, Receipt,
    SubmitRequest, SubmitResponse, SystemView, ThreadView,
};
use zixt_types::{AccountId, Height, Seq, ShardState, ThreadId, limits};

/// Longest JSON answer: an account with all its devices, a page of entries, key packages for a large group.
const JSON_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Longest answer that holds headers and proofs only.
const PROOF_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The calls of one appliance's API, as one device, which signs in when it is asked to.
#[derive(Clone)]
pub struct Api {
    transport: Arc<dyn Transport>,
    sign_in: Option<Arc<SignIn>>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

impl Api {
    /// The calls over a transport, of somebody without a device.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, sign_in: None }
    }

    /// The calls of a device.
    #[must_use]
    pub fn of_device(transport: Arc<dyn Transport>, sign_in: Arc<SignIn>) -> Self {
        Self { transport, sign_in: Some(sign_in) }
    }

    /// The sign-in of the device.
    pub(crate) fn sign_in(&self) -> Option<&Arc<SignIn>> {
        self.sign_in.as_ref()
    }

    /// Sends a request in the present session. If there is none, or it has ended, signs in and sends it once more.
    async fn send(&self, mut request: Request) -> Result<Response, ClientError> {
        let Some(sign_in) = &self.sign_in else { return Ok(self.transport.request(request).await?) };
        let shown = sign_in.token();
        request.token.clone_from(&shown);
        let response = self.transport.request(request.clone()).await?;
        if !needs_sign_in(&response) {
            return Ok(response);
        }
        request.token = Some(sign_in.again(&*self.transport, shown.as_ref()).await?);
        Ok(self.transport.request(request).await?)
    }

    /// A call that a face makes by itself: of the caller's own access, or of others' accounts.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        self.call(Request { method, path, body, answer_bytes_max: JSON_BYTES_MAX, token: None }).await
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
            token: None,
        };
        let response = self.send(request).await?;
        if response.status == 200 { Ok(response.body) } else { Err(refusal(&response)) }
    }

    pub(crate) async fn stream(&self, after: u64) -> Result<Box<dyn Lines>, ClientError> {
        let shown = self.sign_in.as_ref().and_then(|sign_in| sign_in.token());
        let mut opened = self.transport.stream(after, shown.clone()).await?;
        if let (Opened::Refused(response), Some(sign_in)) = (&opened, &self.sign_in)
            && needs_sign_in(response)
        {
            let token = sign_in.again(&*self.transport, shown.as_ref()).await?;
            opened = self.transport.stream(after, Some(token)).await?;
        }
        match opened {
            Opened::Stream(lines) => Ok(lines),
            Opened::Refused(response) => Err(refusal(&response)),
        }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: String,
        answer_bytes_max: usize,
    ) -> Result<T, ClientError> {
        self.call(Request { method: Method::Get, path, body: None, answer_bytes_max, token: None }).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: String,
        body: &impl Serialize,
        answer_bytes_max: usize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ConnectionError::Protocol(error.to_string()))?;
        self.call(Request { method: Method::Post, path, body: Some(body), answer_bytes_max, token: None })
            .await
    }

    async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        if response.status != 200 {
            return Err(refusal(&response));
        }
        let answer = serde_json::from_slice(&response.body)
            .map_err(|error| ConnectionError::Protocol(error.to_string()))?;
        Ok(answer)
    }
}

/// Whether the appliance asks for a sign-in before anything else.
fn needs_sign_in(response: &Response) -> bool {
    response.status == 401
        && serde_json::from_slice::<Problem>(&response.body)
            .is_ok_and(|problem| problem.code == ErrorCode::SignInNeeded)
}

pub(super) fn refusal(response: &Response) -> ClientError {
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
