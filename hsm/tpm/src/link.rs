//! One connection to the TPM and the sessions on it. Everything secret goes through sessions that are salted to the
//! pinned storage key and encrypt the first parameter both ways; there is no other way to send a secret in this crate.

use crate::dictionary::{DictionaryParameters, DictionaryState};
use crate::error::{self, TpmError, hex, of, unexpected};
use minicbor::{Decode, Encode};
use tss_esapi::Context;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::constants::{CapabilityType, PropertyTag, SessionType};
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, SessionHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Auth, CapabilityData, PcrSelectionList, PcrSelectionListBuilder, PcrSlot, SymmetricDefinition,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use zixt_measured::{PCR_BYTES, Pcr, PcrSelection, PcrValues, Profile};

/// Registers that one PCR_Read returns (TPM 2.0 Library, Part 2: TPML_DIGEST holds 8).
const PCR_READ_MAX: usize = 8;
/// Times that a read of registers is begun again because one changed in between.
const PCR_READ_TRIES: usize = 3;
/// Properties asked for from TPM_PT_PERMANENT on: the whole group of variable ones.
const VARIABLE_PROPERTIES: u32 = 32;

/// First handles of what a client leaves behind (TPM 2.0 Library, Part 2, Section 7.2).
const TRANSIENT_FIRST: u32 = 0x8000_0000;
const LOADED_SESSION_FIRST: u32 = 0x0200_0000;
const SAVED_SESSION_FIRST: u32 = 0x0300_0000;
/// Handles of one kind that are asked for: more than any TPM has slots.
const LEFTOVERS_MAX: u32 = 64;

/// The pin of the storage root key, under which everything is sealed and to which every session is salted. Kept by the
/// caller where nobody else writes: whoever can exchange it can put another key in the TPM's place. Custody keeps it in its
/// state file, which nothing authenticates before the root is open; decision 0010 says what that leaves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Srk {
    /// Its algorithms.
    #[n(0)]
    pub profile: Profile,
    /// Its persistent handle.
    #[n(1)]
    pub handle: u32,
    /// Its Name: the hash of its public area (TPM 2.0 Library, Part 1, Section 16).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub name: Vec<u8>,
}

impl Srk {
    pub(crate) fn session_cipher(&self) -> SymmetricDefinition {
        match self.profile {
            Profile::P384 => SymmetricDefinition::AES_256_CFB,
            Profile::P256 => SymmetricDefinition::AES_128_CFB,
        }
    }
}

pub(crate) fn hashing(profile: Profile) -> HashingAlgorithm {
    match profile {
        Profile::P384 => HashingAlgorithm::Sha384,
        Profile::P256 => HashingAlgorithm::Sha256,
    }
}

/// An open connection.
pub(crate) struct Link {
    pub(crate) context: Context,
    /// The storage key that was found and compared with its pin.
    srk: Option<(Srk, KeyHandle)>,
}

impl Link {
    /// Connects. On a simulator, which serves one program only, also frees what a client left behind that ended without
    /// cleaning up; the kernel's resource manager does that by itself.
    pub(crate) fn open(tcti: &str) -> Result<Self, TpmError> {
        let absent = |why: String| TpmError::TpmAbsent { tcti: tcti.to_owned(), why };
        let name = tcti.parse::<TctiNameConf>().map_err(|_| absent("it is no TCTI".to_owned()))?;
        let context = Context::new(name).map_err(|error| match of("connect")(error) {
            TpmError::TpmAbsent { why, .. } => absent(why),
            error => absent(error.to_string()),
        })?;
        let mut link = Self { context, srk: None };
        if is_simulator(tcti) {
            link.free_leftovers()?;
        }
        Ok(link)
    }

    fn free_leftovers(&mut self) -> Result<(), TpmError> {
        for first in [TRANSIENT_FIRST, LOADED_SESSION_FIRST, SAVED_SESSION_FIRST] {
            let (found, _) = self
                .context
                .get_capability(CapabilityType::Handles, first, LEFTOVERS_MAX)
                .map_err(of("GetCapability"))?;
            let CapabilityData::Handles(handles) = found else { continue };
            for handle in handles.into_inner() {
                log::warn!("the TPM still holds {handle:?} of a client that is gone; it is flushed");
                // The wrapper flushes and then complains about policy sessions, which it does not expect here.
                if let Ok(object) = self.context.tr_from_tpm_public(handle) {
                    let _ = self.context.flush_context(object);
                }
            }
        }
        Ok(())
    }

