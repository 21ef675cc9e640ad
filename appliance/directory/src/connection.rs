//! One connection to one server: TLS before anything else, a sign-in, and searches behind a gate.
//!
//! ```text
//! server ── TLS ── gate: length, form, bytes in all, a few MB at a time ── ldap3: search, filters, controls
//! ```
//! The sign-in itself never passes through `ldap3`, which does not wipe what it copies.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ldap3::controls::{MakeCritical as _, PagedResults, RawControl};
use ldap3::{
    DerefAliases, Ldap, LdapConnAsync, LdapConnSettings, Scope, SearchEntry, SearchOptions, StdStream,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Kind, Security, Server};
use crate::limits;
use crate::wire::{self, LdapResult, WireError};

/// Why a server was of no use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ServerError {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// It did not answer in time.
    #[error("no answer to {what} within {seconds} s")]
    Timeout {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// It has no certificate of the authority for its name, or speaks no TLS that we speak.
    #[error("TLS: {0}")]
    Tls(String),
    /// It closed the connection in the middle.
    #[error("the connection ended: {0}")]
    Closed(String),
    /// It does not speak the protocol, or says more than anybody asked for.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It refused what was asked.
    #[error("{what} was refused with result {code}: {diagnostic}")]
    Result {
        /// What was asked.
        what: &'static str,
        /// The result's code (RFC 4511 section 4.1.9).
        code: u32,
        /// The server's words.
        diagnostic: String,
    },
    /// It refused the account that reads. No other server is tried: each try counts as a wrong password somewhere.
    #[error("the account that reads was refused with result {code}: {diagnostic}")]
    Service {
        /// The result's code.
        code: u32,
        /// The server's words.
        diagnostic: String,
    },
    /// It has more of something than is taken.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are taken.
        max: usize,
    },
    /// Part of what was asked for is at another server. References are not followed, and without it the list is not complete.
    #[error("a part of the tree is at {0:?}, which is not asked")]
    Reference(String),
    /// Somebody whom the list did not have was found when they were asked for.
    #[error("{missing} people are missing from the list, and one of them is there all the same")]
    Incomplete {
        /// How many.
        missing: usize,
    },
    /// The library that searches could not go on.
    #[error("the search could not go on: {0}")]
    Search(String),
}

impl ServerError {
    fn io(error: &io::Error) -> Self {
        Self::Closed(error.to_string())
    }

    /// Whether another server is to be asked.
    pub(crate) const fn tries_next(&self) -> bool {
        !matches!(self, Self::Service { .. })
    }
}

/// A connection with TLS, before or after a sign-in.
pub(crate) struct Channel {
    stream: TlsStream<TcpStream>,
    messages: u8,
}

impl Channel {
    pub(crate) async fn open(
        server: &Server,
        tls: &Arc<ClientConfig>,
        within: Duration,
    ) -> Result<Self, ServerError> {
        let seconds = within.as_secs();
        let open = async {
            let name = ServerName::try_from(server.host.clone())
                .map_err(|error| ServerError::Tls(error.to_string()))?;
            let mut tcp = TcpStream::connect((server.host.as_str(), server.port))
                .await
                .map_err(|error| ServerError::Connect(error.to_string()))?;
            // Each request is one write, and each waits for an answer.
            tcp.set_nodelay(true).map_err(|error| ServerError::io(&error))?;
            if server.security == Security::StartTls {
                start_tls(&mut tcp).await?;
            }
            TlsConnector::from(tls.clone())
                .connect(name, tcp)
                .await
                .map_err(|error| ServerError::Tls(error.to_string()))
        };
        let stream = timeout(within, open)
            .await
            .map_err(|_| ServerError::Timeout { what: "a connection", seconds })??;
        Ok(Self { stream, messages: 0 })
    }

