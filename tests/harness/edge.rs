//! An installation behind the run's edge: clients reach its replicas only by the routes that the operator makes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client as Http, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::backend::{Backend, Storage};
use crate::berth::Berth;
use crate::client::Client;
use crate::environment::setting;
use crate::http::{Answer, attempt, client};
use crate::installation::{DOMAIN, Installation};
use crate::ports::free_port;

/// Name of the run's Gateway, of its namespace and of the class of Ingresses.
const EDGE: &str = "edge";

/// Which API the operator makes routes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutesBy {
    /// HTTPRoutes of the run's Gateway.
    Gateway,
    /// Ingresses of the run's class.
    Ingress,
}

impl RoutesBy {
    /// The kind of a route.
    pub fn kind(self) -> &'static str {
        match self {
            RoutesBy::Gateway => "HTTPRoute",
            RoutesBy::Ingress => "Ingress",
        }
    }

    /// What an administrator of this edge tells the operator.
    fn flags(self) -> Vec<String> {
        match self {
            RoutesBy::Gateway => vec![
                "--exposure=gateway".to_owned(),
                format!("--gateway={EDGE}"),
                format!("--gateway-namespace={EDGE}"),
            ],
            RoutesBy::Ingress => vec![
                "--exposure=ingress".to_owned(),
                format!("--ingress-class={EDGE}"),
                // This edge ends an answer after 15 seconds; a layer may take longer.
                "--route-annotation=projectcontour.io/response-timeout=infinity".to_owned(),
            ],
        }
    }
}

/// Two replicas on one database and one bucket, their Service, and the edge before it.
pub struct Edge {
    /// The installation; its `registry` is the first replica.
    pub berth: Installation,
    others: Vec<Berth>,
    http: Http,
    address: String,
}

impl Edge {
    /// A replica on each of the run's node addresses, and an operator that makes routes to them.
    pub async fn start(by: RoutesBy) -> Edge {
        let storage = Arc::new(Storage::create(Backend::Distributed));
        // The first one makes the keys that all of them share.
        let keys = storage.data(0).join("keys");
        let port = free_port();
        let nodes = setting("BERTH_TEST_NODES");
        let nodes: Vec<&str> = nodes.split(' ').collect();
        let mut replicas = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let mut builder = Berth::builder()
                .storage(storage.clone(), number)
                .listen(&format!("{node}:{port}"))
                .flag("--domain", DOMAIN)
                .flag("--external-scheme", "http")
                .flag("--apex-tenant", "none")
                .flag("--open", "Never");
            if number > 0 {
                builder = builder.flag("--keys", keys.to_str().expect("a plain path"));
            }
            replicas.push(builder.start().await);
        }
        let others = replicas.split_off(1);
        let first = replicas.pop().expect("there is a node");
        let installer = Installation::builder().registry(first);
        let installer = by.flags().iter().fold(installer, |made, flag| made.flag(flag));
        let edge = Edge {
            berth: installer.start().await,
            others,
            http: client(),
            address: setting("BERTH_TEST_EDGE"),
        };
        edge.serve_at(&nodes, port).await;
        edge
    }

    /// The Service, with the endpoints that Kubernetes would find by its selector if it ran the replicas.
    async fn serve_at(&self, nodes: &[&str], port: u16) {
        // Release and namespace have one name, and so has the Service of the chart.
        let (name, namespace) = (&self.berth.id, &self.berth.id);
        let endpoints: Vec<Value> = nodes
            .iter()
            .map(|node| json!({ "addresses": [node], "conditions": { "ready": true } }))
            .collect();
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": port }] },
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": namespace, "labels": { "kubernetes.io/service-name": name },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
            "endpoints": endpoints,
        });
        for object in [service, slice] {
            self.berth.plane.apply(object).await.expect("a Service");
        }
    }

    /// A request to a host by way of the edge.
    pub fn request(&self, method: Method, host: &str, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.address))
            .header("host", host)
    }

    /// What a host answers to the ping with a password; nothing if the connection breaks.
    pub async fn ping(&self, host: &str, password: &str) -> Option<Answer> {
        let request = self.request(Method::GET, host, "/v2/");
        attempt(request.basic_auth("x-token", Some(password))).await
    }

    /// A client program that uses the edge as its HTTP proxy, and so names the host in each request, with the
    /// credentials of a Secret as they are.
    pub fn client(&self, program: &str, secret: &Value) -> Client {
        let client = Client::new(program).variable("HTTP_PROXY", &format!("http://{}", self.address));
        let docker = STANDARD.decode(secret["data"][".dockerconfigjson"].as_str().unwrap_or_default());
        client.file(".docker/config.json", &docker.expect("base64"));
        client
    }

    /// How many requests of a method each replica has answered.
    pub async fn answered(&self, method: &str) -> Vec<u64> {
        let mut counts = Vec::new();
        for replica in std::iter::once(&self.berth.registry).chain(&self.others) {
            let text = attempt(self.http.get(replica.ops_url("/metrics"))).await;
            let text = text.expect("metrics").text();
            let start = format!(r#"berth_http_requests_total{{method="{method}","#);
            let lines = text.lines().filter(|line| line.starts_with(&start));
            let count = |line: &str| {
                line.rsplit(' ')
                    .next()
                    .and_then(|count| count.parse::<u64>().ok())
            };
            counts.push(lines.filter_map(count).sum());
        }
        counts
    }
}