    /// The storage key, if its Name is the pinned one. The Name is computed here from the public area that sessions will
    /// be salted with: what the TPM says the Name is counts for nothing.
    pub(crate) fn srk(&mut self, srk: &Srk) -> Result<KeyHandle, TpmError> {
        if let Some((known, handle)) = &self.srk
            && known == srk
        {
            return Ok(*handle);
        }
        let persistent =
            PersistentTpmHandle::new(srk.handle).map_err(|_| TpmError::SrkMissing { handle: srk.handle })?;
        let object = self.context.tr_from_tpm_public(TpmHandle::Persistent(persistent)).map_err(|error| {
            match error::kind(error) {
                Some(Kind::Handle | Kind::ReferenceH0) => TpmError::SrkMissing { handle: srk.handle },
                _ => of("ReadPublic")(error),
            }
        })?;
        let found = self.context.tr_get_name(object).map_err(of("Name"))?;
        if found.value() != srk.name {
            return Err(TpmError::SrkChanged { expected: hex(&srk.name), found: hex(found.value()) });
        }
        self.srk = Some((srk.clone(), object.into()));
        Ok(object.into())
    }

    /// Runs in a salted HMAC session and ends it.
    pub(crate) fn salted<T>(
        &mut self,
        srk: &Srk,
        run: impl FnOnce(&mut Context, Salted) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let key = self.srk(srk)?;
        let session = start(&mut self.context, srk, key, SessionType::Hmac)?;
        let outcome = run(&mut self.context, Salted { srk: key, session });
        end(&mut self.context, session, outcome)
    }

    /// [`Link::salted`] with the authorisation of a hierarchy known to the connection, which forgets it afterwards.
    pub(crate) fn salted_as<T>(
        &mut self,
        srk: &Srk,
        hierarchy: ObjectHandle,
        auth: Auth,
        run: impl FnOnce(&mut Context, Salted) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        self.context.tr_set_auth(hierarchy, auth).map_err(of("SetAuth"))?;
        let outcome = self.salted(srk, run);
        self.context.tr_set_auth(hierarchy, Auth::default()).map_err(of("SetAuth"))?;
        outcome
    }

    /// The registers' values. Read without authentication: policies and quotes are what counts.
    pub(crate) fn pcrs(&mut self, selection: PcrSelection) -> Result<PcrValues, TpmError> {
        let indices: Vec<u8> = selection.indices().collect();
        for _ in 0..PCR_READ_TRIES {
            let (mut pcrs, mut counters) = (Vec::new(), Vec::new());
            for chunk in indices.chunks(PCR_READ_MAX) {
                let list = selection_list(chunk)?;
                let (counter, _, digests) = self.context.pcr_read(list).map_err(of("PCR_Read"))?;
                counters.push(counter);
                let values = digests.value().iter().map(|digest| <[u8; PCR_BYTES]>::try_from(digest.value()));
                for (index, value) in chunk.iter().zip(values) {
                    let value = value.map_err(|_| no_bank())?;
                    pcrs.push(Pcr { index: *index, value });
                }
            }
            if pcrs.len() != indices.len() {
                return Err(no_bank());
            }
            if counters.windows(2).all(|pair| pair[0] == pair[1]) {
                return PcrValues::new(pcrs).map_err(|_| no_bank());
            }
        }
        Err(TpmError::Unsupported { what: "give its registers a quiet moment to be read".to_owned() })
    }
}

fn no_bank() -> TpmError {
    TpmError::Unsupported { what: "read these registers in a SHA-256 bank".to_owned() }
}

/// Whether the TCTI is a simulator's. It manages no resources and must not be shared: whoever connects anew frees what
/// looks left behind.
pub(crate) fn is_simulator(tcti: &str) -> bool {
    ["swtpm", "mssim"].iter().any(|name| tcti == *name || tcti.starts_with(&format!("{name}:")))
}

/// A salted HMAC session.
#[derive(Clone, Copy)]
pub(crate) struct Salted {
    pub(crate) srk: KeyHandle,
    session: AuthSession,
}

impl Salted {
    /// Authorises a command and encrypts its first parameter and that of the answer, where it has one.
    pub(crate) fn run<T>(
        self,
        context: &mut Context,
        run: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        set_attributes(context, self.session, true)?;
        context.execute_with_session(Some(self.session), run)
    }

    /// [`Salted::run`] for a command that takes a second authorisation.
    pub(crate) fn run_with<T>(
        self,
        context: &mut Context,
        second: AuthSession,
        run: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        set_attributes(context, self.session, true)?;
        context.execute_with_sessions((Some(self.session), Some(second), None), run)
    }

    /// Authenticates the answer of a command that needs no authorisation.
    pub(crate) fn audited<T>(
        self,
        context: &mut Context,
        run: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        set_attributes(context, self.session, false)?;
        context.execute_with_session(Some(self.session), run)
    }

