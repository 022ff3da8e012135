//! `berth-registry serve`: everything put together, run, and drained.

use std::io::{self, Write};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Ended;
use super::data_folder::DataFolder;
use super::file_limit;
use super::log::Form;
use super::signals::{Signals, on_hangup};
use super::startup::{self, Addresses};
use super::stores::{self, Stores};
use crate::admin::manifests::Folder;
use crate::admin::{self, Admin, AdminKeys, Configurator};
use crate::audit::Audit;
use crate::blobs::budget::Budget;
use crate::distribution;
use crate::egress::{Allow, Client, Dialer};
use crate::explorer::{self, Explorer};
use crate::identity::Identity;
use crate::identity::keys::KeyRing;
use crate::identity::trust::Verifier;
use crate::lifecycle::figures::Figures;
use crate::lifecycle::fsck::{self, Fsck};
use crate::lifecycle::metering::Price;
use crate::lifecycle::{self, Keeper};
use crate::metadata::Time;
use crate::metadata::configuration::FirstTenant;
use crate::ops;
use crate::ops::metrics::Metrics;
use crate::ops::ready::Readiness;
use crate::regions::{self, Regions};
use crate::server::tls::{self, Certificate};
use crate::server::{Limits, Server, bind};
use crate::settings::{Settings, TlsFiles};
use crate::standby::{self, Standby};
use crate::telemetry::{self, Traces};
use crate::tenancy::directory::KeyIds;
use crate::tenancy::names::{Apex, FIRST_TENANT};
use crate::tenancy::origin::Rules;
use crate::tenancy::{self, Directory};
use crate::upstream::{self, Remotes};
use crate::webhooks::{self, Site, Teller, Webhooks};

/// Between two looks at the keys.
const KEYS_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
/// Connections to the admin and ops listeners, each.
const SIDE_CONNECTIONS: usize = 1024;

/// A second signal came while requests were still in flight.
#[derive(Debug, thiserror::Error)]
#[error("a second signal cut the requests that were still in flight")]
struct Cut;

struct Listeners {
    api: TcpListener,
    admin: TcpListener,
    ops: TcpListener,
}

/// Serves until a signal, then drains; what is to be traced of it is sent last.
pub(super) async fn run(settings: &Settings, form: Form, traces: Option<Traces>) -> Ended {
    let sending = traces.map(Traces::send).transpose()?;
    let ended = serve(settings, form).await;
    if let Some(sending) = sending {
        sending.finish().await;
    }
    ended
}