    /// Signs in. The password is not empty: see RFC 4513 section 5.1.2 for what an empty one would do.
    pub(crate) async fn bind(
        &mut self,
        dn: &str,
        password: &[u8],
        within: Duration,
    ) -> Result<LdapResult, ServerError> {
        if dn.is_empty() || password.is_empty() {
            return Err(ServerError::Wire(WireError::Malformed("a name and a password for a sign-in")));
        }
        // A connection has at most two sign-ins.
        self.messages += 1;
        let request = wire::bind_request(self.messages, dn, password);
        let exchange = async {
            self.stream.write_all(&request).await.map_err(|error| ServerError::io(&error))?;
            self.stream.flush().await.map_err(|error| ServerError::io(&error))?;
            let answer = answer(&mut self.stream).await?;
            wire::bind_answer(&answer, self.messages).map_err(ServerError::Wire)
        };
        let seconds = within.as_secs();
        timeout(within, exchange).await.map_err(|_| ServerError::Timeout { what: "a sign-in", seconds })?
    }

    /// Says farewell. The server may be gone already.
    pub(crate) async fn close(mut self) {
        let farewell = async {
            self.stream.write_all(&wire::unbind_request(self.messages + 1)).await?;
            self.stream.shutdown().await
        };
        let _ = timeout(Duration::from_secs(1), farewell).await;
    }

    /// Hands the connection to `ldap3`, through the gate.
    pub(crate) async fn into_searcher(
        self,
        kind: Kind,
        answer_timeout: Duration,
        bounds: Bounds,
    ) -> Result<Searcher, ServerError> {
        let local = |error: io::Error| ServerError::Search(error.to_string());
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(local)?;
        ours.set_nonblocking(true).map_err(local)?;
        let ours = UnixStream::from_std(ours).map_err(local)?;
        let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(theirs));
        let (driver, ldap) = LdapConnAsync::with_settings(settings, "ldapi:///")
            .await
            .map_err(|error| ServerError::Search(error.to_string()))?;
        let credit = Arc::new(Credit::new());
        let fault = Arc::new(Mutex::new(None));
        let gate = {
            let (credit, fault) = (credit.clone(), fault.clone());
            tokio::spawn(async move {
                if let Err(error) = gate(self.stream, ours, &credit, bounds).await {
                    *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            })
        };
        let driver = tokio::spawn(async move {
            // It ends with the gate, whose fault says more.
            let _ = driver.drive().await;
        });
        Ok(Searcher { ldap, credit, fault, tasks: [gate, driver], kind, answer_timeout })
    }
}

/// Asks for TLS, in plain text, with nothing in it that would not be in anybody's request. What comes after the answer is
/// read by TLS alone, so that nothing that was slipped in before it counts as said within (CVE-2011-0411 was that).
async fn start_tls(tcp: &mut TcpStream) -> Result<(), ServerError> {
    tcp.write_all(&wire::starttls_request(1)).await.map_err(|error| ServerError::io(&error))?;
    let result = wire::starttls_answer(&answer(tcp).await?, 1)?;
    if result.code == 0 {
        return Ok(());
    }
    Err(ServerError::Result { what: "StartTLS", code: result.code, diagnostic: result.diagnostic })
}

async fn answer(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<Vec<u8>, ServerError> {
    match wire::read_message(from, limits::RESULT_BYTES_MAX).await {
        Ok(Some(message)) => message.map_err(ServerError::Wire),
        Ok(None) => Err(ServerError::Closed("by the server".into())),
        Err(error) => Err(ServerError::io(&error)),
    }
}

/// What a server may send.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// In one message.
    pub(crate) message_bytes: usize,
    /// In one exchange.
    pub(crate) exchange_bytes: u64,
}

/// How much may be under way between the gate and whoever takes it: `ldap3` itself would pile up as much as a server sends.
/// A message costs by its length and its elements; the longest cost all there is, and so come one at a time.
struct Credit {
    left: Semaphore,
    /// What each message under way has cost, the oldest first. One search runs at a time, so they come out in order.
    paid: Mutex<VecDeque<usize>>,
}

impl Credit {
    fn new() -> Self {
        Self { left: Semaphore::new(limits::IN_FLIGHT_PARTS_MAX), paid: Mutex::default() }
    }

    async fn pay(&self, bytes: usize, elements: usize) {
        let bytes = bytes.saturating_add(elements.saturating_mul(limits::ELEMENT_BYTES));
        let cost = (1 + bytes / limits::IN_FLIGHT_PART_BYTES).min(limits::IN_FLIGHT_PARTS_MAX);
        // At most 64, and nobody closes the semaphore.
        if let Ok(permits) = self.left.acquire_many(cost as u32).await {
            permits.forget();
        }
        self.paid.lock().unwrap_or_else(PoisonError::into_inner).push_back(cost);
    }

