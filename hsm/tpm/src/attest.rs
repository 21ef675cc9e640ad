//! Attestation: a key that signs what only this TPM says, and the proof that it is in this TPM.

use crate::error::{self, TpmError, of, unexpected};
use crate::link::{Salted, Srk, hashing, only_authorise, selection_list, with_object, with_policy};
use crate::owner::Tpm;
use crate::provision::{HierarchyAuth, curve};
use crate::seal::PART_BYTES_MAX;
use minicbor::{Decode, Encode};
use tss_esapi::Context;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::handles::{AuthHandle, KeyHandle, ObjectHandle};
use tss_esapi::interface_types::algorithm::PublicAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Data, Digest, EccPoint, EccScheme, EncryptedSecret, HashScheme, IdObject, KeyDerivationFunctionScheme,
    Name, Nonce, Private, Public, PublicBuilder, PublicEccParametersBuilder, Signature, SignatureScheme,
    SymmetricDefinitionObject,
};
use tss_esapi::traits::{Marshall, UnMarshall};
use zeroize::Zeroizing;
use zixt_measured::{AttestationPublic, NONCE_BYTES, PcrSelection, Profile, Quote};
use zixt_types::Canonical;

/// Most bytes of a credential's secret: what the smallest name algorithm allows.
pub const CREDENTIAL_BYTES_MAX: usize = 32;

/// An attestation key: under the storage key, of use in its TPM only.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct AttestationKey {
    #[n(0)]
    version: u64,
    /// Its public half.
    #[n(1)]
    pub public: AttestationPublic,
    #[cbor(n(2), with = "minicbor::bytes")]
    private: Vec<u8>,
}

impl Canonical for AttestationKey {
    const WHAT: &'static str = "TPM attestation key pair";
    const BYTES_MAX: usize = 2_200;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        if self.private.len() > PART_BYTES_MAX {
            return Err("its private part is too long");
        }
        self.public.check()
    }
}

/// The public half of a TPM's endorsement key, by which its manufacturer's certificate, or the organisation's own list,
/// knows the TPM.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct EndorsementPublic {
    #[n(0)]
    version: u64,
    /// Its algorithms.
    #[n(1)]
    pub profile: Profile,
    /// TPMT_PUBLIC.
    #[cbor(n(2), with = "minicbor::bytes")]
    public: Vec<u8>,
}

impl Canonical for EndorsementPublic {
    const WHAT: &'static str = "TPM endorsement key";
    const BYTES_MAX: usize = 1_100;
    const VERSION: Option<u64> = Some(1);
}

/// A secret that only the TPM with the endorsement key opens, and only if it holds the attestation key as well.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Credential {
    #[n(0)]
    version: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    id_object: Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")]
    secret: Vec<u8>,
}

impl Canonical for Credential {
    const WHAT: &'static str = "TPM credential";
    const BYTES_MAX: usize = 1_100;
    const VERSION: Option<u64> = Some(1);
}

