//! Taking a TPM into use, and giving it back.

use crate::dictionary::{DictionaryParameters, DictionaryState, PinTry};
use crate::error::{TpmError, of, unexpected};
use crate::link::{
    Link, PERMANENT_ENDORSEMENT_AUTH_SET, PERMANENT_LOCKOUT_AUTH_SET, PERMANENT_OWNER_AUTH_SET, Srk, hashing,
    properties, with_object,
};
use crate::owner::Tpm;
use crate::raw;
use tss_esapi::Context;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::handles::{AuthHandle, ObjectHandle, PcrHandle, PersistentTpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, Digest, DigestValues, EccPoint, EccScheme, KeyDerivationFunctionScheme, Public, PublicBuilder,
    PublicEccParametersBuilder, PublicParameters, SymmetricDefinitionObject,
};
use zeroize::Zeroizing;
use zixt_measured::{PCR_BYTES, PcrSelection, PcrValues, Profile};

/// Where the storage key is kept: in the owner's range, away from the handles that other software takes.
pub const SRK_HANDLE_DEFAULT: u32 = 0x8100_5A01;

/// Bytes of an authorisation of a hierarchy.
pub const AUTH_BYTES: usize = 32;

/// The authorisation of one of the TPM's hierarchies: random, handed out once, kept offline by officers.
#[derive(Clone)]
pub struct HierarchyAuth(Box<Zeroizing<[u8; AUTH_BYTES]>>);

impl HierarchyAuth {
    /// From bytes that were kept.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; AUTH_BYTES]) -> Self {
        let mut auth = Self(Box::default());
        auth.0.copy_from_slice(bytes);
        auth
    }

    /// The bytes, to be kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; AUTH_BYTES] {
        &self.0
    }

    fn generate() -> Result<Self, TpmError> {
        let mut auth = Self(Box::default());
        fill_auth(&mut auth.0[..])?;
        Ok(auth)
    }

    pub(crate) fn auth(&self) -> Result<Auth, TpmError> {
        Auth::try_from(&self.0[..]).map_err(unexpected("take an authorisation of 32 bytes"))
    }
}

impl std::fmt::Debug for HierarchyAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HierarchyAuth(redacted)")
    }
}

/// Random bytes that do not end in zero: a TPM cuts trailing zeros off, and the software stack of Debian 12 does not.
pub(crate) fn fill_auth(auth: &mut [u8]) -> Result<(), TpmError> {
    loop {
        zixt_crypto::fill_random(auth)?;
        if auth.last() != Some(&0) {
            return Ok(());
        }
    }
}

/// Choices of [`Tpm::provision`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvisionOptions {
    /// Where the storage key is kept.
    pub srk_handle: u32,
    /// The dictionary-attack defence.
    pub dictionary: DictionaryParameters,
    /// The algorithms; the strongest that the TPM has if none.
    pub profile: Option<Profile>,
}

impl Default for ProvisionOptions {
    fn default() -> Self {
        Self { srk_handle: SRK_HANDLE_DEFAULT, dictionary: DictionaryParameters::default(), profile: None }
    }
}

/// What a newly provisioned TPM is known by, and the authorisations that exist nowhere else.
#[derive(Debug)]
pub struct Provisioned {
    /// The pin of the storage key.
    pub srk: Srk,
    /// Of the owner hierarchy: makes counters, removes keys.
    pub owner: HierarchyAuth,
    /// Of the endorsement hierarchy: proves which TPM an attestation key belongs to.
    pub endorsement: HierarchyAuth,
    /// Of the lockout: ends a lockout, clears the TPM.
    pub lockout: HierarchyAuth,
}

/// What the TPM says it is. Not authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmInfo {
    /// Vendor id (`INTC`, `IFX`, `IBM`).
    pub manufacturer: String,
    /// Vendor's name of the model.
    pub model: String,
    /// Firmware version, both halves.
    pub firmware: (u32, u32),
    /// A simulator: it protects nothing against whoever has the machine.
    pub software: bool,
    /// Owner, endorsement and lockout authorisation are all set.
    pub owned: bool,
}