    fn taken(&self) {
        let cost = self.paid.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        self.left.add_permits(cost.unwrap_or(0));
    }
}

/// Carries requests out as they are, and answers in after a check.
async fn gate(
    server: TlsStream<TcpStream>,
    library: UnixStream,
    credit: &Credit,
    bounds: Bounds,
) -> Result<(), ServerError> {
    let (from_server, mut to_server) = tokio::io::split(server);
    let (mut from_library, mut to_library) = library.into_split();
    let requests = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let length = from_library.read(&mut buffer).await?;
            if length == 0 {
                return Ok::<(), io::Error>(());
            }
            to_server.write_all(&buffer[..length]).await?;
            to_server.flush().await?;
        }
    };
    let answers = async {
        let mut from_server = BufReader::with_capacity(32 * 1024, from_server);
        let mut bytes = 0;
        loop {
            let message = match wire::read_message(&mut from_server, bounds.message_bytes).await {
                Ok(Some(message)) => message?,
                Ok(None) => return Err(ServerError::Closed("by the server".into())),
                Err(error) => return Err(ServerError::io(&error)),
            };
            bytes += message.len() as u64;
            if bytes > bounds.exchange_bytes {
                return Err(WireError::Budget { max: bounds.exchange_bytes }.into());
            }
            let elements = wire::check_search_answer(&message)?;
            credit.pay(message.len(), elements).await;
            to_library.write_all(&message).await.map_err(|error| ServerError::io(&error))?;
        }
    };
    tokio::select! {
        ended = requests => ended.map_err(|error| ServerError::io(&error)),
        ended = answers => ended,
    }
}

/// An entry as a server sent it, of a checked form.
pub(crate) struct Entry(SearchEntry);

impl Entry {
    pub(crate) fn dn(&self) -> &str {
        &self.0.dn
    }

    /// The values of an attribute; names are compared without case (RFC 4512 section 2.5).
    pub(crate) fn values(&self, name: &str) -> Vec<&[u8]> {
        let texts = self.0.attrs.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let bytes = self.0.bin_attrs.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        texts
            .flat_map(|(_, values)| values.iter().map(String::as_bytes))
            .chain(bytes.flat_map(|(_, values)| values.iter().map(Vec::as_slice)))
            .collect()
    }

    /// The one value of an attribute.
    pub(crate) fn value(&self, name: &str) -> Option<&[u8]> {
        match self.values(name).as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn sample(dn: &str, attributes: &[(&str, &[&[u8]])]) -> Self {
        let bin_attrs = attributes
            .iter()
            .map(|(name, values)| ((*name).to_owned(), values.iter().map(|value| value.to_vec()).collect()));
        Self(SearchEntry { dn: dn.to_owned(), attrs: Default::default(), bin_attrs: bin_attrs.collect() })
    }
}

/// How a search ended.
pub(crate) struct Ended {
    pub(crate) code: u32,
    pub(crate) diagnostic: String,
    /// Empty at the last page; `None` where the server has said nothing of pages.
    cookie: Option<Vec<u8>>,
}

/// What is searched for.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) base: &'a str,
    pub(crate) whole_subtree: bool,
    pub(crate) filter: &'a str,
    pub(crate) attributes: &'a [&'a str],
}

/// A connection that has signed in and searches.
pub(crate) struct Searcher {
    ldap: Ldap,
    credit: Arc<Credit>,
    fault: Arc<Mutex<Option<ServerError>>>,
    tasks: [JoinHandle<()>; 2],
    kind: Kind,
    answer_timeout: Duration,
}

/// No such object (RFC 4511 section 4.1.9).
pub(crate) const NO_SUCH_OBJECT: u32 = 32;
/// The control of RFC 2696.
const PAGED_RESULTS: &str = "1.2.840.113556.1.4.319";
const SIZE_LIMIT_EXCEEDED: u32 = 4;
const REFERRAL: u32 = 10;

