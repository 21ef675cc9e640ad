//! The part that parses XML and verifies its signatures, by `saml-rs`, in its strictest profile. It runs in the
//! parser's own process and nowhere else.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use saml_rs::xml::XmlLimits;
use saml_rs::xml::{ExtractorField, extract_with_limits};
use saml_rs::{
    AcsEndpoint, AssertionSignaturePolicy, AudienceValidationPolicy, AuthnRequestSigningPolicy, BrowserInput,
    CertificatePem, ClockSkew, Credentials, EntityId, ForceAuthn, FormField, IdpDescriptor, LogoutBinding,
    LogoutRequest, LogoutResponse, LogoutSubject, MessageId, MetadataTrustPolicy, NameId, NameIdFormat,
    PendingAuthnRequest, PendingLogoutRequest, PrivateKeyPem, RelayStateParam, ReplayCache, ReplayKey,
    ReplayPolicy, RespondSlo, Saml, SamlError, SamlValidationContext, SessionIndex, SloEndpoint, Sp,
    SpConfig, SpValidationPolicy, SsoResponse, SsoResponseBinding, SsoSession, StartSlo, StartSso,
    VerifiedXmlSignatureCoverage, XmlPolicy, XmlSignatureProfile,
};
use std::collections::HashSet;
use std::time::{Duration, SystemTime};
use url::form_urlencoded;

use super::filter::{self, Kind};
use super::wire::{Answer, Cause, Confirmation, Incoming, Parties, Question, Task, Verified, XML_BYTES_MAX};

/// Bytes of a logout message's query.
const QUERY_BYTES_MAX: usize = 64 * 1024;
/// How long an id without an end of its own would be remembered. It is not remembered here: see [`Once`].
const RETENTION: Duration = Duration::from_secs(600);
/// Values of one attribute that are handed on.
const VALUES_MAX: usize = crate::roles::ROLE_VALUES_MAX;

/// The signature algorithms of the HTTP-Redirect binding that are taken (RFC 9231): RSA with SHA-2.
const REDIRECT_ALGORITHMS: [&str; 3] = [
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384",
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
];

/// Answers one question. Every message goes through the filter first.
pub(crate) fn answer(question: &Question) -> Answer {
    act(question).unwrap_or_else(Answer::Refused)
}