impl Tpm {
    /// What the TPM says it is.
    ///
    /// # Errors
    /// [`TpmError::TpmAbsent`] and others.
    pub fn describe(&self) -> Result<TpmInfo, TpmError> {
        self.call(|owner| {
            let simulator = crate::link::is_simulator(&owner.tcti);
            describe(&mut owner.link()?.context, simulator)
        })
    }

    /// Takes the TPM into use: dictionary-attack parameters, storage key, all three authorisations. The TPM must be
    /// clear. This is where the storage key is trusted for the first time, so it is done in a safe room.
    ///
    /// If anything fails after the first change the TPM is cleared again.
    ///
    /// # Errors
    /// [`TpmError::AlreadyOwned`] and others.
    pub fn provision(&self, options: ProvisionOptions) -> Result<Provisioned, TpmError> {
        self.call(move |owner| {
            let parameters = options.dictionary;
            let link = owner.link()?;
            let taken = permanent(&mut link.context)?
                & (PERMANENT_OWNER_AUTH_SET | PERMANENT_ENDORSEMENT_AUTH_SET | PERMANENT_LOCKOUT_AUTH_SET);
            if taken != 0 {
                return Err(TpmError::AlreadyOwned {
                    what: format!("authorisations are set ({taken:#05b})"),
                });
            }
            let profile = best_profile(&mut link.context, options.profile)?;
            let lockout = HierarchyAuth::generate()?;
            owner.disconnect();
            raw::set_parameters(&owner.tcti, parameters)?;
            let link = owner.link()?;
            let srk = create_srk(&mut link.context, profile, options.srk_handle)?;
            let outcome = take_ownership(link, srk.clone(), lockout.clone(), parameters);
            if outcome.is_err() {
                // The authorisations are lost with this error. What was made so far is taken back.
                let cleared = take_back(link, &srk, &lockout);
                log::error!("provisioning the TPM failed; taken back: {cleared:?}");
            }
            outcome
        })
    }

    /// The state of the dictionary-attack defence, authenticated by the pinned storage key's session.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn dictionary(&self, srk: &Srk) -> Result<DictionaryState, TpmError> {
        let srk = srk.clone();
        self.call(move |owner| owner.link()?.salted(&srk, |context, session| session.dictionary(context)))
    }

    /// Forgives all wrong tries. A wrong authorisation locks this very function for the recovery time.
    ///
    /// # Errors
    /// [`TpmError::AuthIncorrect`], [`TpmError::Lockout`] and others.
    pub fn end_lockout(&self, srk: &Srk, lockout: &HierarchyAuth) -> Result<(), TpmError> {
        let (srk, auth) = (srk.clone(), lockout.auth()?);
        self.call(move |owner| {
            owner.disconnect();
            raw::reset(&owner.tcti, &srk, &auth)
        })
    }

    /// Clears the TPM: every key, counter and authorisation is gone, and with its storage seed everything that was ever
    /// sealed in it.
    ///
    /// # Errors
    /// [`TpmError::AuthIncorrect`] and others.
    pub fn release(&self, srk: &Srk, lockout: &HierarchyAuth) -> Result<(), TpmError> {
        let (srk, lockout) = (srk.clone(), lockout.clone());
        self.call(move |owner| {
            let outcome = clear(owner.link()?, &srk, &lockout);
            owner.disconnect();
            outcome
        })
    }

    /// The values of registers in the SHA-256 bank. Not authenticated: a policy or a quote is.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn pcrs(&self, selection: PcrSelection) -> Result<PcrValues, TpmError> {
        self.call(move |owner| owner.link()?.pcrs(selection))
    }

    /// Measures a digest into a register of the SHA-256 bank.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn extend(&self, index: u8, digest: [u8; PCR_BYTES]) -> Result<(), TpmError> {
        self.call(move |owner| {
            let handle = PcrHandle::try_from(u32::from(index)).map_err(unexpected("extend this register"))?;
            let digest = Digest::try_from(&digest[..]).map_err(unexpected("extend by 32 bytes"))?;
            let mut values = DigestValues::new();
            values.set(HashingAlgorithm::Sha256, digest);
            let context = &mut owner.link()?.context;
            // Registers have no authorisation, so the password is empty and no secret.
            context
                .execute_with_session(Some(AuthSession::Password), |context| {
                    context.pcr_extend(handle, values)
                })
                .map_err(of("PCR_Extend"))
        })
    }
}