impl Searcher {
    /// All that a query finds, page by page (RFC 2696). Referrals are not followed: who answers for another server's
    /// part of the tree would decide who that server is.
    ///
    /// # Errors
    /// Whatever keeps the list from being complete: a result that is not success, above all a size limit.
    pub(crate) async fn all(
        &mut self,
        query: Query<'_>,
        page_size: u32,
        entries_max: usize,
        each: &mut (dyn FnMut(Entry) -> Result<(), ServerError> + Send),
    ) -> Result<(), ServerError> {
        let mut cookie = Vec::new();
        let mut count = 0;
        // A server may give small pages, but not without end: each but a few has to hold something.
        let mut empty_pages = 0;
        loop {
            let control = PagedResults { size: i32::try_from(page_size).unwrap_or(i32::MAX), cookie };
            let before = count;
            let ended = self
                .page(query, vec![control.critical().into()], 0, &mut |entry| {
                    count += 1;
                    if count > entries_max {
                        return Err(ServerError::TooMany { what: "entries", max: entries_max });
                    }
                    each(entry)
                })
                .await?;
            if ended.code != 0 {
                return Err(ended.refused("a search"));
            }
            // RFC 2696 section 3: a server that heard of pages says so at each. One that did not may have left out what came
            // after the first.
            let missing = WireError::Malformed("the control of a page, which was asked for");
            let next = ended.cookie.ok_or(missing)?;
            if next.is_empty() {
                return Ok(());
            }
            empty_pages += u32::from(count == before);
            if empty_pages > 16 {
                return Err(ServerError::TooMany { what: "pages without an entry", max: 16 });
            }
            cookie = next;
        }
    }

    /// At most `entries_max` entries, in one answer. `true` if there are more.
    pub(crate) async fn few(
        &mut self,
        query: Query<'_>,
        entries_max: usize,
        each: &mut (dyn FnMut(Entry) -> Result<(), ServerError> + Send),
    ) -> Result<bool, ServerError> {
        let limit = i32::try_from(entries_max).unwrap_or(i32::MAX);
        let mut count = 0;
        let ended = self
            .page(query, Vec::new(), limit, &mut |entry| {
                count += 1;
                // RFC 4511 section 4.5.1.5: a server is not obliged to the limit.
                if count > entries_max { beyond(count, entries_max) } else { each(entry) }
            })
            .await?;
        match ended.code {
            0 => Ok(count > entries_max),
            SIZE_LIMIT_EXCEEDED => Ok(true),
            _ => Err(ended.refused("a search")),
        }
    }

    /// One entry by its name; `None` if it does not exist or does not pass the filter.
    pub(crate) async fn one(&mut self, query: Query<'_>) -> Result<Option<Entry>, ServerError> {
        let (mut found, mut count) = (None, 0);
        let ended = self
            .page(Query { whole_subtree: false, ..query }, Vec::new(), 2, &mut |entry| {
                found = Some(entry);
                count += 1;
                beyond(count, 2)
            })
            .await?;
        match ended.code {
            0 => Ok(found),
            // It moved to where another server answers, or is gone.
            NO_SUCH_OBJECT | REFERRAL => Ok(None),
            _ => Err(ended.refused("reading an entry")),
        }
    }

    async fn page(
        &mut self,
        query: Query<'_>,
        controls: Vec<RawControl>,
        size_limit: i32,
        each: &mut (dyn FnMut(Entry) -> Result<(), ServerError> + Send),
    ) -> Result<Ended, ServerError> {
        let result = self.page_inner(query, controls, size_limit, each).await;
        match result {
            Err(ServerError::Search(_)) => {
                // The gate has the reason, in a moment: its end is what the library noticed.
                if !self.tasks[0].is_finished() {
                    let _ = timeout(Duration::from_secs(1), &mut self.tasks[0]).await;
                }
                let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(fault.unwrap_or_else(|| ServerError::Closed("by the server".into())))
            }
            other => other,
        }
    }