    /// The state of the dictionary-attack defence, authenticated: a wire that lies about the tries left could burn them.
    pub(crate) fn dictionary(self, context: &mut Context) -> Result<DictionaryState, TpmError> {
        let properties = self.permanent(context)?;
        let number = |tag| properties.iter().find(|(found, _)| *found == tag).map(|(_, value)| *value);
        let need = |tag| number(tag).ok_or_else(|| TpmError::Unsupported { what: format!("report {tag:?}") });
        let permanent = need(PropertyTag::Permanent)?;
        Ok(DictionaryState {
            in_lockout: permanent & PERMANENT_IN_LOCKOUT != 0,
            failed: need(PropertyTag::LockoutCounter)?,
            parameters: DictionaryParameters {
                tries_max: need(PropertyTag::MaxAuthFail)?,
                interval_s: need(PropertyTag::LockoutInterval)?,
                recovery_s: need(PropertyTag::LockoutRecovery)?,
            },
            lockout_auth_set: permanent & PERMANENT_LOCKOUT_AUTH_SET != 0,
        })
    }

    fn permanent(self, context: &mut Context) -> Result<Vec<(PropertyTag, u32)>, TpmError> {
        let property = u32::from(PropertyTag::Permanent);
        let (found, _) = self
            .audited(context, |context| {
                context.get_capability(CapabilityType::TpmProperties, property, VARIABLE_PROPERTIES)
            })
            .map_err(of("GetCapability"))?;
        properties(found)
    }
}

/// TPMA_PERMANENT (TPM 2.0 Library, Part 2, Section 8.6).
pub(crate) const PERMANENT_OWNER_AUTH_SET: u32 = 1;
pub(crate) const PERMANENT_ENDORSEMENT_AUTH_SET: u32 = 1 << 1;
pub(crate) const PERMANENT_LOCKOUT_AUTH_SET: u32 = 1 << 2;
const PERMANENT_IN_LOCKOUT: u32 = 1 << 9;

pub(crate) fn properties(data: CapabilityData) -> Result<Vec<(PropertyTag, u32)>, TpmError> {
    match data {
        CapabilityData::TpmProperties(list) => {
            Ok(list.into_iter().map(|tagged| (tagged.property(), tagged.value())).collect())
        }
        _ => Err(TpmError::Unsupported { what: "report its properties".to_owned() }),
    }
}

/// Runs in a salted policy session and ends it.
pub(crate) fn with_policy<T>(
    context: &mut Context,
    srk: &Srk,
    key: KeyHandle,
    run: impl FnOnce(&mut Context, PolicySession, AuthSession) -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let session = start(context, srk, key, SessionType::Policy)?;
    let outcome = set_attributes(context, session, true)
        .and_then(|()| PolicySession::try_from(session))
        .map_err(of("policy session"))
        .and_then(|policy| run(context, policy, session));
    end(context, session, outcome)
}

fn start(
    context: &mut Context,
    srk: &Srk,
    key: KeyHandle,
    session_type: SessionType,
) -> Result<AuthSession, TpmError> {
    let cipher = srk.session_cipher();
    context
        .execute_without_session(|context| {
            context.start_auth_session(Some(key), None, None, session_type, cipher, hashing(srk.profile))
        })
        .map_err(of("StartAuthSession"))?
        .ok_or(TpmError::NoSessionSlots)
}

/// Makes a session only authorise: of several in one command only one may encrypt.
pub(crate) fn only_authorise(context: &mut Context, session: AuthSession) -> tss_esapi::Result<()> {
    let (attributes, mask) = SessionAttributesBuilder::new().with_decrypt(false).with_encrypt(false).build();
    context.tr_sess_set_attributes(session, attributes, mask)
}

fn set_attributes(context: &mut Context, session: AuthSession, encrypts: bool) -> tss_esapi::Result<()> {
    let (attributes, mask) = SessionAttributesBuilder::new()
        .with_continue_session(true)
        .with_decrypt(encrypts)
        .with_encrypt(encrypts)
        .with_audit(!encrypts)
        .build();
    context.tr_sess_set_attributes(session, attributes, mask)
}

/// Ends a session, whatever came of what ran in it.
fn end<T>(context: &mut Context, session: AuthSession, outcome: Result<T, TpmError>) -> Result<T, TpmError> {
    let flushed = context.flush_context(SessionHandle::from(session).into()).map_err(of("FlushContext"));
    let value = outcome?;
    flushed.map(|()| value)
}

/// Runs with a transient object and flushes it, whatever came of that.
pub(crate) fn with_object<T>(
    context: &mut Context,
    object: KeyHandle,
    run: impl FnOnce(&mut Context) -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let outcome = run(context);
    let flushed = context.flush_context(ObjectHandle::from(object)).map_err(of("FlushContext"));
    let value = outcome?;
    flushed.map(|()| value)
}

/// The wrapper's form of registers of the SHA-256 bank.
pub(crate) fn selection_list(indices: &[u8]) -> Result<PcrSelectionList, TpmError> {
    let slots: Result<Vec<PcrSlot>, _> =
        indices.iter().map(|index| PcrSlot::try_from(1u32 << (index & 31))).collect();
    let slots = slots.map_err(unexpected("select registers"))?;
    PcrSelectionListBuilder::new()
        .with_selection(HashingAlgorithm::Sha256, &slots)
        .build()
        .map_err(unexpected("select registers"))
}
