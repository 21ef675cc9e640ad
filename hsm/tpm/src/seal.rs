//! Sealing a secret to register values and a PIN, and opening it.

use crate::dictionary::PinTry;
use crate::error::{self, TpmError, of, unexpected};
use crate::link::{Srk, hashing, selection_list, with_object, with_policy};
use crate::owner::{Owner, Tpm};
use minicbor::{Decode, Encode};
use tss_esapi::Context;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::handles::{KeyHandle, ObjectHandle};
use tss_esapi::interface_types::algorithm::PublicAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::PolicySession;
use tss_esapi::structures::{
    Auth, Digest, EccParameter, EccSignature, KeyedHashScheme, Name, Nonce, Private, Public, PublicBuilder,
    PublicKeyedHashParameters, SensitiveData, Signature,
};
use tss_esapi::traits::{Marshall, UnMarshall};
use zeroize::{Zeroize, Zeroizing};
use zixt_crypto::{hash, labels};
use zixt_measured::{
    Approval, ApprovalError, Binding, PcrSelection, PcrValues, PolicyKey, Profile, approval_digest,
    pcr_policy, sealing_policy,
};

/// Longest PIN, in bytes.
pub const PIN_BYTES_MAX: usize = 128;
/// Most bytes that a TPM seals (TPM 2.0 Library, Part 2: MAX_SYM_DATA).
pub const SECRET_BYTES_MAX: usize = 128;
/// Bytes of the salt that a PIN is hashed with.
const SALT_BYTES: usize = 16;
/// Bytes of an authorisation value: what the smallest name algorithm allows.
const AUTH_BYTES: usize = 32;
/// Most bytes of a sealed object's parts; real ones are below 350.
pub(crate) const PART_BYTES_MAX: usize = 1_024;

/// A secret that only one TPM opens, with these registers and this PIN.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Sealed {
    /// The registers.
    #[n(0)]
    pub selection: PcrSelection,
    /// Which of their values open it.
    #[n(1)]
    pub binding: Binding,
    #[cbor(n(2), with = "minicbor::bytes")]
    salt: [u8; SALT_BYTES],
    /// TPMT_PUBLIC of the sealed object.
    #[cbor(n(3), with = "minicbor::bytes")]
    public: Vec<u8>,
    /// TPM2B_PRIVATE without its length: encrypted by the storage key.
    #[cbor(n(4), with = "minicbor::bytes")]
    private: Vec<u8>,
}

impl Sealed {
    /// What a reader of foreign bytes has to check.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let parts = [&self.public, &self.private];
        if parts.iter().any(|part| part.is_empty() || part.len() > PART_BYTES_MAX) {
            return Err("a part of the sealed object is empty or too long");
        }
        let registers = match &self.binding {
            Binding::Fixed(values) => values.selection().ok(),
            Binding::Approved { key, .. } => key.is_valid().then_some(self.selection),
        };
        match registers {
            Some(registers) if registers == self.selection && registers.is_valid() => Ok(()),
            _ => Err("its binding is malformed"),
        }
    }
}

/// The authorisation value of a PIN. Hashed with a salt, so that equal PINs of two appliances are not equal values; not
/// stretched, because only the TPM can be asked and it counts.
fn pin_auth(salt: &[u8; SALT_BYTES], pin: &[u8]) -> Result<Auth, TpmError> {
    if pin.is_empty() || pin.len() > PIN_BYTES_MAX {
        return Err(TpmError::PinUnusable { got: pin.len(), max: PIN_BYTES_MAX });
    }
    let mut hash = hash::hmac_sha384(salt, labels::TPM_PIN, &[pin]);
    let mut auth = Zeroizing::new([0; AUTH_BYTES]);
    auth.copy_from_slice(&hash.0[..AUTH_BYTES]);
    hash.0.zeroize();
    // A TPM cuts trailing zeros off and the software stack of Debian 12 does not; the two must agree.
    if auth[AUTH_BYTES - 1] == 0 {
        auth[AUTH_BYTES - 1] = 1;
    }
    Auth::try_from(&auth[..]).map_err(unexpected("take an authorisation of 32 bytes"))
}