    async fn page_inner(
        &mut self,
        query: Query<'_>,
        controls: Vec<RawControl>,
        size_limit: i32,
        each: &mut (dyn FnMut(Entry) -> Result<(), ServerError> + Send),
    ) -> Result<Ended, ServerError> {
        let (within, seconds) = (self.answer_timeout, self.answer_timeout.as_secs());
        let late = ServerError::Timeout { what: "a search", seconds };
        let library = |error: ldap3::LdapError| ServerError::Search(error.to_string());
        let options = SearchOptions::new()
            .deref(DerefAliases::Never)
            .sizelimit(size_limit)
            .timelimit(i32::try_from(seconds).unwrap_or(i32::MAX));
        let scope = if query.whole_subtree { Scope::Subtree } else { Scope::Base };
        self.ldap.with_search_options(options).with_controls(controls);
        let search = self.ldap.streaming_search(query.base, scope, query.filter, query.attributes);
        let mut stream = timeout(within, search).await.map_err(|_| late.clone())?.map_err(library)?;
        let mut references = 0;
        loop {
            let next = timeout(within, stream.next()).await.map_err(|_| late.clone())?.map_err(library)?;
            self.credit.taken();
            match next {
                Some(item) if item.is_ref() => {
                    references += 1;
                    refuse_reference(self.kind, &ldap3::parse_refs(item.0))?;
                    if references > limits::REFERENCES_MAX {
                        return Err(ServerError::TooMany { what: "references", max: limits::REFERENCES_MAX });
                    }
                }
                Some(item) if item.is_intermediate() => {}
                Some(item) => each(Entry(SearchEntry::construct(item)))?,
                None => break,
            }
        }
        let result = stream.finish().await;
        let page = result.ctrls.iter().find(|control| control.1.ctype == PAGED_RESULTS);
        let cookie = match page.and_then(|control| control.1.val.as_deref()) {
            Some(value) => Some(wire::page_cookie(value)?),
            None => None,
        };
        let diagnostic = wire::printable(&result.text, limits::DIAGNOSTIC_BYTES_MAX);
        Ok(Ended { code: result.rc, diagnostic, cookie })
    }
}

/// Whether there are too many entries beyond a limit that the server was told.
fn beyond(count: usize, entries_max: usize) -> Result<(), ServerError> {
    let max = entries_max.saturating_add(limits::ENTRIES_BEYOND_LIMIT_MAX);
    if count > max { Err(ServerError::TooMany { what: "entries beyond a limit", max }) } else { Ok(()) }
}

/// Active Directory refers to its partitions of names and settings wherever a whole domain is searched; nobody is in them.
/// Everything else is a part of the tree that is missing.
fn refuse_reference(kind: Kind, urls: &[String]) -> Result<(), ServerError> {
    const NOBODY_THERE: [&str; 3] = ["dc=domaindnszones,", "dc=forestdnszones,", "cn=configuration,"];
    let is_of_nobody = |url: &String| {
        let name = url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        let name = name.map(|(_, name)| name.to_ascii_lowercase());
        name.is_some_and(|name| NOBODY_THERE.iter().any(|partition| name.starts_with(partition)))
    };
    if kind == Kind::ActiveDirectory && !urls.is_empty() && urls.iter().all(is_of_nobody) {
        return Ok(());
    }
    let first = urls.first().map(String::as_str).unwrap_or_default();
    Err(ServerError::Reference(wire::printable(first, limits::DIAGNOSTIC_BYTES_MAX)))
}

impl Ended {
    fn refused(self, what: &'static str) -> ServerError {
        ServerError::Result { what, code: self.code, diagnostic: self.diagnostic }
    }
}

impl Drop for Searcher {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_ignored_where_nobody_is() {
        let refused = |kind, urls: &[&str]| {
            refuse_reference(kind, &urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>()).is_err()
        };
        let zones = "ldap://DomainDnsZones.zixt.test/DC=DomainDnsZones,DC=zixt,DC=test";
        let settings = "ldaps://zixt.test/CN=Configuration,DC=zixt,DC=test??sub";
        let forest = "ldap://ForestDnsZones.zixt.test/dc=forestdnszones,DC=zixt,DC=test";
        for url in [zones, settings, forest] {
            assert!(!refused(Kind::ActiveDirectory, &[url]), "{url}");
            assert!(refused(Kind::Ldap, &[url]), "{url}");
        }
        let child = "ldap://sub.zixt.test/DC=sub,DC=zixt,DC=test";
        assert!(refused(Kind::ActiveDirectory, &[child]));
        assert!(refused(Kind::ActiveDirectory, &[zones, child]));
        assert!(refused(Kind::ActiveDirectory, &["ldap://x"]) && refused(Kind::ActiveDirectory, &[]));
        let hidden = "ldap://x/DC=sub,DC=DomainDnsZones,DC=test";
        assert!(refused(Kind::ActiveDirectory, &[hidden]));
    }
}
