//! Signing in as a device: its identity key answers the appliance's challenge, and what else the policy asks for, a person
//! gives. Nothing is answered that is not the pinned appliance's challenge for this very connection.

use super::calls::refusal;
use super::{ConnectionError, Request, Transport};
use crate::error::ClientError;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, PoisonError};
use zixt_api::endpoints::{self, fill};
use zixt_api::{
    Bytes64, FactorKind, Hex, Method, Secret, SignInBegun, SignInProof, SignInRequest, SignInStep,
};
use zixt_crypto::SigningKey;
use zixt_identity::{Challenge, Channel, DeviceProof};
use zixt_types::{ApplianceId, Canonical as _, Hash, Member};

/// Longest answer of a sign-in.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Proofs that one sign-in takes; the appliance's policy allows fewer.
const PROOFS_MAX: usize = 8;

/// Gives the further factors that a sign-in asks for: a face asks its person.
pub trait Factors: Send + Sync {
    /// A proof of one of these kinds; `None` if the person gives up. `challenge` is what a pre-shared key answers.
    fn give<'a>(
        &'a self,
        factors: &'a [FactorKind],
        challenge: &'a Challenge,
        member: Member,
    ) -> BoxFuture<'a, Option<SignInProof>>;
}

/// The sign-in of one device at one appliance, and the session that it led to.
pub struct SignIn {
    genesis: Hash,
    appliance: Option<ApplianceId>,
    member: Member,
    identity: Arc<dyn SigningKey>,
    channel: Channel,
    token: Mutex<Option<Secret>>,
    factors: Mutex<Option<Arc<dyn Factors>>>,
    /// One sign-in at a time.
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for SignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignIn").field("member", &self.member).finish_non_exhaustive()
    }
}

impl SignIn {
    /// For a device with this identity key, whose connections prove the TLS key of this hash. `appliance` is who holds
    /// the pinned key; without one, nothing is ever answered.
    #[must_use]
    pub fn new(
        genesis: Hash,
        appliance: Option<ApplianceId>,
        member: Member,
        identity: Arc<dyn SigningKey>,
        tls: Hash,
    ) -> Self {
        Self {
            genesis,
            appliance,
            member,
            identity,
            channel: Channel::ClientKey(tls),
            token: Mutex::new(None),
            factors: Mutex::new(None),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Says who gives further factors.
    pub fn ask(&self, factors: Arc<dyn Factors>) {
        *self.factors.lock().unwrap_or_else(PoisonError::into_inner) = Some(factors);
    }

    /// The token of the present session.
    pub(crate) fn token(&self) -> Option<Secret> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The session goes on under another token.
    pub(crate) fn renew(&self, token: Option<Secret>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Another session in the place of the one of `shown`, which is over.
    pub(super) async fn again(
        &self,
        transport: &dyn Transport,
        shown: Option<&Secret>,
    ) -> Result<Secret, ClientError> {
        let _turn = self.turn.lock().await;
        // Somebody else has signed in meanwhile.
        if let Some(token) = self.token().filter(|token| Some(token) != shown) {
            return Ok(token);
        }
        self.renew(None);
        let token = self.sign_in(transport).await?;
        self.renew(Some(token.clone()));
        Ok(token)
    }

    async fn sign_in(&self, transport: &dyn Transport) -> Result<Secret, ClientError> {
        let request = SignInRequest { account: Some(Hex(self.member.account)), name: None, directory: None };
        let begun: SignInBegun = post(transport, endpoints::SIGN_IN.to_owned(), &request).await?;
        let protocol = |error: &dyn std::fmt::Display| ConnectionError::Protocol(error.to_string());
        let challenge = Challenge::parse(&begun.challenge.0).map_err(|error| protocol(&error))?;
        let appliance = self.appliance.ok_or_else(|| {
            ClientError::Crypto("the pinned key is no appliance's of this network".to_owned())
        })?;
        challenge
            .check_for(&self.genesis, &appliance, &self.channel.binding())
            .map_err(|error| ClientError::Relayed(error.to_string()))?;
        let (identity, member, asked) = (Arc::clone(&self.identity), self.member, challenge.clone());
        let proof = tokio::task::spawn_blocking(move || {
            DeviceProof::sign(&*identity, &asked, member.account, member.device)
        });
        let proof = proof.await.map_err(|error| protocol(&error))?;
        let proof = proof.map_err(|error| ClientError::Crypto(error.to_string()))?;
        let path = fill(endpoints::SIGN_IN_PROOF, &[&begun.sign_in]);
        let mut proof = SignInProof::DeviceKey { proof: Bytes64(proof.to_bytes()) };
        for _ in 0..PROOFS_MAX {
            match post(transport, path.clone(), &proof).await? {
                SignInStep::Done { token, .. } => return Ok(token),
                SignInStep::Need { factors, .. } => {
                    let asks = self.factors.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let given = match asks {
                        Some(asks) => asks.give(&factors, &challenge, self.member).await,
                        None => None,
                    };
                    proof = given.ok_or(ClientError::MoreFactors(factors))?;
                }
            }
        }
        Err(ConnectionError::Protocol("the sign-in does not end".to_owned()).into())
    }
}

async fn post<T: DeserializeOwned>(
    transport: &dyn Transport,
    path: String,
    body: &impl Serialize,
) -> Result<T, ClientError> {
    let protocol = |error: serde_json::Error| ConnectionError::Protocol(error.to_string());
    let body = serde_json::to_vec(body).map_err(protocol)?;
    let request = Request {
        method: Method::Post,
        path,
        body: Some(body),
        answer_bytes_max: ANSWER_BYTES_MAX,
        token: None,
    };
    let response = transport.request(request).await?;
    if response.status != 200 {
        return Err(refusal(&response));
    }
    Ok(serde_json::from_slice(&response.body).map_err(protocol)?)
}