impl Tpm {
    /// Makes an attestation key.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn create_attestation_key(&self, srk: &Srk) -> Result<AttestationKey, TpmError> {
        let srk = srk.clone();
        self.call(move |owner| {
            let template = attestation_template(srk.profile)?;
            owner.link()?.salted(&srk, |context, session| {
                let made = session
                    .run(context, |context| context.create(session.srk, template, None, None, None, None))
                    .map_err(of("Create"))?;
                let public = made.out_public.marshall().map_err(of("public area"))?;
                let public = AttestationPublic::new(srk.profile, public);
                Ok(AttestationKey { version: 1, public, private: made.out_private.value().to_vec() })
            })
        })
    }

    /// Signs what the registers hold, together with the verifier's nonce.
    ///
    /// # Errors
    /// [`TpmError::CorruptBlob`] if the key is another TPM's, and others.
    pub fn quote(
        &self,
        srk: &Srk,
        key: &AttestationKey,
        selection: PcrSelection,
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<Quote, TpmError> {
        let (srk, key, nonce) = (srk.clone(), key.clone(), *nonce);
        self.call(move |owner| {
            let link = owner.link()?;
            let values = link.pcrs(selection)?;
            link.salted(&srk, |context, session| {
                let loaded = load(context, session, &key)?;
                with_object(context, loaded, |context| {
                    let data = Data::try_from(&nonce[..]).map_err(unexpected("take a nonce"))?;
                    let registers = selection_list(&selection.indices().collect::<Vec<_>>())?;
                    let (statement, signature) = session
                        .run(context, |context| context.quote(loaded, data, SignatureScheme::Null, registers))
                        .map_err(of("Quote"))?;
                    let statement = statement.marshall().map_err(of("statement"))?;
                    let Signature::EcDsa(signature) = signature else {
                        return Err(TpmError::Unsupported { what: "sign with ECDSA".to_owned() });
                    };
                    let (r, s) = (signature.signature_r().value(), signature.signature_s().value());
                    Ok(Quote::new(statement, r, s, values))
                })
            })
        })
    }

    /// The public half of the endorsement key, made anew from the endorsement seed.
    ///
    /// # Errors
    /// [`TpmError::AuthIncorrect`] and others.
    pub fn endorsement_key(
        &self,
        srk: &Srk,
        endorsement: &HierarchyAuth,
    ) -> Result<EndorsementPublic, TpmError> {
        let (srk, auth) = (srk.clone(), endorsement.auth()?);
        self.call(move |owner| {
            let profile = srk.profile;
            owner.link()?.salted_as(&srk, ObjectHandle::Endorsement, auth, |context, session| {
                let (handle, public) = create_endorsement(context, session, profile)?;
                with_object(context, handle, |_| {
                    let public = public.marshall().map_err(of("public area"))?;
                    Ok(EndorsementPublic { version: 1, profile, public })
                })
            })
        })
    }

    /// Encrypts a secret to the TPM that has this endorsement key, for the case that it holds this attestation key.
    /// Any TPM can do it; it needs no key of its own.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn make_credential(
        &self,
        endorsement: &EndorsementPublic,
        key: &AttestationPublic,
        secret: &[u8],
    ) -> Result<Credential, TpmError> {
        if secret.is_empty() || secret.len() > CREDENTIAL_BYTES_MAX {
            return Err(TpmError::Unsupported { what: "make a credential of so many bytes".to_owned() });
        }
        let secret = Digest::try_from(secret).map_err(unexpected("take a credential's secret"))?;
        let name = Name::try_from(key.name()).map_err(unexpected("take a Name"))?;
        let public = Public::unmarshall(&endorsement.public)
            .map_err(|_| TpmError::CorruptBlob { why: "the endorsement key is malformed".to_owned() })?;
        self.call(move |owner| {
            let context = &mut owner.link()?.context;
            let loaded = context
                .execute_without_session(|context| context.load_external_public(public, Hierarchy::Null))
                .map_err(of("LoadExternal"))?;
            with_object(context, loaded, |context| {
                let (id_object, secret) = context
                    .execute_without_session(|context| context.make_credential(loaded, secret, name))
                    .map_err(of("MakeCredential"))?;
                let (id_object, secret) = (id_object.value().to_vec(), secret.value().to_vec());
                Ok(Credential { version: 1, id_object, secret })
            })
        })
    }

    /// Opens a credential: the proof that this TPM has the endorsement key and holds the attestation key.
    ///
    /// # Errors
    /// [`TpmError::CorruptBlob`] if it was made for another TPM or key, [`TpmError::AuthIncorrect`] and others.
    pub fn activate_credential(
        &self,
        srk: &Srk,
        key: &AttestationKey,
        endorsement: &HierarchyAuth,
        credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let (srk, key, auth) = (srk.clone(), key.clone(), endorsement.auth()?);
        let malformed = |_| TpmError::CorruptBlob { why: "the credential is malformed".to_owned() };
        let id_object = IdObject::try_from(&credential.id_object[..]).map_err(malformed)?;
        let secret = EncryptedSecret::try_from(&credential.secret[..]).map_err(malformed)?;
        self.call(move |owner| {
            owner.link()?.salted_as(&srk, ObjectHandle::Endorsement, auth, |context, session| {
                let loaded = load(context, session, &key)?;
                with_object(context, loaded, |context| {
                    let (handle, _) = create_endorsement(context, session, srk.profile)?;
                    with_object(context, handle, |context| {
                        activate(context, session, &srk, loaded, handle, id_object, secret)
                    })
                })
            })
        })
    }
}