/// TPMA_PERMANENT, unauthenticated.
fn permanent(context: &mut Context) -> Result<u32, TpmError> {
    let found = property(context, PropertyTag::Permanent)?;
    found.ok_or_else(|| TpmError::Unsupported { what: "report its permanent attributes".to_owned() })
}

fn property(context: &mut Context, tag: PropertyTag) -> Result<Option<u32>, TpmError> {
    let (found, _) = context
        .execute_without_session(|context| {
            context.get_capability(CapabilityType::TpmProperties, tag.into(), 1)
        })
        .map_err(of("GetCapability"))?;
    Ok(properties(found)?.into_iter().find(|(found, _)| *found == tag).map(|(_, value)| value))
}

fn describe(context: &mut Context, simulator: bool) -> Result<TpmInfo, TpmError> {
    let mut text = |tags: &[PropertyTag]| -> Result<String, TpmError> {
        let mut text = String::new();
        for tag in tags {
            let bytes = property(context, *tag)?.unwrap_or(0).to_be_bytes();
            text.extend(
                bytes.iter().filter(|byte| byte.is_ascii_graphic() || **byte == b' ').map(|b| char::from(*b)),
            );
        }
        Ok(text.trim().to_owned())
    };
    let manufacturer = text(&[PropertyTag::Manufacturer])?;
    let model = text(&[
        PropertyTag::VendorString1,
        PropertyTag::VendorString2,
        PropertyTag::VendorString3,
        PropertyTag::VendorString4,
    ])?;
    let firmware = (
        property(context, PropertyTag::FirmwareVersion1)?.unwrap_or(0),
        property(context, PropertyTag::FirmwareVersion2)?.unwrap_or(0),
    );
    let all = PERMANENT_OWNER_AUTH_SET | PERMANENT_ENDORSEMENT_AUTH_SET | PERMANENT_LOCKOUT_AUTH_SET;
    let owned = permanent(context)? & all == all;
    // libtpms and the reference simulator call themselves software behind whatever device they stand.
    let software = simulator || manufacturer == "IBM" || model.starts_with("SW");
    Ok(TpmInfo { manufacturer, model, firmware, software, owned })
}

/// P-384 with SHA-384 and AES-256 where the TPM has all three, unless one is wanted.
fn best_profile(context: &mut Context, wanted: Option<Profile>) -> Result<Profile, TpmError> {
    let candidates = wanted.map_or(vec![Profile::P384, Profile::P256], |wanted| vec![wanted]);
    for profile in candidates {
        let parameters = PublicParameters::Ecc(
            PublicEccParametersBuilder::new_restricted_decryption_key(
                storage_cipher(profile),
                curve(profile),
            )
            .build()
            .map_err(unexpected("take a storage key's parameters"))?,
        );
        if context.execute_without_session(|context| context.test_parms(parameters)).is_ok() {
            return Ok(profile);
        }
    }
    Err(TpmError::Unsupported { what: "make a storage key on P-384 or P-256".to_owned() })
}

fn storage_cipher(profile: Profile) -> SymmetricDefinitionObject {
    match profile {
        Profile::P384 => SymmetricDefinitionObject::AES_256_CFB,
        Profile::P256 => SymmetricDefinitionObject::AES_128_CFB,
    }
}

pub(crate) fn curve(profile: Profile) -> EccCurve {
    match profile {
        Profile::P384 => EccCurve::NistP384,
        Profile::P256 => EccCurve::NistP256,
    }
}