async fn serve(settings: &Settings, form: Form) -> Ended {
    let mut signals = Signals::new()?;
    file_limit::raise();
    let _held = if settings.holds_data_folder() {
        Some(DataFolder::hold(&settings.data)?)
    } else {
        None
    };
    let admin_keys = AdminKeys::open(&settings.admin_key_file, settings.admin_key_in_data())?;
    let keys = Arc::new(KeyRing::open(&settings.keys, settings.keys_in_data())?);
    let api_tls = certificate(&settings.tls, "")?;
    let admin_tls = certificate(&settings.admin_tls, "admin-")?;
    let listeners = Listeners {
        api: bind("listen", settings.listen)?,
        admin: bind("admin-listen", settings.admin_listen)?,
        ops: bind("ops-listen", settings.ops_listen)?,
    };
    let addresses = Addresses {
        api: listeners.api.local_addr()?,
        admin: listeners.admin.local_addr()?,
        ops: listeners.ops.local_addr()?,
    };

    // The ops listener first, so that a slow start can be told from a dead process.
    let budget = Budget::new(settings.upload_memory);
    let readiness = Arc::new(Readiness::default());
    let metrics = Metrics::new(budget.clone(), settings.upload_memory, readiness.clone());
    let end = CancellationToken::new();
    let ops_server = Server::new(side_limits(settings), None, end.clone());
    let ops_router = ops::router(metrics.clone(), readiness.clone());
    tokio::spawn(ops_server.serve(listeners.ops, None, ops_router));

    let stores = tokio::select! {
        stores = stores::once_there(settings, &budget, &readiness) => stores?,
        _ = signals.stop() => return Ok(()),
    };
    let regions = match &settings.regions {
        Some(path) => Some(Regions::open(path, settings.zone.as_deref(), budget.clone()).await?),
        None => None,
    };
    let standby = settings
        .read_only
        .then(|| Standby::follow(stores.position.clone(), settings.max_lag));
    if let Some(standby) = standby.clone() {
        readiness.warn_by(move || standby.warning());
    }
    let tenancy = Tenancy::open(settings, &stores, keys).await?;
    let following = tokio::spawn(tenancy.directory.clone().follow(end.clone().cancelled_owned()));
    if let Some(folder) = &settings.manifests {
        let folder = Folder::new(
            folder.clone(),
            tenancy.configurator.clone(),
            stores.configuration.clone(),
        );
        // Once before anything is served, so that what the folder says holds from the first request.
        folder.apply().await;
        tokio::spawn(folder.follow());
    }
    let parts = distribution::Parts {
        metadata: stores.metadata.clone(),
        position: stores.position.clone(),
        reading: standby.clone(),
        blobs: stores.blobs.clone(),
        regions: regions.clone(),
        directory: tenancy.directory.clone(),
        identity: tenancy.identity.clone(),
        pulls: tenancy.keeper.pulls.clone(),
        traffic: tenancy.keeper.traffic.clone(),
        lifecycle: stores.lifecycle.clone(),
        teller: tenancy.teller.clone(),
        caches: distribution::CacheParts {
            remotes: tenancy.remotes.clone(),
            shared: !stores.alone,
            address: settings
                .peer_address
                .filter(|_| settings.tls.is_none())
                .map(|address| format!("http://{address}")),
            spool_folder: std::env::temp_dir(),
            spool_size: settings.spool_size,
        },
    };
    let webhooks = tenancy.webhooks(settings, &stores, startup::registry_name(settings, &addresses));
    // All of these write: a registry that only reads leaves them to its primary.
    if !settings.read_only {
        tokio::spawn(tenancy.remotes.clone().follow());
        tokio::spawn(tenancy.remotes.clone().watch());
        tenancy.keeper.start();
        webhooks.start(settings.metadata.starts_with("sqlite:"));
    }
    let mut collectors: Vec<Box<dyn Collector>> = vec![
        Box::new(tls::Expiries::of([
            ("api", api_tls.clone()),
            ("admin", admin_tls.clone()),
        ])),
        Box::new(telemetry::Figures),
        Box::new(tenancy::Figures::of(tenancy.directory.clone())),
    ];
    let teller = match (&standby, &settings.primary) {
        (Some(_), Some(primary)) => {
            let (pulls, keys) = (tenancy.keeper.pulls.clone(), tenancy.keys.clone());
            let teller = standby::pulls::Teller::new(primary, pulls, keys);
            Some(teller.map_err(|why| format!("--primary {primary}: {why}"))?)
        }
        _ => None,
    };
    if let Some(teller) = teller.clone() {
        tokio::spawn(teller.follow());
    }
    // What only replicas do, and only they know.
    if let Some(standby) = standby {
        collectors.push(Box::new(standby::Figures::of(standby, teller.clone())));
    } else {
        let tells_tenants = settings.tenant_metrics;
        collectors.push(Box::new(Figures::of(tenancy.keeper.clone())));
        collectors.push(Box::new(upstream::Figures::of(
            tenancy.remotes.clone(),
            tells_tenants,
        )));
        collectors.push(Box::new(webhooks::Figures::of(webhooks.clone(), tells_tenants)));
    }
    if let Some(regions) = regions {
        collectors.push(Box::new(regions::Figures::of(regions)));
    }
    metrics.also(collectors);
    let registry = distribution::Registry::open(settings, parts).await?;
    let mut api_router = distribution::router(registry.clone());
    let explorer = tenancy.explorer(settings, &stores);
    if !settings.read_only {
        // Without the pages too: what pushes leave to be read would otherwise grow for ever.
        tokio::spawn(explorer::follow(explorer.clone()));
    }
    if settings.explorer {
        api_router = explorer::router(explorer).merge(api_router);
    }
    tokio::spawn(follow_admin_keys(admin_keys.clone()));
    let admin = Admin {
        warmer: Some(distribution::Warmer::new(registry)),
        webhooks: Some(webhooks),
        ..tenancy.admin(&stores)
    };
    let admin_router = if settings.read_only {
        admin::reading_router(admin_keys, admin)
    } else {
        tokio::spawn(admin.fsck.clone().follow());
        admin::router(admin_keys, admin)
    };

    let drain = CancellationToken::new();
    let api_server = Server::new(limits(settings), Some(metrics.clone()), drain.clone());
    let admin_server = Server::new(side_limits(settings), Some(metrics), drain.clone());
    let api_config = api_tls.as_ref().map(Certificate::config).transpose()?;
    let admin_config = admin_tls.as_ref().map(Certificate::config).transpose()?;
    let mut serving = tokio::spawn(async move {
        tokio::join!(
            api_server.serve(listeners.api, api_config, api_router),
            admin_server.serve(listeners.admin, admin_config, admin_router),
        );
    });
    // From here on it may be ready: the configuration has been read, and the listeners are served.
    tokio::spawn(stores::watch(readiness.clone(), &stores));
    follow([api_tls, admin_tls])?;
    announce(
        settings,
        &addresses,
        form,
        tenancy.directory.now().is_configured(),
    );

    let signal = tokio::select! {
        signal = signals.stop() => signal,
        // Only a panic ends it before the drain.
        ended = &mut serving => return Ok(ended?),
    };
    readiness.drain();
    drain.cancel();
    tracing::info!(signal, timeout = ?settings.drain_timeout, "draining: no new connections, requests in flight finish");
    let drained = drained(&mut serving, settings, &mut signals).await;
    end.cancel();
    tenancy.identity.settle().await;
    if !settings.read_only {
        tenancy.keeper.pulls.flush(&*stores.lifecycle).await;
        tenancy.remotes.flush().await;
    }
    if let Some(teller) = teller
        && let Err(why) = teller.tell_last().await
    {
        tracing::warn!(
            why,
            "the primary does not take the last pulls that were served here"
        );
    }
    // Only a panic is an error here, and it has been logged.
    let _ = following.await;
    drained
}

