//! A proxy that sends every *request*, not every connection, to the next replica: what a client does
//! in one session reaches all of them in turn.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONNECTION, EXPECT, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

type Body = BoxBody<bytes::Bytes, hyper::Error>;

/// The proxy. Its connections end when it is dropped.
#[derive(Debug)]
pub struct RoundRobin {
    address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct State {
    client: Client<HttpConnector, Incoming>,
    replicas: Vec<String>,
    headers: HeaderMap,
    served: Vec<AtomicU64>,
    next: AtomicUsize,
    /// The numbers of the replicas that get requests.
    chosen: RwLock<Vec<usize>>,
}

impl RoundRobin {
    /// A proxy on a free loopback port before replicas at these `host:port` addresses.
    pub async fn start(replicas: Vec<String>) -> RoundRobin {
        RoundRobin::adding(replicas, HeaderMap::new()).await
    }

    /// The same, putting these headers in the place of the client's own in every request.
    pub async fn adding(replicas: Vec<String>, headers: HeaderMap) -> RoundRobin {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a loopback port");
        let address = listener.local_addr().expect("a bound address");
        let state = Arc::new(State {
            client: Client::builder(TokioExecutor::new()).build_http(),
            served: replicas.iter().map(|_| AtomicU64::new(0)).collect(),
            next: AtomicUsize::new(0),
            chosen: RwLock::new((0..replicas.len()).collect()),
            replicas,
            headers,
        });
        let accepting = tokio::spawn(accept(listener, state.clone())).abort_handle();
        RoundRobin {
            address,
            state,
            accepting,
        }
    }

    /// One that logs in with this token, whatever the client sends.
    pub async fn with_token(replica: String, token: &str) -> RoundRobin {
        let login = STANDARD.encode(format!("x-token:{token}"));
        let login = HeaderValue::from_str(&format!("Basic {login}")).expect("a header");
        RoundRobin::adding(vec![replica], HeaderMap::from_iter([(AUTHORIZATION, login)])).await
    }

    /// `host:port` of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on only these replicas get requests.
    pub fn route_to(&self, replicas: &[usize]) {
        *self.state.chosen.write().expect("no writer panics") = replicas.to_vec();
    }

    /// How many requests each replica has been sent.
    pub fn served(&self) -> Vec<u64> {
        self.state
            .served
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect()
    }
}

impl Drop for RoundRobin {
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
        let _ = stream.set_nodelay(true);
        while connections.try_join_next().is_some() {}
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| forward(state.clone(), request));
            let _ = auto::Builder::new(TokioExecutor::new())
                .http1_only()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn forward(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let replica = {
        let chosen = state.chosen.read().expect("no writer panics");
        chosen[state.next.fetch_add(1, Ordering::Relaxed) % chosen.len()]
    };
    state.served[replica].fetch_add(1, Ordering::Relaxed);
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("http://{}{path}", state.replicas[replica]).parse::<Uri>() else {
        return Ok(failure(StatusCode::BAD_REQUEST, "not a path"));
    };
    parts.uri = uri;
    strip_hop_by_hop(&mut parts.headers);
    for (name, value) in &state.headers {
        parts.headers.insert(name.clone(), value.clone());
    }
    Ok(
        match state.client.request(Request::from_parts(parts, body)).await {
            Ok(answer) => {
                let (mut parts, body) = answer.into_parts();
                strip_hop_by_hop(&mut parts.headers);
                Response::from_parts(parts, body.boxed())
            }
            Err(error) => failure(StatusCode::BAD_GATEWAY, &format!("replica {replica}: {error}")),
        },
    )
}

/// What belongs to one connection is not passed on. `Expect` was answered by this proxy.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let keep_alive = HeaderName::from_static("keep-alive");
    for name in [CONNECTION, keep_alive, TE, TRANSFER_ENCODING, UPGRADE, EXPECT] {
        headers.remove(name);
    }
}

fn failure(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::from(text.to_owned())
        .map_err(|never| match never {})
        .boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
