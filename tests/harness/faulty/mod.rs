//! A way to a registry on which faults happen as a test says, and which remembers all that was asked.
//!
//! Requests go on to a server at another address, with everything that the client said. [`Fault`]s are put on
//! requests by their method and a part of their path. A [`Guard`] asks for credentials in the server's place.

mod body;
mod guard;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, RANGE, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use self::body::{Body, plain};
pub use self::guard::Guard;
use crate::dice::Dice;

/// What happens to a request or to its answer. Several on one request all happen.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is answered after this time.
    Late(Duration),
    /// It is never answered.
    Hangs,
    /// It is answered with this status and these headers, and the server does not see it.
    Answered(u16, Vec<(&'static str, String)>),
    /// It is answered with this status and an error of S3 by this code, and the server does not see it.
    Refused(u16, &'static str),
    /// The server does what was asked, and the connection is cut in place of its answer.
    Lost,
    /// The connection is cut when so many bytes of the body were sent.
    Cut(u64),
    /// The byte at this place of the body is another.
    Flipped(u64),
    /// The body is followed by more, without an end and without a length.
    Endless,
    /// The body ends in order after so many bytes, without a length.
    Short(u64),
    /// So many bytes of the body are sent in a second.
    Slow(u64),
    /// The body stops at this place until [`Faulty::release`].
    Held(u64),
    /// The server is asked for the whole, whatever part the client wants.
    Whole,
    /// The answer lacks a header; without `Content-Length` it is chunked.
    Without(&'static str),
    /// The answer has a header more.
    With(&'static str, &'static str),
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Question {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// When it came.
    pub at: Instant,
    progress: Arc<Progress>,
}

/// How far the body of an answer has come.
#[derive(Debug, Default)]
struct Progress {
    sent: AtomicU64,
    is_over: AtomicBool,
}

impl Question {
    /// A header's value as text; the empty string if it is absent.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// How many bytes of the answer's body have been sent so far, those in buffers included.
    pub fn sent(&self) -> u64 {
        self.progress.sent.load(Ordering::SeqCst)
    }

    /// Whether the answer's body has ended, or nobody reads it any more.
    pub fn is_over(&self) -> bool {
        self.progress.is_over.load(Ordering::SeqCst)
    }

    fn is(&self, method: &str, part: &str) -> bool {
        (method == "*" || self.method.as_str() == method) && self.path.contains(part)
    }
}

/// The way. It ends with its value.
#[derive(Debug)]
pub struct Faulty {
    address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct State {
    client: Client<HttpConnector, Incoming>,
    server: String,
    rules: Mutex<Vec<Rule>>,
    asked: Mutex<Vec<Question>>,
    connections: AtomicU64,
    guard: Mutex<Option<Guard>>,
    is_down: watch::Sender<bool>,
    is_released: watch::Sender<bool>,
}

#[derive(Debug)]
struct Rule {
    method: String,
    part: String,
    fault: Fault,
    when: When,
}

#[derive(Debug)]
enum When {
    Always,
    /// For so many further requests.
    Left(usize),
    /// For one of so many requests, as the dice fall.
    OneIn(u64, Dice),
}

impl When {
    fn is_now(&mut self) -> bool {
        match self {
            When::Always => true,
            When::Left(0) => false,
            When::Left(left) => {
                *left -= 1;
                true
            }
            When::OneIn(count, dice) => dice.below(*count) == 0,
        }
    }
}

impl Faulty {
    /// Opens a way to `server`, given as `host:port`.
    ///
    /// # Panics
    /// If no port is to be had.
    pub async fn before(server: &str) -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State {
            client: Client::builder(TokioExecutor::new()).build_http(),
            server: server.to_owned(),
            rules: Mutex::default(),
            asked: Mutex::default(),
            connections: AtomicU64::new(0),
            guard: Mutex::default(),
            is_down: watch::Sender::new(false),
            is_released: watch::Sender::new(false),
        });
        let accepting = tokio::spawn(accept(listener, state.clone())).abort_handle();
        Faulty {
            address,
            state,
            accepting,
        }
    }

    /// `host:port`, where clients connect.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The URL of the whole.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this happens to each request with this method, `*` for all, and this part in its path.
    pub fn always(&self, method: &str, part: &str, fault: Fault) {
        self.add(method, part, fault, When::Always);
    }

    /// The same for the next `count` of them.
    pub fn times(&self, count: usize, method: &str, part: &str, fault: Fault) {
        self.add(method, part, fault, When::Left(count));
    }

    /// The same for one of `count` of them, as the dice fall.
    pub fn one_in(&self, count: u64, dice: &mut Dice, method: &str, part: &str, fault: Fault) {
        self.add(method, part, fault, When::OneIn(count, dice.split()));
    }

    /// The same for the next of them.
    pub fn once(&self, method: &str, part: &str, fault: Fault) {
        self.times(1, method, part, fault);
    }

    /// Nothing happens to requests that come from now on.
    pub fn heal(&self) {
        self.state.rules.lock().expect("no holder panics").clear();
    }

    /// Bodies that are held go on, and none is held any more.
    pub fn release(&self) {
        self.state.is_released.send_replace(true);
    }

    /// Asks for these credentials from now on; none reach the server.
    pub fn guard(&self, guard: Guard) {
        *self.state.guard.lock().expect("no holder panics") = Some(guard);
    }

    /// Cuts all connections, and closes each new one at once.
    pub fn go_down(&self) {
        self.state.is_down.send_replace(true);
    }

    /// Serves again.
    pub fn come_up(&self) {
        self.state.is_down.send_replace(false);
    }

    /// All that was asked since the start, or since [`Faulty::forget`], also what faults answered.
    pub fn asked(&self) -> Vec<Question> {
        self.state.asked.lock().expect("no holder panics").clone()
    }

    /// Of these the ones with a method, `*` for all, and with a part in their path.
    pub fn questions(&self, method: &str, part: &str) -> Vec<Question> {
        let mut found = self.asked();
        found.retain(|question| question.is(method, part));
        found
    }

    /// How many these are.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.questions(method, part).len()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.state.asked.lock().expect("no holder panics").clear();
    }

    /// How many connections were opened so far, also those that were closed at once.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    fn add(&self, method: &str, part: &str, fault: Fault, when: When) {
        let rule = Rule {
            method: method.to_owned(),
            part: part.to_owned(),
            fault,
            when,
        };
        self.state.rules.lock().expect("no holder panics").push(rule);
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        state.connections.fetch_add(1, Ordering::SeqCst);
        let _ = stream.set_nodelay(true);
        while connections.try_join_next().is_some() {}
        let state = state.clone();
        connections.spawn(async move {
            let mut is_down = state.is_down.subscribe();
            let service = service_fn(|request| answer(state.clone(), request));
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                biased;
                _ = is_down.wait_for(|is_down| *is_down) => {}
                _ = served => {}
            }
        });
    }
}