/// The storage key: restricted, for decryption, from the owner's seed. Not subject to the dictionary-attack defence,
/// because its authorisation is empty: sessions must start in a lockout, if only to say so.
fn srk_template(profile: Profile) -> Result<Public, TpmError> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()
        .map_err(unexpected("take a storage key's attributes"))?;
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(storage_cipher(profile))
        .with_ecc_scheme(EccScheme::Null)
        .with_curve(curve(profile))
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_decryption_key(true)
        .with_restricted(true)
        .build()
        .map_err(unexpected("take a storage key's parameters"))?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(hashing(profile))
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .map_err(unexpected("take a storage key's template"))
}

/// Makes the storage key and persists it. The owner's authorisation is still empty, so a password session gives nothing
/// away.
fn create_srk(context: &mut Context, profile: Profile, handle: u32) -> Result<Srk, TpmError> {
    let template = srk_template(profile)?;
    let persistent = PersistentTpmHandle::new(handle).map_err(unexpected("persist a key at this handle"))?;
    let password = Some(AuthSession::Password);
    let made = context
        .execute_with_session(password, |context| {
            context.create_primary(Hierarchy::Owner, template, None, None, None, None)
        })
        .map_err(of("CreatePrimary"))?;
    with_object(context, made.key_handle, |context| {
        let object = ObjectHandle::from(made.key_handle);
        let name = context.tr_get_name(object).map_err(of("Name"))?.value().to_vec();
        let mut kept = context
            .execute_with_session(password, |context| {
                context.evict_control(Provision::Owner, object, Persistent::Persistent(persistent))
            })
            .map_err(|error| match crate::error::kind(error) {
                Some(tss_esapi::constants::response_code::Tss2ResponseCodeKind::NvDefined) => {
                    TpmError::AlreadyOwned { what: format!("a key is at {handle:#010x}") }
                }
                _ => of("EvictControl")(error),
            })?;
        context.tr_close(&mut kept).map_err(of("close"))?;
        Ok(Srk { profile, handle, name })
    })
}

/// Sets the authorisations through a session that is salted to the new storage key, lockout's last: until then an
/// empty one can take everything back.
fn take_ownership(
    link: &mut Link,
    srk: Srk,
    lockout: HierarchyAuth,
    parameters: DictionaryParameters,
) -> Result<Provisioned, TpmError> {
    let (owner, endorsement) = (HierarchyAuth::generate()?, HierarchyAuth::generate()?);
    link.salted(&srk, |context, session| {
        let hierarchies = [
            (AuthHandle::Endorsement, &endorsement),
            (AuthHandle::Owner, &owner),
            (AuthHandle::Lockout, &lockout),
        ];
        for (handle, auth) in hierarchies {
            let auth = auth.auth()?;
            session
                .run(context, |context| context.hierarchy_change_auth(handle, auth))
                .map_err(of("HierarchyChangeAuth"))?;
        }
        let state = session.dictionary(context)?;
        if state.parameters != parameters || !state.lockout_auth_set {
            return Err(TpmError::Unsupported { what: "keep its dictionary-attack parameters".to_owned() });
        }
        // A TPM in which tries are missing already would surprise the first person who unlocks.
        state.judge(PinTry::Unattended)
    })?;
    Ok(Provisioned { srk, owner, endorsement, lockout })
}

/// Clears the TPM by the lockout authorisation.
fn clear(link: &mut Link, srk: &Srk, lockout: &HierarchyAuth) -> Result<(), TpmError> {
    link.salted_as(srk, ObjectHandle::Lockout, lockout.auth()?, |context, session| {
        session.run(context, |context| context.clear(AuthHandle::Lockout)).map_err(of("Clear"))
    })
}

/// Clears a TPM whose lockout authorisation is `lockout` or, before that was set, still empty. Which of them is asked for
/// first: a wrong one would lock itself out.
fn take_back(link: &mut Link, srk: &Srk, lockout: &HierarchyAuth) -> Result<(), TpmError> {
    if permanent(&mut link.context)? & PERMANENT_LOCKOUT_AUTH_SET != 0 {
        return clear(link, srk, lockout);
    }
    link.context
        .execute_with_session(Some(AuthSession::Password), |context| context.clear(AuthHandle::Lockout))
        .map_err(of("Clear"))
}