fn activate(
    context: &mut Context,
    session: Salted,
    srk: &Srk,
    key: KeyHandle,
    endorsement: KeyHandle,
    id_object: IdObject,
    secret: EncryptedSecret,
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let refused = |error| match error::kind(error) {
        Some(Kind::Integrity | Kind::Size | Kind::Value | Kind::EccPoint | Kind::Insufficient) => {
            TpmError::CorruptBlob {
                why: "the credential is for another TPM or key, or was changed".to_owned(),
            }
        }
        _ => of("ActivateCredential")(error),
    };
    let opened = match srk.profile {
        // The larger keys of the EK profile may be used with their empty authorisation, the smaller by policy only.
        Profile::P384 => session
            .run_with(context, AuthSession::Password, |context| {
                context.activate_credential(key, endorsement, id_object, secret)
            })
            .map_err(refused)?,
        Profile::P256 => with_policy(context, srk, session.srk, |context, policy, auth_session| {
            session
                .run(context, |context| {
                    let (nonce, reference) = (Nonce::default(), Nonce::default());
                    let hierarchy = AuthHandle::Endorsement;
                    context.policy_secret(policy, hierarchy, nonce, Digest::default(), reference, None)
                })
                .map_err(of("PolicySecret"))?;
            only_authorise(context, auth_session).map_err(of("policy session"))?;
            session
                .run_with(context, auth_session, |context| {
                    context.activate_credential(key, endorsement, id_object, secret)
                })
                .map_err(refused)
        })?,
    };
    Ok(Zeroizing::new(opened.value().to_vec()))
}

/// The endorsement key of the EK Credential Profile's default template, so that a manufacturer's certificate fits.
fn create_endorsement(
    context: &mut Context,
    session: Salted,
    profile: Profile,
) -> Result<(KeyHandle, Public), TpmError> {
    let algorithm = AsymmetricAlgorithmSelection::Ecc(curve(profile));
    let template = ek::create_ek_public_from_default_template_2(algorithm, None)
        .map_err(unexpected("take an endorsement key's template"))?;
    let made = session
        .run(context, |context| {
            context.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
        })
        .map_err(of("CreatePrimary"))?;
    Ok((made.key_handle, made.out_public))
}

fn load(context: &mut Context, session: Salted, key: &AttestationKey) -> Result<KeyHandle, TpmError> {
    let corrupt = || TpmError::CorruptBlob { why: "the attestation key is not this TPM's".to_owned() };
    let public = Public::unmarshall(key.public.public_area()).map_err(|_| corrupt())?;
    let private = Private::try_from(&key.private[..]).map_err(|_| corrupt())?;
    session.run(context, |context| context.load(session.srk, private, public)).map_err(|error| {
        match error::kind(error) {
            Some(Kind::Integrity | Kind::Size | Kind::Value | Kind::Binding | Kind::Insufficient) => {
                corrupt()
            }
            _ => of("Load")(error),
        }
    })
}

/// A restricted ECDSA key. Its authorisation is empty, because it signs nothing but the TPM's own statements, and it is
/// not subject to the dictionary-attack defence: a box in lockout can still say what it runs.
fn attestation_template(profile: Profile) -> Result<Public, TpmError> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_sign_encrypt(true)
        .build()
        .map_err(unexpected("take an attestation key's attributes"))?;
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(hashing(profile))))
        .with_curve(curve(profile))
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_signing_key(true)
        .with_restricted(true)
        .build()
        .map_err(unexpected("take an attestation key's parameters"))?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(hashing(profile))
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .map_err(unexpected("take an attestation key's template"))
}
