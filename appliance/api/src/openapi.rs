//! The API as an OpenAPI 3.1 document.

use crate::{ENDPOINTS, Endpoint, ErrorCode, Method, PROBLEM_CONTENT_TYPE, Problem, Who};
use std::collections::BTreeSet;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, Paths, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::{ResponseBuilder, ResponsesBuilder};
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, HttpMethod, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr,
    Required, Schema,
};
use utoipa::{PartialSchema, ToSchema};

/// The document. `openapi.json` beside this crate's manifest is this, in JSON.
#[must_use]
pub fn document() -> OpenApi {
    let paths = ENDPOINTS.iter().fold(Paths::new(), |mut paths, endpoint| {
        let method = match endpoint.method {
            Method::Get => HttpMethod::Get,
            Method::Post => HttpMethod::Post,
            Method::Put => HttpMethod::Put,
            Method::Delete => HttpMethod::Delete,
        };
        let item = PathItem::new(method, operation(endpoint));
        match paths.paths.get_mut(endpoint.path) {
            Some(known) => known.merge_operations(item),
            None => paths = PathsBuilder::from(paths).path(endpoint.path, item).build(),
        }
        paths
    });
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Zixt appliance")
                .version("1")
                .description(Some(
                    "HTTP/1.1. Clients: TLS 1.3, MLKEM1024, raw public keys, ALPN zixt/1; the device is known by its \
                     TLS key, and shows the session of its sign-in as `Authorization: Bearer`. Administrators: the Unix \
                     socket RUN/admin.sock.",
                ))
                .build(),
        )
        .tags(Some([
            TagBuilder::new().name("anyone").description(Some("whoever can open a connection")).build(),
            TagBuilder::new()
                .name("device")
                .description(Some("an active device of the ledger whose user has signed in on it"))
                .build(),
            TagBuilder::new().name("account").description(Some("whoever has signed in, by their roles")).build(),
            TagBuilder::new().name("browser").description(Some("on the web listener only")).build(),
            TagBuilder::new().name("admin").description(Some("on the admin socket only")).build(),
        ]))
        .paths(paths)
        .components(Some(components()))
        .build()
}

fn operation(endpoint: &Endpoint) -> utoipa::openapi::path::Operation {
    let tag = match endpoint.who {
        Who::Anyone => "anyone",
        Who::Device => "device",
        Who::Account | Who::Roles(_) => "account",
        Who::Browser => "browser",
        Who::Admin => "admin",
    };
    let mut operation = OperationBuilder::new()
        .tag(tag)
        .summary(Some(endpoint.summary))
        .operation_id(Some(operation_id(endpoint)))
        .description(roles(endpoint.who));
    for part in endpoint.path.split('/') {
        if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            operation = operation.parameter(parameter(name, ParameterIn::Path, true, None));
        }
    }
    for (name, required, meaning) in endpoint.query {
        operation = operation.parameter(parameter(name, ParameterIn::Query, *required, Some(meaning)));
    }
    if let Some(request) = endpoint.request {
        let content = ContentBuilder::new().schema(Some(reference(request))).build();
        let body =
            RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    let (media, name) = endpoint.response;
    let content = ContentBuilder::new().schema(name.map(reference)).build();
    let problem = || {
        let content = ContentBuilder::new().schema(Some(reference("Problem"))).build();
        ResponseBuilder::new().description("a problem; see ErrorCode").content(PROBLEM_CONTENT_TYPE, content)
    };
    let mut responses = ResponsesBuilder::new()
        .response("200", ResponseBuilder::new().description("success").content(media, content));
    if media == super::endpoints::HTML {
        responses =
            responses.response("303", ResponseBuilder::new().description("the browser goes elsewhere"));
    }
    // Every status that the one error map has, and so no other.
    let statuses: BTreeSet<u16> = ErrorCode::ALL.iter().map(|code| code.status().as_u16()).collect();
    for status in statuses {
        responses = responses.response(status.to_string(), problem());
    }
    operation.responses(responses.build()).build()
}

/// Who may, in words.
fn roles(who: Who) -> Option<String> {
    let Who::Roles(roles) = who else { return None };
    let names = roles.iter().map(|role| role.name()).collect::<Vec<_>>();
    Some(format!("For: {}", names.join(", ")))
}

/// A name for generated clients: the method and the path's fixed words.
fn operation_id(endpoint: &Endpoint) -> String {
    let mut id = match endpoint.method {
        Method::Get => "get".to_owned(),
        Method::Post => "post".to_owned(),
        Method::Put => "put".to_owned(),
        Method::Delete => "delete".to_owned(),
    };
    let words = endpoint.path.split('/').filter(|part| !part.is_empty() && *part != "v1");
    for word in words.map(|part| part.trim_matches(['{', '}'])) {
        id.push('_');
        id.push_str(&word.replace('-', "_"));
    }
    id
}

