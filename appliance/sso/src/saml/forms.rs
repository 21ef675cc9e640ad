//! What a browser brings, before anything in it is read: parameters, each once, bounded.

use url::form_urlencoded;

use super::refusal::Refusal;
use super::wire::{Incoming, XML_BYTES_MAX};

/// Bytes of a posted form: base64 and its escapes of the longest message.
pub const FORM_BYTES_MAX: usize = 3 * XML_BYTES_MAX;
/// Bytes of a query.
const QUERY_BYTES_MAX: usize = 64 * 1024;
/// Parameters of a form or query.
const PARAMETERS_MAX: usize = 16;

/// The provider's answer to a sign-in, as the browser posted it.
#[derive(Debug)]
pub struct ResponseForm {
    pub(crate) response: String,
    relay_state: String,
}

impl ResponseForm {
    /// Reads a body of the type `application/x-www-form-urlencoded` (HTTP-POST binding).
    ///
    /// # Errors
    /// [`Refusal::Form`]
    pub fn parse(body: &str) -> Result<Self, Refusal> {
        let (response, relay_state) = post(body, "SAMLResponse")?;
        Ok(Self { response, relay_state: relay_state.ok_or(Refusal::Form)? })
    }

    /// The name of the sign-in, for [`crate::Waiting::take`].
    #[must_use]
    pub fn relay_state(&self) -> &str {
        &self.relay_state
    }
}

/// A logout message, as the browser brought it.
#[derive(Debug)]
pub struct LogoutMessage {
    pub(crate) incoming: Incoming,
    /// Whether it is a response to a log-out that began here.
    pub(crate) is_response: bool,
}

impl LogoutMessage {
    /// Reads the query of the HTTP-Redirect binding, without its question mark. It is kept as it came, because the
    /// signature is over its spelling.
    ///
    /// # Errors
    /// [`Refusal::Form`]
    pub fn from_query(query: &str) -> Result<Self, Refusal> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(Refusal::Form);
        }
        let names =
            form_urlencoded::parse(query.as_bytes()).take(PARAMETERS_MAX).map(|(name, _)| name.into_owned());
        let names: Vec<_> = names.collect();
        let is_response = one_of_two(|name| names.iter().any(|known| known == name))?;
        Ok(Self { incoming: Incoming::Redirect(query.to_owned()), is_response })
    }

    /// Reads a body of the type `application/x-www-form-urlencoded` (HTTP-POST binding).
    ///
    /// # Errors
    /// [`Refusal::Form`]
    pub fn from_form(body: &str) -> Result<Self, Refusal> {
        if body.len() > FORM_BYTES_MAX {
            return Err(Refusal::Form);
        }
        let has = |name: &str| {
            form_urlencoded::parse(body.as_bytes()).take(PARAMETERS_MAX).any(|(known, _)| known == name)
        };
        let is_response = one_of_two(has)?;
        let (message, relay_state) = post(body, if is_response { "SAMLResponse" } else { "SAMLRequest" })?;
        Ok(Self { incoming: Incoming::Post { message, relay_state }, is_response })
    }

    /// Whether it answers a log-out that began here ([`super::ServiceProvider::finish_logout`]); otherwise the provider
    /// asks for one ([`super::ServiceProvider::logout`]).
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.is_response
    }

    /// Its `RelayState`.
    #[must_use]
    pub fn relay_state(&self) -> Option<String> {
        match &self.incoming {
            Incoming::Redirect(query) => form_urlencoded::parse(query.as_bytes())
                .find(|(name, _)| name == "RelayState")
                .map(|(_, value)| value.into_owned()),
            Incoming::Post { relay_state, .. } => relay_state.clone(),
        }
    }
}

fn one_of_two(has: impl Fn(&str) -> bool) -> Result<bool, Refusal> {
    match (has("SAMLRequest"), has("SAMLResponse")) {
        (true, false) => Ok(false),
        (false, true) => Ok(true),
        _ => Err(Refusal::Form),
    }
}

/// The message and the relay state of a posted form, each at most once, and nothing else that SAML would read.
fn post(body: &str, name: &str) -> Result<(String, Option<String>), Refusal> {
    if body.len() > FORM_BYTES_MAX {
        return Err(Refusal::Form);
    }
    let (mut message, mut relay_state) = (None, None);
    for (at, (parameter, value)) in form_urlencoded::parse(body.as_bytes()).enumerate() {
        let slot = match parameter.as_ref() {
            parameter if parameter == name => &mut message,
            "RelayState" => &mut relay_state,
            "SAMLRequest" | "SAMLResponse" | "SAMLart" | "SigAlg" | "Signature" => return Err(Refusal::Form),
            _ => continue,
        };
        if at >= PARAMETERS_MAX || slot.replace(value.into_owned()).is_some() {
            return Err(Refusal::Form);
        }
    }
    Ok((message.ok_or(Refusal::Form)?, relay_state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_is_there_once() {
        let form = ResponseForm::parse("SAMLResponse=YQ%3D%3D&RelayState=r&other=x").unwrap();
        assert_eq!((form.response.as_str(), form.relay_state()), ("YQ==", "r"));
        for bad in [
            "",
            "SAMLResponse=a",
            "RelayState=r",
            "SAMLResponse=a&SAMLResponse=b&RelayState=r",
            "SAMLResponse=a&RelayState=r&RelayState=s",
            "SAMLResponse=a&RelayState=r&SAMLRequest=b",
            "SAMLResponse=a&RelayState=r&SAMLart=b",
            "SAMLResponse=a&RelayState=r&SigAlg=b",
        ] {
            assert!(matches!(ResponseForm::parse(bad), Err(Refusal::Form)), "{bad}");
        }
        let long = format!("RelayState=r&SAMLResponse={}", "a".repeat(FORM_BYTES_MAX));
        assert!(matches!(ResponseForm::parse(&long), Err(Refusal::Form)));
    }

    #[test]
    fn logout_messages_are_told_apart() {
        assert!(!LogoutMessage::from_query("SAMLRequest=a&SigAlg=b&Signature=c").unwrap().is_response());
        let response = LogoutMessage::from_form("SAMLResponse=a&RelayState=r").unwrap();
        assert_eq!((response.is_response(), response.relay_state().as_deref()), (true, Some("r")));
        for bad in ["SAMLRequest=a&SAMLResponse=b", "x=y"] {
            assert!(
                LogoutMessage::from_query(bad).is_err() && LogoutMessage::from_form(bad).is_err(),
                "{bad}"
            );
        }
    }
}
