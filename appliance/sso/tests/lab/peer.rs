//! Identity providers of other people, as processes of their own, and a browser that signs in at them.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{Request, Response, StatusCode};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use url::{Url, form_urlencoded};
use zixt_sso::{WebClient, WebOrigin};

/// Steps of a browser from one page to the callback.
const STEPS_MAX: usize = 20;

/// The folder that `scripts/install-peers.sh` installed a peer into.
pub fn installed(peer: &str) -> PathBuf {
    let script = super::crate_folder().join("../../scripts/install-peers.sh");
    let output = Command::new(&script).args(["--print", peer]).output().unwrap();
    assert!(output.status.success(), "the peer {peer} is not installed: run scripts/install-peers.sh");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Where this crate's peers lie.
pub fn source(path: &str) -> PathBuf {
    super::crate_folder().join("tests/peers").join(path)
}

/// A peer that runs until this is dropped.
pub struct Peer {
    child: Child,
    /// It ends with its standard input, also if the test is killed.
    stdin: ChildStdin,
    said: Receiver<String>,
    pub port: u16,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts a program, hands it one line of settings, and waits until it says its port.
    pub fn start(command: &mut Command, settings: &serde_json::Value) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{settings}").unwrap();
        stdin.flush().unwrap();
        // Read on, so that it never waits for a full pipe.
        let (tell, said) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let mut peer = Self { child, stdin, said, port: 0 };
        peer.port = peer.hear("PORT ").parse().unwrap();
        peer
    }

    /// Waits until it says something that begins so, and gives the rest.
    pub fn hear(&self, beginning: &str) -> String {
        loop {
            let line = self.said.recv().expect("the peer ended before it was ready");
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    /// Hands it another line.
    pub fn tell(&mut self, value: &serde_json::Value) {
        writeln!(self.stdin, "{value}").unwrap();
        self.stdin.flush().unwrap();
    }

    /// pysaml2. It waits for the service provider's metadata then.
    pub fn saml(settings: &serde_json::Value) -> Self {
        let mut command = Command::new(installed("saml").join("venv/bin/python"));
        command.arg(source("saml/idp.py"));
        Self::start(&mut command, settings)
    }

    pub fn oidc(settings: &serde_json::Value, authority_file: &Path) -> Self {
        let mut command = Command::new("node");
        command
            .arg(source("oidc/provider.mjs"))
            .arg(installed("oidc"))
            .env("NODE_EXTRA_CA_CERTS", authority_file);
        Self::start(&mut command, settings)
    }

    pub fn origin(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

/// A browser at one origin: it keeps cookies and follows redirects, until one leads elsewhere.
pub struct Person {
    web: WebClient,
    origin: WebOrigin,
    cookies: BTreeMap<String, String>,
}

/// A page that stayed at the origin.
pub struct Page {
    pub url: Url,
    pub text: String,
}

/// Where a step ended.
pub enum Step {
    Page(Page),
    Elsewhere(Url),
}

impl Step {
    pub fn page(self) -> Page {
        match self {
            Self::Page(page) => page,
            Self::Elsewhere(url) => panic!("sent to {url}"),
        }
    }

    pub fn elsewhere(self) -> Url {
        match self {
            Self::Elsewhere(url) => url,
            Self::Page(page) => panic!("stayed at {}: {}", page.url, page.text),
        }
    }
}

impl Person {
    pub fn new(origin: &str, authority_pem: &str) -> Self {
        let origin = WebOrigin::of(&Url::parse(origin).unwrap()).unwrap();
        let web = WebClient::new(origin.clone(), authority_pem).unwrap();
        Self { web, origin, cookies: BTreeMap::new() }
    }

    pub async fn get(&mut self, url: &Url) -> Step {
        self.walk(url.clone(), None).await
    }

    pub async fn post(&mut self, url: &Url, fields: &[(&str, &str)]) -> Step {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.walk(url.clone(), Some(body)).await
    }

    async fn walk(&mut self, mut url: Url, mut form: Option<String>) -> Step {
        for _ in 0..STEPS_MAX {
            let response = self.once(&url, form.take()).await;
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                assert_eq!(response.status(), StatusCode::OK, "{url}: {:?}", response.body());
                return Step::Page(Page { url, text: String::from_utf8_lossy(response.body()).into_owned() });
            };
            url = url.join(location).unwrap();
            if WebOrigin::of(&url).as_ref() != Some(&self.origin) {
                return Step::Elsewhere(url);
            }
        }
        panic!("the provider sends the browser round and round");
    }

    async fn once(&mut self, url: &Url, form: Option<String>) -> Response<Bytes> {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().uri(url.as_str()).header(COOKIE, cookies.join("; "));
        if form.is_some() {
            request = request.method("POST").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request.body(form.unwrap_or_default().into_bytes()).unwrap();
        let response = self.web.call(request).await.unwrap();
        for cookie in response.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        response
    }

    /// Signs in at oidc-provider's own pages and agrees to everything. Gives the callback.
    pub async fn sign_in(&mut self, url: &Url, name: &str) -> Url {
        let mut step = self.get(url).await;
        for _ in 0..4 {
            let page = match step {
                Step::Elsewhere(url) => return url,
                Step::Page(page) => page,
            };
            let fields: &[(&str, &str)] = if page.text.contains(r#"name="prompt" value="login""#) {
                &[("prompt", "login"), ("login", name), ("password", "x")]
            } else {
                &[("prompt", "consent")]
            };
            step = self.post(&page.url, fields).await;
        }
        step.elsewhere()
    }
}

/// The value of a hidden field of a page.
pub fn field<'a>(page: &'a Page, name: &str) -> &'a str {
    let marker = format!("name=\"{name}\" value=\"");
    let rest = page.text.split(&marker).nth(1).unwrap_or_else(|| panic!("no {name} in {}", page.text));
    rest.split('"').next().unwrap()
}