impl Tpm {
    /// Seals a secret of at most [`SECRET_BYTES_MAX`] bytes.
    ///
    /// With [`Binding::Fixed`] the values may be those of an image that was not started yet (see [`crate::predict`]):
    /// that is how a secret is sealed again before an update.
    ///
    /// # Errors
    /// [`TpmError::PcrsUnmeasured`], [`TpmError::PinUnusable`] and others.
    pub fn seal(
        &self,
        srk: &Srk,
        secret: &[u8],
        pin: &[u8],
        selection: PcrSelection,
        binding: Binding,
    ) -> Result<Sealed, TpmError> {
        if let Binding::Fixed(values) = &binding {
            if values.selection() != Ok(selection) {
                return Err(TpmError::Unsupported { what: "seal to values of other registers".to_owned() });
            }
            if values.unmeasured() {
                return Err(TpmError::PcrsUnmeasured { pcrs: selection.to_string() });
            }
        }
        if let Binding::Approved { key, .. } = &binding
            && key.profile() != srk.profile
        {
            return Err(TpmError::Unsupported { what: format!("take a policy key of {}", key.profile()) });
        }
        let mut salt = [0; SALT_BYTES];
        zixt_crypto::fill_random(&mut salt)?;
        let auth = pin_auth(&salt, pin)?;
        let secret = SensitiveData::try_from(secret).map_err(unexpected("seal so many bytes"))?;
        let public = template(srk.profile, &sealing_policy(srk.profile, selection, &binding))?;
        let srk = srk.clone();
        self.call(move |owner| {
            owner.link()?.salted(&srk, |context, session| {
                let made = session
                    .run(context, |context| {
                        context.create(session.srk, public, Some(auth), Some(secret), None, None)
                    })
                    .map_err(of("Create"))?;
                let public = made.out_public.marshall().map_err(of("public area"))?;
                let private = made.out_private.value().to_vec();
                Ok(Sealed { selection, binding, salt, public, private })
            })
        })
    }

    /// Opens what [`Tpm::seal`] made. Of the approvals the one that fits the registers is used, if the secret needs one.
    ///
    /// Reads the state of the dictionary-attack defence first and spends no try that should not be spent; a failure of
    /// the registers spends none either.
    ///
    /// # Errors
    /// [`TpmError::Lockout`], [`TpmError::LastTry`], [`TpmError::KeptForPeople`], [`TpmError::PinIncorrect`],
    /// [`TpmError::PcrMismatch`], [`TpmError::ApprovalRefused`], [`TpmError::SrkChanged`], [`TpmError::CorruptBlob`] and
    /// others.
    pub fn unseal(
        &self,
        srk: &Srk,
        sealed: &Sealed,
        approvals: &[Approval],
        pin: &[u8],
        pin_try: PinTry,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let auth = pin_auth(&sealed.salt, pin)?;
        let (srk, sealed, approvals) = (srk.clone(), sealed.clone(), approvals.to_vec());
        self.call(move |owner| unseal(owner, &srk, &sealed, &approvals, auth, pin_try))
    }
}