/// Waits for the requests in flight, for the drain's time, or for a second signal.
async fn drained(serving: &mut JoinHandle<()>, settings: &Settings, signals: &mut Signals) -> Ended {
    tokio::select! {
        ended = serving => {
            tracing::info!("drained");
            Ok(ended?)
        }
        () = tokio::time::sleep(settings.drain_timeout) => {
            tracing::warn!("--drain-timeout has passed; the requests still in flight are cut");
            Ok(())
        }
        _ = signals.stop() => Err(Cut.into()),
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        connections: settings.max_connections,
        header_timeout: settings.header_timeout,
        idle_timeout: settings.idle_timeout,
        body_timeout: settings.body_timeout,
        min_rate: settings.min_rate,
    }
}

fn side_limits(settings: &Settings) -> Limits {
    Limits {
        connections: SIDE_CONNECTIONS,
        ..limits(settings)
    }
}

/// The admin API alone, on the stores of a server that does not run, and the key that opens it.
pub(super) async fn admin_alone(
    settings: &Settings,
) -> Result<(axum::Router, String), Box<dyn std::error::Error>> {
    let keys = Arc::new(KeyRing::open(&settings.keys, settings.keys_in_data())?);
    let admin_keys = AdminKeys::open(&settings.admin_key_file, settings.admin_key_in_data())?;
    let stores = stores::open(settings, Budget::new(settings.upload_memory)).await?;
    let tenancy = Tenancy::open(settings, &stores, keys).await?;
    // The process that asks is no replica that serves.
    tenancy.directory.leave().await?;
    let key = std::fs::read_to_string(&settings.admin_key_file)?;
    let key = berth_crds::admin::current_key(&key).to_owned();
    Ok((admin::router(admin_keys, tenancy.admin(&stores)), key))
}

/// Who lives here, and who may do what.
struct Tenancy {
    directory: Arc<Directory>,
    identity: Arc<Identity>,
    configurator: Arc<Configurator>,
    keeper: Arc<Keeper>,
    remotes: Arc<Remotes>,
    teller: Arc<Teller>,
    keys: Arc<KeyRing>,
    client: Client,
}

impl Tenancy {
    /// What delivers events; `apex` is the bare domain as clients name it.
    fn webhooks(&self, settings: &Settings, stores: &Stores, apex: String) -> Arc<Webhooks> {
        Webhooks::new(webhooks::Parts {
            store: stores.events.clone(),
            directory: self.directory.clone(),
            keys: self.keys.clone(),
            client: self.client.clone(),
            site: Site {
                scheme: settings.external_scheme,
                apex,
                names: settings.names(),
            },
            retry: settings.webhook_retry,
            keep: settings.webhook_keep,
        })
    }

    /// The pages for people.
    fn explorer(&self, settings: &Settings, stores: &Stores) -> Explorer {
        Explorer::new(explorer::Parts {
            metadata: stores.metadata.clone(),
            configuration: stores.configuration.clone(),
            explore: stores.explore.clone(),
            pull_through: stores.pull_through.clone(),
            keeper: self.keeper.clone(),
            blobs: stores.blobs.clone(),
            directory: self.directory.clone(),
            identity: self.identity.clone(),
            names: settings.names(),
            origins: Rules {
                trusted: settings.trusted_proxies.clone(),
                headers: settings.proxy_headers,
                scheme: settings.external_scheme,
            },
            only_reads: settings.read_only,
            may_be_open: settings.may_be_open(),
        })
    }