impl State {
    /// Remembers a request, and finds what happens to it.
    fn note(&self, request: &Request<Incoming>) -> (Question, Vec<Fault>) {
        let path = request.uri().path_and_query();
        let question = Question {
            method: request.method().clone(),
            path: path.map_or("/", |path| path.as_str()).to_owned(),
            headers: request.headers().clone(),
            at: Instant::now(),
            progress: Arc::default(),
        };
        self.asked
            .lock()
            .expect("no holder panics")
            .push(question.clone());
        let mut faults = Vec::new();
        let mut rules = self.rules.lock().expect("no holder panics");
        for rule in rules.iter_mut() {
            if question.is(&rule.method, &rule.part) && rule.when.is_now() {
                faults.push(rule.fault.clone());
            }
        }
        (question, faults)
    }

    /// The server's own answer.
    async fn forward(&self, mut request: Request<Incoming>, path: &str) -> Option<Response<Incoming>> {
        *request.uri_mut() = format!("http://{}{path}", self.server).parse::<Uri>().ok()?;
        self.client.request(request).await.ok()
    }
}

async fn answer(state: Arc<State>, mut request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (question, faults) = state.note(&request);
    for fault in &faults {
        match fault {
            Fault::Late(delay) => tokio::time::sleep(*delay).await,
            Fault::Hangs => std::future::pending().await,
            Fault::Answered(status, headers) => return Ok(scripted(*status, headers)),
            Fault::Refused(status, code) => return Ok(refused(*status, code)),
            Fault::Whole => {
                request.headers_mut().remove(RANGE);
            }
            _ => {}
        }
    }
    let unlet = {
        let mut guard = state.guard.lock().expect("no holder panics");
        let guard = guard.as_mut();
        guard.and_then(|guard| guard.look(&mut request))
    };
    if let Some(answer) = unlet {
        return Ok(answer);
    }
    let Some(answer) = state.forward(request, &question.path).await else {
        return Ok(plain(StatusCode::BAD_GATEWAY, "the server does not answer"));
    };
    if faults.iter().any(|fault| matches!(fault, Fault::Lost)) {
        return Err(io::Error::other("lost, as the test says"));
    }
    let (mut parts, incoming) = answer.into_parts();
    parts.headers.remove(TRANSFER_ENCODING);
    for fault in &faults {
        match fault {
            Fault::Without(name) => {
                parts.headers.remove(*name);
            }
            Fault::With(name, value) => {
                parts.headers.insert(*name, HeaderValue::from_static(value));
            }
            Fault::Endless | Fault::Short(_) => {
                parts.headers.remove(CONTENT_LENGTH);
            }
            _ => {}
        }
    }
    let body = if question.method == Method::HEAD {
        body::empty()
    } else {
        let released = state.is_released.subscribe();
        body::faulty(incoming, faults, released, question.progress)
    };
    Ok(Response::from_parts(parts, body))
}

fn refused(status: u16, code: &str) -> Response<Body> {
    let status = StatusCode::from_u16(status).expect("a status");
    let text = format!("<Error><Code>{code}</Code><Message>as the test says</Message></Error>");
    plain(status, &text)
}

fn scripted(status: u16, headers: &[(&'static str, String)]) -> Response<Body> {
    let status = StatusCode::from_u16(status).expect("a status");
    let mut answer = plain(status, "as the test says");
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).expect("a header's value");
        answer.headers_mut().insert(HeaderName::from_static(name), value);
    }
    answer
}