fn act(question: &Question) -> Result<Answer, Cause> {
    let parties = &question.parties;
    let sp = service_provider(parties)?;
    let idp = provider(parties)?;
    let mut once = Once::default();
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(question.now_ms);
    let skew = i64::from(parties.skew_ms);
    let context = SamlValidationContext::new(now, ReplayPolicy::RequireCache(&mut once))
        .with_clock_skew(ClockSkew::from_millis(-skew, skew))
        .with_replay_retention(RETENTION);
    match &question.task {
        Task::Begin { relay_state } => {
            let mut start = StartSso::redirect()
                .response_binding(SsoResponseBinding::Post)
                .relay_state(relay(Some(relay_state))?)
                .apply_web_browser_sso_generation_rules();
            if parties.force_authn {
                start = start.force_authn(ForceAuthn::Required);
            }
            let started = sp.start_sso(&idp, start).map_err(cause)?;
            let url = started.outbound.redirect_url().map_err(cause)?.to_owned();
            Ok(Answer::Go { url, id: started.pending.request_id().as_str().to_owned() })
        }
        Task::Finish { response, relay_state, request_id, attributes } => {
            let xml = posted(response)?;
            filter::check(&xml, Kind::Response)?;
            verify(&sp, &idp, parties, &xml, relay_state, request_id, attributes, context)
        }
        Task::Logout { incoming } => {
            check_logout(incoming, Kind::LogoutRequest)?;
            let input = match incoming {
                Incoming::Redirect(query) => BrowserInput::<LogoutRequest>::redirect(query.as_str()),
                Incoming::Post { message, relay_state } => BrowserInput::<LogoutRequest>::post(fields(
                    "SAMLRequest",
                    message,
                    relay_state.as_deref(),
                )?),
            };
            let received = sp.receive_slo(&idp, input, context).map_err(cause)?;
            let response = sp
                .respond_slo(&idp, &received, RespondSlo::redirect().apply_single_logout_generation_rules())
                .map_err(cause)?;
            let message = received.message();
            Ok(Answer::Logout {
                id: message.id().as_str().to_owned(),
                issuer: message.issuer().as_str().to_owned(),
                name_id: message.name_id().map(|name| name.value().to_owned()),
                sessions: message.session_indexes().iter().map(|index| index.as_str().to_owned()).collect(),
                issued: message.issue_instant().as_str().to_owned(),
                ends: message.not_on_or_after().map(|instant| instant.as_str().to_owned()),
                response_url: response.redirect_url().map_err(cause)?.to_owned(),
            })
        }
        Task::BeginLogout { name_id, name_format, session, relay_state } => {
            let name = NameId::new(name_id.as_str(), name_format.as_deref().map(format_of));
            let sessions = session.iter().map(|index| SessionIndex::try_new(index.as_str()).map_err(cause));
            let subject = LogoutSubject::new(name, sessions.collect::<Result<_, _>>()?);
            let start = StartSlo::redirect()
                .relay_state(relay(Some(relay_state))?)
                .apply_single_logout_generation_rules();
            let started = sp.start_slo(&idp, subject, start).map_err(cause)?;
            let url = started.outbound.redirect_url().map_err(cause)?.to_owned();
            Ok(Answer::Go { url, id: started.pending.id().as_str().to_owned() })
        }
        Task::FinishLogout { incoming, relay_state, request_id } => {
            check_logout(incoming, Kind::LogoutResponse)?;
            let (binding, input) = match incoming {
                Incoming::Redirect(query) => {
                    (LogoutBinding::Redirect, BrowserInput::<LogoutResponse>::redirect(query.as_str()))
                }
                Incoming::Post { message, relay_state } => (
                    LogoutBinding::Post,
                    BrowserInput::<LogoutResponse>::post(fields(
                        "SAMLResponse",
                        message,
                        relay_state.as_deref(),
                    )?),
                ),
            };
            let id = MessageId::try_new(request_id.as_str()).map_err(cause)?;
            let peer = idp.entity_id().clone();
            let pending =
                PendingLogoutRequest::try_new(id, relay(Some(relay_state))?, binding, peer).map_err(cause)?;
            let completed = sp.finish_slo(&idp, &pending, input, context).map_err(cause)?;
            let in_response_to = completed.response().and_then(|response| response.in_response_to());
            Ok(Answer::LoggedOut {
                in_response_to: in_response_to.map(|id| id.as_str().to_owned()),
                issuer: completed.peer_entity_id().as_str().to_owned(),
            })
        }
        Task::Metadata => Ok(Answer::Metadata(sp.metadata_xml().to_owned())),
    }
}

/// Verifies a response with the library. `xml` is what the filter has seen, byte for byte.
#[expect(
    clippy::too_many_arguments,
    reason = "what a response is held against; there is one caller beside the tests"
)]
fn verify(
    sp: &Saml<Sp>,
    idp: &IdpDescriptor,
    parties: &Parties,
    xml: &[u8],
    relay_state: &str,
    request_id: &str,
    attributes: &[String],
    context: SamlValidationContext<'_>,
) -> Result<Answer, Cause> {
    let pending = PendingAuthnRequest::try_new(
        MessageId::try_new(request_id).map_err(cause)?,
        relay(Some(relay_state))?,
        AcsEndpoint::post(parties.acs.as_str()).map_err(cause)?,
        SsoResponseBinding::Post,
        idp.entity_id().clone(),
    )
    .map_err(cause)?;
    let fields = vec![
        FormField::new("SAMLResponse", BASE64_STANDARD.encode(xml)),
        FormField::new("RelayState", relay_state),
    ];
    let session =
        sp.finish_sso(idp, &pending, BrowserInput::<SsoResponse>::post(fields), context).map_err(cause)?;
    Ok(Answer::Verified(Box::new(read(&session, attributes)?)))
}