fn parameter(
    name: &str,
    place: ParameterIn,
    required: bool,
    meaning: Option<&str>,
) -> utoipa::openapi::path::Parameter {
    let is_account = meaning.is_some_and(|meaning| meaning.starts_with("the account"));
    let kind = match name {
        _ if is_account => Type::String,
        "height" | "from_height" | "seq" | "index" | "from" | "limit" | "after" | "first" | "last" => {
            Type::Integer
        }
        _ => Type::String,
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(if required { Required::True } else { Required::False })
        .description(meaning)
        .schema(Some(ObjectBuilder::new().schema_type(SchemaType::Type(kind))))
        .build()
}

fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

fn components() -> utoipa::openapi::Components {
    let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
    fn add<T: ToSchema + PartialSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
    add::<Problem>(&mut schemas);
    add::<crate::Health>(&mut schemas);
    add::<crate::Network>(&mut schemas);
    add::<crate::Consistency>(&mut schemas);
    add::<crate::SystemView>(&mut schemas);
    add::<crate::EnrolRequest>(&mut schemas);
    add::<crate::Receipt>(&mut schemas);
    add::<crate::AccountName>(&mut schemas);
    add::<crate::AccountView>(&mut schemas);
    add::<crate::KeyPackageUpload>(&mut schemas);
    add::<crate::KeyPackageCounts>(&mut schemas);
    add::<crate::ClaimRequest>(&mut schemas);
    add::<crate::ClaimResponse>(&mut schemas);
    add::<crate::SubmitRequest>(&mut schemas);
    add::<crate::SubmitResponse>(&mut schemas);
    add::<crate::ThreadView>(&mut schemas);
    add::<crate::EntryPage>(&mut schemas);
    add::<crate::StreamLine>(&mut schemas);
    add::<crate::Acceptance>(&mut schemas);
    add::<crate::AccountInfo>(&mut schemas);
    add::<crate::AccountPage>(&mut schemas);
    add::<crate::BackupCodes>(&mut schemas);
    add::<crate::ClockInfo>(&mut schemas);
    add::<crate::NewClock>(&mut schemas);
    add::<crate::DirectoryList>(&mut schemas);
    add::<crate::DirectoryRelease>(&mut schemas);
    add::<crate::Done>(&mut schemas);
    add::<crate::EventPage>(&mut schemas);
    add::<crate::Me>(&mut schemas);
    add::<crate::NewLink>(&mut schemas);
    add::<crate::NewSsoLink>(&mut schemas);
    add::<crate::SsoRedirect>(&mut schemas);
    add::<crate::NewPasskey>(&mut schemas);
    add::<crate::PasskeyCreation>(&mut schemas);
    add::<crate::PasskeyList>(&mut schemas);
    add::<crate::PasskeyRequest>(&mut schemas);
    add::<crate::NewPassword>(&mut schemas);
    add::<crate::NewRoles>(&mut schemas);
    add::<crate::NewServiceToken>(&mut schemas);
    add::<crate::PskVerifier>(&mut schemas);
    add::<crate::RecoveryCode>(&mut schemas);
    add::<crate::RecoveryInfo>(&mut schemas);
    add::<crate::RecoveryList>(&mut schemas);
    add::<crate::Renewed>(&mut schemas);
    add::<crate::ServiceTokenList>(&mut schemas);
    add::<crate::ServiceTokenMade>(&mut schemas);
    add::<crate::SessionList>(&mut schemas);
    add::<crate::SessionsEnded>(&mut schemas);
    add::<crate::SignInBegun>(&mut schemas);
    add::<crate::SignInProof>(&mut schemas);
    add::<crate::SignInRequest>(&mut schemas);
    add::<crate::SignInStep>(&mut schemas);
    add::<crate::SignInWays>(&mut schemas);
    add::<crate::TotpConfirmation>(&mut schemas);
    add::<crate::TotpEnrolment>(&mut schemas);
    add::<crate::VaultFile>(&mut schemas);
    add::<crate::VaultShareGiven>(&mut schemas);
    add::<crate::AdminInvitation>(&mut schemas);
    add::<crate::AdminDecision>(&mut schemas);
    add::<crate::AdminStatus>(&mut schemas);
    add::<crate::AuditPage>(&mut schemas);
    schemas
        .into_iter()
        .fold(ComponentsBuilder::new(), |builder, (name, schema)| builder.schema(name, schema))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    /// The checked-in document makes an API change a visible diff. Write it anew with `ZIXT_UPDATE_OPENAPI=1`.
    #[test]
    fn the_checked_in_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let current = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("ZIXT_UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &current).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == current, "openapi.json is out of date: run this test with ZIXT_UPDATE_OPENAPI=1");
    }

    #[test]
    fn error_codes_are_listed_as_they_are_sent() {
        let json = serde_json::to_value(document()).unwrap();
        let listed: Vec<_> = json["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap().clone();
        let sent = ErrorCode::ALL.iter().copied().chain([ErrorCode::Unknown]);
        assert_eq!(listed, sent.map(|code| serde_json::to_value(code).unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let json = serde_json::to_value(document()).unwrap();
        let known = json["components"]["schemas"].as_object().unwrap();
        fn walk(value: &serde_json::Value, known: &serde_json::Map<String, serde_json::Value>) {
            match value {
                serde_json::Value::Object(map) => {
                    if let Some(target) = map.get("$ref").and_then(|target| target.as_str()) {
                        let name = target.rsplit('/').next().unwrap();
                        assert!(known.contains_key(name), "{target}");
                    }
                    map.values().for_each(|value| walk(value, known));
                }
                serde_json::Value::Array(list) => list.iter().for_each(|value| walk(value, known)),
                _ => {}
            }
        }
        walk(&json, known);
        assert_eq!(json["openapi"], "3.1.0");
    }
}