    async fn open(
        settings: &Settings,
        stores: &Stores,
        keys: Arc<KeyRing>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let store = stores.configuration.clone();
        if settings.names().apex == Apex::First && !settings.read_only {
            let sparse = format!(r#"{{"repositories":{{"sparse":"{}"}}}}"#, settings.sparse);
            let first = FirstTenant {
                name: FIRST_TENANT.parse()?,
                spec: sparse,
                now: Time::now(),
            };
            store.first_tenant(first).await?;
        }
        let known = keys.clone();
        let ids: KeyIds = Arc::new(move || known.signing_ids());
        let directory = match settings.read_only {
            true => Directory::look(store.clone(), ids).await?,
            false => Directory::open(store.clone(), ids).await?,
        };
        let dialer = Dialer::new(Allow(settings.egress_allow.clone())).with_proxies_of_environment();
        let client = Client::new(dialer);
        let teller = Teller::new(stores.events.clone());
        let remotes = Remotes::new(
            client.clone(),
            keys.clone(),
            stores.pull_through.clone(),
            directory.clone(),
            teller.clone(),
        );
        let verifier = Verifier::new(client.clone(), settings.domain.clone());
        let audit = match settings.read_only {
            true => Audit::logging(),
            false => Audit::start(store.clone(), settings.audit_retention),
        };
        let (recorded, notes_use) = (audit.clone(), !settings.read_only);
        let identity = Identity::start(
            store.clone(),
            keys.clone(),
            directory.clone(),
            verifier,
            recorded,
            notes_use,
        );
        let keeper = Keeper::new(lifecycle::Parts {
            metadata: stores.metadata.clone(),
            store: stores.lifecycle.clone(),
            blobs: stores.blobs.clone(),
            directory: directory.clone(),
            audit: audit.clone(),
            delays: settings.delays,
            rate: settings.gc_rate,
            tells_tenants: settings.tenant_metrics,
            history: settings.audit_retention,
            price: Price {
                micros: berth_crds::price_micros(&settings.price)?,
                currency: settings.currency.clone(),
            },
        });
        let domain = settings.domain.to_ascii_lowercase();
        let configurator = Arc::new(Configurator::new(store, directory.clone(), keys.clone(), domain));
        tokio::spawn(follow_keys(keys.clone()));
        Ok(Self {
            directory,
            identity,
            configurator,
            keeper,
            remotes,
            teller,
            keys,
            client,
        })
    }

    fn admin(&self, stores: &Stores) -> Admin {
        Admin {
            configurator: self.configurator.clone(),
            store: stores.configuration.clone(),
            directory: self.directory.clone(),
            identity: self.identity.clone(),
            keeper: self.keeper.clone(),
            collecting: Arc::default(),
            collecting_failed: Default::default(),
            fsck: Fsck::new(
                fsck::Parts {
                    inspection: stores.inspection.clone(),
                    lifecycle: stores.lifecycle.clone(),
                    blobs: stores.blobs.clone(),
                    directory: self.directory.clone(),
                },
                stores.alone,
            ),
            remotes: self.remotes.clone(),
            warmer: None,
            events: stores.events.clone(),
            webhooks: None,
        }
    }
}

/// Reads the keys again now and then: a mounted Secret changes without a signal.
async fn follow_keys(keys: Arc<KeyRing>) {
    loop {
        tokio::time::sleep(KEYS_EVERY).await;
        let again = keys.clone();
        // Files are read on a thread that may wait.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || again.reload()).await {
            tracing::error!(%error, "the keys cannot be read; those in use stay");
        }
    }
}

/// Reads the admin keys again now and then.
async fn follow_admin_keys(keys: AdminKeys) {
    loop {
        tokio::time::sleep(KEYS_EVERY).await;
        let again = keys.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || again.reload()).await {
            tracing::error!(%error, "the admin keys cannot be read; those in use stay");
        }
    }
}

fn certificate(
    files: &Option<TlsFiles>,
    prefix: &'static str,
) -> Result<Option<Arc<Certificate>>, crate::server::tls::TlsError> {
    files
        .as_ref()
        .map(|files| Certificate::load(files.clone(), prefix))
        .transpose()
}

/// Follows the certificates' files; SIGHUP has them looked at now.
fn follow(certificates: [Option<Arc<Certificate>>; 2]) -> io::Result<()> {
    let certificates: Vec<_> = certificates.into_iter().flatten().collect();
    for certificate in &certificates {
        tokio::spawn(certificate.clone().follow());
    }
    on_hangup(move || certificates.iter().for_each(|certificate| certificate.look_now()))
}

/// The start-up text: for people as it is, else as one event.
fn announce(settings: &Settings, addresses: &Addresses, form: Form, configured: bool) {
    let text = startup::text(settings, addresses, configured);
    match form {
        // Nobody may be reading; the server goes on.
        Form::Text => drop(writeln!(io::stdout(), "{text}")),
        Form::Json => tracing::info!(
            listen = %addresses.api,
            admin_listen = %addresses.admin,
            ops_listen = %addresses.ops,
            open = settings.may_be_open() && !configured,
            text,
            "the registry is ready"
        ),
    }
}