fn unseal(
    owner: &mut Owner,
    srk: &Srk,
    sealed: &Sealed,
    approvals: &[Approval],
    auth: Auth,
    pin_try: PinTry,
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let (public, private) = parts(srk.profile, sealed)?;
    let link = owner.link()?;
    link.srk(srk)?;
    let values = link.pcrs(sealed.selection)?;
    let approval = applicable(sealed, approvals, &values)?;
    link.salted(srk, |context, session| {
        let before = session.dictionary(context)?;
        before.judge(pin_try)?;
        let object =
            session.run(context, |context| context.load(session.srk, private, public)).map_err(|error| {
                match error::kind(error) {
                    // What the storage key did not make, or what was changed since.
                    Some(
                        Kind::Integrity
                        | Kind::Size
                        | Kind::Value
                        | Kind::Binding
                        | Kind::Type
                        | Kind::Insufficient
                        | Kind::Attributes
                        | Kind::Hash
                        | Kind::Scheme,
                    ) => {
                        TpmError::CorruptBlob { why: "the TPM did not make it, or it was changed".to_owned() }
                    }
                    _ => of("Load")(error),
                }
            })?;
        with_object(context, object, |context| {
            context.tr_set_auth(ObjectHandle::from(object), auth).map_err(of("SetAuth"))?;
            let opened = with_policy(context, srk, session.srk, |context, policy, auth_session| {
                satisfy(context, policy, srk.profile, sealed, approval, &values)?;
                context
                    .execute_with_session(Some(auth_session), |context| context.unseal(object.into()))
                    .map_err(|error| match error::kind(error) {
                        Some(Kind::AuthFail | Kind::BadAuth) => TpmError::PinIncorrect { tries_left: 0 },
                        Some(Kind::Lockout) => {
                            TpmError::Lockout { wait_s: before.parameters.interval_s.into() }
                        }
                        // A register changed since it was read.
                        Some(Kind::PolicyFail | Kind::PcrChanged) => {
                            TpmError::PcrMismatch { changed: sealed.selection.indices().collect() }
                        }
                        _ => of("Unseal")(error),
                    })
            });
            // Also when it succeeded: the library decrypts answers in the buffer that the next one overwrites.
            let after = session.dictionary(context);
            match opened {
                Err(TpmError::PinIncorrect { .. }) => {
                    Err(TpmError::PinIncorrect { tries_left: after?.tries_left() })
                }
                Err(error) => Err(error),
                Ok(opened) => after.map(|_| Zeroizing::new(opened.value().to_vec())),
            }
        })
    })
}

/// The sealed object's parts, if they are of the form that this crate makes.
fn parts(profile: Profile, sealed: &Sealed) -> Result<(Public, Private), TpmError> {
    let corrupt = |why: &str| TpmError::CorruptBlob { why: why.to_owned() };
    sealed.check().map_err(corrupt)?;
    let public = Public::unmarshall(&sealed.public).map_err(|_| corrupt("its public area is malformed"))?;
    let private =
        Private::try_from(&sealed.private[..]).map_err(|_| corrupt("its private area is too long"))?;
    // The policy says whose approvals count. A file in which another key was written does not fit the object, and
    // without this the TPM would only say that some policy failed.
    let wanted = template(profile, &sealing_policy(profile, sealed.selection, &sealed.binding))?;
    let Public::KeyedHash { object_attributes, name_hashing_algorithm, auth_policy, .. } = &public else {
        return Err(corrupt("it is no sealed object"));
    };
    let Public::KeyedHash {
        object_attributes: attributes,
        name_hashing_algorithm: hash,
        auth_policy: policy,
        ..
    } = &wanted
    else {
        return Err(corrupt("it is no sealed object"));
    };
    if (object_attributes, name_hashing_algorithm, auth_policy) != (attributes, hash, policy) {
        return Err(corrupt("its policy is not the one of the registers and the policy key"));
    }
    Ok((public, private))
}

/// The approval to use with these values; none if the secret is sealed to fixed ones.
fn applicable<'a>(
    sealed: &Sealed,
    approvals: &'a [Approval],
    values: &PcrValues,
) -> Result<Option<&'a Approval>, TpmError> {
    match &sealed.binding {
        Binding::Fixed(wanted) if wanted == values => Ok(None),
        Binding::Fixed(wanted) => Err(TpmError::PcrMismatch { changed: wanted.changed_from(values) }),
        Binding::Approved { .. } => {
            approvals.iter().rev().find(|approval| approval.values == *values).map(Some).ok_or_else(|| {
                let changed = match approvals.last() {
                    Some(newest) => newest.values.changed_from(values),
                    None => sealed.selection.indices().collect(),
                };
                TpmError::PcrMismatch { changed }
            })
        }
    }
}