fn read(session: &SsoSession, attributes: &[String]) -> Result<Verified, Cause> {
    let instant = |instant: Option<&saml_rs::SamlInstant>| instant.map(|instant| instant.as_str().to_owned());
    let authn = session.authn_session();
    let context = ExtractorField::new(
        "context",
        &["Response", "Assertion", "AuthnStatement", "AuthnContext", "AuthnContextClassRef"],
    );
    let flow = session.raw_flow();
    let issuer = ExtractorField::new("issuer", &["Response", "Issuer"]);
    let of_name = |key, attribute| {
        ExtractorField::new(key, &["Response", "Assertion", "Subject", "NameID"]).attrs(&[attribute])
    };
    let (theirs, ours) = (of_name("theirs", "NameQualifier"), of_name("ours", "SPNameQualifier"));
    let more =
        extract_with_limits(&flow.saml_content, &[context, issuer, theirs, ours], limits()).map_err(cause)?;
    let values = |name: &String| -> Result<Vec<String>, Cause> {
        // An attribute twice would be read differently by two readers.
        let mut found = session.attributes().as_slice().iter().filter(|attribute| attribute.name() == name);
        let Some(attribute) = found.next() else { return Ok(Vec::new()) };
        if found.next().is_some() {
            return Err(Cause::Repeated);
        }
        if attribute.values().len() > VALUES_MAX {
            return Err(Cause::TooLong);
        }
        Ok(attribute.values().iter().map(|value| value.as_str().to_owned()).collect())
    };
    let covers = |coverage| coverage != VerifiedXmlSignatureCoverage::ResponseRoot;
    let signatures = session.verified_xml_signatures();
    Ok(Verified {
        response_id: session.response_id().as_str().to_owned(),
        assertion_id: session.assertion_id().as_str().to_owned(),
        issuer: session.issuer().as_str().to_owned(),
        in_response_to: session.in_response_to().map(|id| id.as_str().to_owned()),
        destination: flow.extract.get_str("response.destination").map(str::to_owned),
        audiences: session.audience().iter().map(|audience| audience.as_str().to_owned()).collect(),
        not_before: instant(session.not_before()),
        not_on_or_after: instant(session.not_on_or_after()),
        confirmations: session
            .subject()
            .confirmations()
            .iter()
            .map(|confirmation| confirmation_of(confirmation.raw_xml()))
            .collect::<Result<_, _>>()?,
        name_id: session.name_id().value().to_owned(),
        name_format: session.name_id().format().map(|format| format.as_uri().to_owned()),
        attributes: attributes.iter().map(values).collect::<Result<_, _>>()?,
        session: authn.session_index().map(|index| index.as_str().to_owned()),
        authenticated: instant(authn.authn_instant()),
        session_ends: instant(authn.not_on_or_after()),
        context: more.get_str("context").map(str::to_owned),
        algorithms: signatures.iter().map(|signature| signature.algorithm_uri().to_owned()).collect(),
        assertion_signed: signatures.iter().any(|signature| covers(signature.coverage())),
        name_qualifier: more.get_str("theirs").map(str::to_owned),
        sp_name_qualifier: more.get_str("ours").map(str::to_owned),
        response_issuer: more.get_str("issuer").map(str::to_owned),
    })
}

fn confirmation_of(xml: &str) -> Result<Confirmation, Cause> {
    let data = |key: &str, attribute: &str| {
        ExtractorField::new(key, &["SubjectConfirmation", "SubjectConfirmationData"]).attrs(&[attribute])
    };
    let fields = [
        ExtractorField::new("method", &["SubjectConfirmation"]).attrs(&["Method"]),
        data("recipient", "Recipient"),
        data("request", "InResponseTo"),
        data("ends", "NotOnOrAfter"),
    ];
    let found = extract_with_limits(xml, &fields, limits()).map_err(cause)?;
    let text = |key| found.get_str(key).map(str::to_owned);
    Ok(Confirmation {
        method: text("method"),
        recipient: text("recipient"),
        in_response_to: text("request"),
        not_on_or_after: text("ends"),
    })
}

/// Base64 of the HTTP-POST binding (SAML Bindings 2.0 section 3.5.4). Line breaks are allowed; compression is none of
/// this binding's, and is refused as what it is then: no text.
fn posted(message: &str) -> Result<Vec<u8>, Cause> {
    // Four characters for three bytes, and some line breaks.
    if message.len() > XML_BYTES_MAX * 2 {
        return Err(Cause::TooLong);
    }
    let plain: String = message.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    BASE64_STANDARD.decode(plain).map_err(|_| Cause::Encoding)
}

fn fields(name: &str, message: &str, relay_state: Option<&str>) -> Result<Vec<FormField>, Cause> {
    let mut fields = vec![FormField::new(name, BASE64_STANDARD.encode(posted(message)?))];
    fields.extend(relay_state.map(|state| FormField::new("RelayState", state)));
    Ok(fields)
}