/// Takes the session through the policy.
fn satisfy(
    context: &mut Context,
    session: PolicySession,
    profile: Profile,
    sealed: &Sealed,
    approval: Option<&Approval>,
    values: &PcrValues,
) -> Result<(), TpmError> {
    let indices: Vec<u8> = sealed.selection.indices().collect();
    let selection = selection_list(&indices)?;
    // The digest makes the TPM compare now, so that a register that changed is told from a wrong approval.
    let digest = digest(&values.digest(profile))?;
    context.policy_pcr(session, digest, selection).map_err(|error| match error::kind(error) {
        Some(Kind::Value) => TpmError::PcrMismatch { changed: indices },
        _ => of("PolicyPCR")(error),
    })?;
    if let (Binding::Approved { key, reference }, Some(approval)) = (&sealed.binding, approval) {
        let ticket = verify_in_tpm(context, profile, key, approval, sealed.selection)?;
        let approved = self::digest(&pcr_policy(profile, sealed.selection, values))?;
        let reference = Nonce::try_from(&reference.0[..]).map_err(unexpected("take a policy reference"))?;
        let name = Name::try_from(key.name()).map_err(unexpected("take a policy key's Name"))?;
        context.policy_authorize(session, approved, reference, &name, ticket).map_err(|error| {
            match error::kind(error) {
                Some(Kind::Ticket | Kind::Value) => TpmError::ApprovalRefused(ApprovalError::Signature),
                _ => of("PolicyAuthorize")(error),
            }
        })?;
    }
    context.policy_auth_value(session).map_err(of("PolicyAuthValue"))
}

/// Lets the TPM itself check the approval; its ticket is what the policy takes.
fn verify_in_tpm(
    context: &mut Context,
    profile: Profile,
    key: &PolicyKey,
    approval: &Approval,
    selection: PcrSelection,
) -> Result<tss_esapi::structures::VerifiedTicket, TpmError> {
    let refused = |_| TpmError::ApprovalRefused(ApprovalError::Signature);
    let public = Public::unmarshall(&key.public_area()).map_err(unexpected("take the policy key"))?;
    let (r, s) = approval.signature();
    let (r, s) = (EccParameter::try_from(r).map_err(refused)?, EccParameter::try_from(s).map_err(refused)?);
    let signature = Signature::EcDsa(EccSignature::create(hashing(profile), r, s).map_err(refused)?);
    let digest = digest(&approval_digest(profile, selection, &approval.values, &approval.reference))?;
    // Loaded in the owner hierarchy: a ticket of the null hierarchy is worth nothing.
    let loaded: KeyHandle = context
        .execute_without_session(|context| context.load_external_public(public, Hierarchy::Owner))
        .map_err(of("LoadExternal"))?;
    with_object(context, loaded, |context| {
        context
            .execute_without_session(|context| context.verify_signature(loaded, digest, signature))
            .map_err(|error| match error::kind(error) {
                Some(Kind::Signature | Kind::Size | Kind::Value | Kind::Range) => {
                    TpmError::ApprovalRefused(ApprovalError::Signature)
                }
                _ => of("VerifySignature")(error),
            })
    })
}

/// The sealed object: no use without its policy, not even with the PIN alone, and subject to the dictionary-attack
/// defence.
fn template(profile: Profile, policy: &[u8]) -> Result<Public, TpmError> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_admin_with_policy(true)
        .build()
        .map_err(unexpected("take a sealed object's attributes"))?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(hashing(profile))
        .with_object_attributes(attributes)
        .with_auth_policy(digest(policy)?)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
        .map_err(unexpected("take a sealed object's template"))
}

pub(crate) fn digest(bytes: &[u8]) -> Result<Digest, TpmError> {
    Digest::try_from(bytes).map_err(unexpected("take a digest"))
}