/// The filter for logout messages of both bindings, and what the HTTP-Redirect binding demands of its query
/// (SAML Bindings 2.0 section 3.4.4.1): each parameter once, a signature, and an algorithm that is allowed.
fn check_logout(incoming: &Incoming, kind: Kind) -> Result<(), Cause> {
    let query = match incoming {
        Incoming::Post { message, .. } => {
            let xml = posted(message)?;
            let text = filter::check(&xml, kind)?;
            // Unsigned ones the library refuses as well; this is the second look.
            return if text.contains("SignatureValue") { Ok(()) } else { Err(Cause::SignatureMissing) };
        }
        Incoming::Redirect(query) => query,
    };
    if query.len() > QUERY_BYTES_MAX {
        return Err(Cause::TooLong);
    }
    let name = if kind == Kind::LogoutRequest { "SAMLRequest" } else { "SAMLResponse" };
    let mut message = None;
    let mut algorithm = None;
    let mut seen = HashSet::new();
    for (parameter, value) in form_urlencoded::parse(query.as_bytes()) {
        if !seen.insert(parameter.to_string()) {
            return Err(Cause::Repeated);
        }
        match parameter.as_ref() {
            "SigAlg" => algorithm = Some(value.into_owned()),
            parameter if parameter == name => message = Some(value.into_owned()),
            "Signature" | "RelayState" => {}
            _ => return Err(Cause::Profile),
        }
    }
    if !seen.contains("Signature") {
        return Err(Cause::SignatureMissing);
    }
    if !algorithm.is_some_and(|algorithm| REDIRECT_ALGORITHMS.contains(&algorithm.as_str())) {
        return Err(Cause::Algorithm);
    }
    let compressed = BASE64_STANDARD.decode(message.ok_or(Cause::Profile)?).map_err(|_| Cause::Encoding)?;
    let xml =
        saml_rs::binding::deflate_raw_decode_with_limit(&compressed, XML_BYTES_MAX).map_err(|error| {
            match error {
                SamlError::Deflate(_) => Cause::Encoding,
                _ => Cause::TooLong,
            }
        })?;
    filter::check(&xml, kind)?;
    Ok(())
}

fn relay(state: Option<&str>) -> Result<RelayStateParam, Cause> {
    RelayStateParam::try_from_option(state).map_err(cause)
}

fn limits() -> XmlLimits {
    XmlLimits { max_bytes: XML_BYTES_MAX, max_depth: 64, max_nodes: 20_000, ..XmlLimits::default() }
}

/// This side, with every check that the library has switched on.
fn service_provider(parties: &Parties) -> Result<Saml<Sp>, Cause> {
    let signs = if parties.key.is_some() {
        AuthnRequestSigningPolicy::Sign
    } else {
        AuthnRequestSigningPolicy::DoNotSignForCompatibility
    };
    let policy = SpValidationPolicy {
        assertions: AssertionSignaturePolicy::RequireSigned,
        xml_signatures: XmlSignatureProfile::StrictRsaSha2,
        audience: AudienceValidationPolicy::Validate,
        authn_requests: signs,
        ..SpValidationPolicy::recommended()
    };
    let credentials = parties.key.as_ref().map_or_else(Credentials::default, |key| Credentials {
        signing_key: Some(PrivateKeyPem::new(key.key_pem.as_str())),
        signing_certificate: Some(CertificatePem::new(key.certificate_pem.as_str())),
        ..Credentials::default()
    });
    let skew = i64::from(parties.skew_ms);
    let xml = XmlPolicy {
        clock_drifts: (-skew, skew),
        redirect_inflate_max_bytes: XML_BYTES_MAX,
        limits: limits(),
        ..XmlPolicy::default()
    };
    let entity = EntityId::try_new(parties.sp_entity.as_str()).map_err(cause)?;
    let mut builder = SpConfig::builder(entity)
        .acs_endpoint(AcsEndpoint::post(parties.acs.as_str()).map_err(cause)?)
        .name_id_format(NameIdFormat::Persistent)
        .credentials(credentials)
        .validation(policy)
        .xml(xml);
    if let Some(slo) = &parties.sp_slo {
        builder = builder
            .slo_endpoint(SloEndpoint::redirect(slo.as_str()).map_err(cause)?)
            .slo_endpoint(SloEndpoint::post(slo.as_str()).map_err(cause)?);
    }
    let config = builder.build().map_err(|_| Cause::Configuration)?;
    Saml::sp(config).map_err(|_| Cause::Configuration)
}

/// The provider, as this side's configuration describes it. No metadata of the provider's own are read: its keys and
/// places are pinned.
fn provider(parties: &Parties) -> Result<IdpDescriptor, Cause> {
    const REDIRECT: &str = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect";
    let keys: String = parties
        .certificates
        .iter()
        .map(|certificate| {
            format!(
                "<md:KeyDescriptor use=\"signing\"><ds:KeyInfo xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\
                 <ds:X509Data><ds:X509Certificate>{}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>\
                 </md:KeyDescriptor>",
                escape(certificate)
            )
        })
        .collect();
    let slo = parties.idp_slo.as_ref().map_or_else(String::new, |slo| {
        format!("<md:SingleLogoutService Binding=\"{REDIRECT}\" Location=\"{}\"/>", escape(slo))
    });
    let metadata = format!(
        "<md:EntityDescriptor xmlns:md=\"urn:oasis:names:tc:SAML:2.0:metadata\" entityID=\"{}\">\
         <md:IDPSSODescriptor WantAuthnRequestsSigned=\"{}\" \
         protocolSupportEnumeration=\"urn:oasis:names:tc:SAML:2.0:protocol\">{keys}{slo}\
         <md:SingleSignOnService Binding=\"{REDIRECT}\" Location=\"{}\"/></md:IDPSSODescriptor>\
         </md:EntityDescriptor>",
        escape(&parties.idp_entity),
        parties.key.is_some(),
        escape(&parties.idp_sso),
    );
    let entity = EntityId::try_new(parties.idp_entity.as_str()).map_err(cause)?;
    // "Unsigned" is the library's word: this text is ours, and does not come from outside.
    IdpDescriptor::from_metadata_xml_for(entity, &metadata, MetadataTrustPolicy::UnsignedForCompatibility)
        .map_err(|_| Cause::Configuration)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
}

fn format_of(uri: &str) -> NameIdFormat {
    if uri == NameIdFormat::Persistent.as_uri() {
        NameIdFormat::Persistent
    } else {
        NameIdFormat::Custom(uri.to_owned())
    }
}

/// The library's replay cache, for one message: it lives no longer than this process. Ids of the messages before are
/// with the appliance, which outlives it.
#[derive(Default)]
struct Once(HashSet<String>);

impl ReplayCache for Once {
    fn check_and_store(&mut self, key: ReplayKey, _: SystemTime) -> Result<(), SamlError> {
        let key = key.cache_key();
        if self.0.insert(key.clone()) { Ok(()) } else { Err(SamlError::ReplayDetected { key }) }
    }
}

/// The library's error, without any text of the message.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn cause(error: SamlError) -> Cause {
    match error {
        SamlError::Deflate(_) | SamlError::Base64(_) => Cause::Encoding,
        SamlError::Xml(_) => Cause::Xml,
        SamlError::ProtocolProfile(_)
        | SamlError::UnrecognizedCondition { .. }
        | SamlError::PrincipalMismatch => Cause::Profile,
        SamlError::IssuerMismatch { .. } | SamlError::UnmatchIssuer => Cause::Issuer,
        SamlError::DestinationMismatch { .. } | SamlError::UnmatchDestination => Cause::Destination,
        SamlError::InResponseToMismatch { .. } | SamlError::InvalidInResponseTo => Cause::InResponseTo,
        SamlError::RelayStateMismatch { .. } => Cause::RelayState,
        SamlError::AudienceMismatch { .. } | SamlError::UnmatchAudience => Cause::Audience,
        SamlError::StatusNotSuccess { .. } => Cause::Status,
        SamlError::TimeWindowInvalid { .. } => Cause::Time,
        SamlError::SubjectConfirmationInvalid { .. } => Cause::Confirmation,
        SamlError::ReplayDetected { .. } => Cause::Repeated,
        SamlError::SignatureMissing | SamlError::AssertionSignatureRequired | SamlError::MissingSigAlg => {
            Cause::SignatureMissing
        }
        SamlError::SignatureVerification { .. }
        | SamlError::ReferenceResolution { .. }
        | SamlError::NoTrustedCertificate
        | SamlError::CertificateMismatch => Cause::Signature,
        SamlError::FailedMessageSignatureVerification
        | SamlError::FailedToVerifySignature
        | SamlError::UnmatchCertificate
        | SamlError::Crypto(_) => Cause::Signature,
        SamlError::SignedReferenceMismatch | SamlError::PotentialWrappingAttack => Cause::Coverage,
        SamlError::AlgorithmUnsupported => Cause::Algorithm,
        SamlError::MissingBindingParameter { .. } => Cause::Profile,
        SamlError::UndefinedStatus | SamlError::FailedStatus { .. } => Cause::Status,
        SamlError::ExpiredSession => Cause::Time,
        SamlError::SubjectUnconfirmed => Cause::Confirmation,
        SamlError::MissingMetadata(_) | SamlError::MissingKey(_) => Cause::Configuration,
        _ => Cause::Other,
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
