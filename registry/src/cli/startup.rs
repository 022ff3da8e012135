//! What a started server says about itself: where to push and pull, and who may.

use std::net::SocketAddr;

use crate::settings::{ApexTenant, Scheme, Settings};

/// Where the listeners really listen (port 0 was replaced by the system).
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) api: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) ops: SocketAddr,
}

/// The registry as image names begin: `localhost:5000`, `registry.example.com`.
pub(super) fn registry_name(settings: &Settings, addresses: &Addresses) -> String {
    let port = addresses.api.port();
    let usual = match settings.external_scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    // Where clients use another scheme than this listener's, something in front takes its own port.
    let direct = settings.external_scheme == Scheme::of_listener(settings.tls.is_some());
    if direct && port != usual {
        format!("{}:{port}", settings.domain)
    } else {
        settings.domain.clone()
    }
}

/// The start-up text, for people.
pub(super) fn text(settings: &Settings, addresses: &Addresses, configured: bool) -> String {
    let name = registry_name(settings, addresses);
    let tenant = match settings.apex_tenant {
        Some(ApexTenant::PathAddressed) => "TENANT/",
        Some(ApexTenant::Tenant(_)) | None => "",
    };
    let api = Scheme::of_listener(settings.tls.is_some());
    let admin = Scheme::of_listener(settings.admin_tls.is_some());
    let version = env!("CARGO_PKG_VERSION");
    let push = match settings.read_only {
        true => String::new(),
        false => format!("\x20   docker push {name}/{tenant}app:v1\n"),
    };
    format!(
        "Berth {version} is ready at {scheme}://{name} (listening on {api}://{listen})\n\
         \n\
         {push}\x20   docker pull {name}/{tenant}app:v1\n\
         \n\
         {access}\n\
         \n\
         Admin API            {admin}://{admin_listen}, key in {key}\n\
         Metrics and probes   http://{ops}\n",
        scheme = settings.external_scheme,
        listen = addresses.api,
        access = access(settings, configured),
        admin_listen = addresses.admin,
        key = settings.admin_key_file.display(),
        ops = addresses.ops,
    )
}

fn access(settings: &Settings, configured: bool) -> String {
    if settings.read_only {
        return match &settings.primary {
            Some(primary) => format!("It only reads: pushes and changes go to {primary}."),
            None => "It only reads: pushes and changes go to the registry that it follows.".to_owned(),
        };
    }
    if settings.may_be_open() && !configured {
        return "It is open: whoever can reach this machine's loopback interface may push and pull without a\n\
                credential. Configuring a tenant, listening on another address, or --open Never ends that."
            .to_owned();
    }
    let tenant = match &settings.apex_tenant {
        Some(ApexTenant::Tenant(name)) => name.as_str(),
        Some(ApexTenant::PathAddressed) => "TENANT",
        None => "default",
    };
    format!("Requests need a token:\n\n\x20   berth-registry token create ci --tenant {tenant}")
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;
    use crate::settings::resolve;

    fn shown(flags: &[&str]) -> String {
        let flags = ["test"].iter().chain(flags).copied();
        let matches = resolve::arguments(Command::new("test"))
            .try_get_matches_from(flags)
            .unwrap();
        let settings = Settings::new(&resolve::resolve(&matches, &|_| None).unwrap()).unwrap();
        let addresses = Addresses {
            api: settings.listen,
            admin: settings.admin_listen,
            ops: settings.ops_listen,
        };
        text(&settings, &addresses, false)
    }

    #[test]
    fn a_first_run_says_where_to_push_and_that_loopback_is_open() {
        let text = shown(&[]);
        assert!(text.contains("docker push localhost:5000/app:v1"), "{text}");
        assert!(
            text.contains("http://localhost:5000") && text.contains("It is open"),
            "{text}"
        );
    }

    #[test]
    fn a_server_that_others_reach_says_that_it_needs_a_token() {
        let text = shown(&["--listen=0.0.0.0:5000"]);
        assert!(
            text.contains("berth-registry token create") && !text.contains("It is open"),
            "{text}"
        );
    }

    #[test]
    fn a_server_that_only_reads_says_where_pushes_go() {
        let stores = [
            "--metadata=postgres://db/berth",
            "--blobs=s3://bucket",
            "--read-only=true",
        ];
        let text = shown(&[&stores[..], &["--primary=https://registry.example.com"]].concat());
        assert!(text.contains("go to https://registry.example.com."), "{text}");
        assert!(
            text.contains("docker pull") && !text.contains("docker push"),
            "{text}"
        );
    }

    #[test]
    fn the_name_follows_tls_domain_and_what_stands_in_front() {
        let tls = shown(&["--tls-cert=/c", "--tls-key=/k"]);
        assert!(
            tls.contains("https://localhost:5000 (listening on https://127.0.0.1:5000)"),
            "{tls}"
        );
        let proxied = shown(&["--domain=registry.example.com", "--external-scheme=https"]);
        assert!(
            proxied.contains("docker push registry.example.com/app:v1"),
            "{proxied}"
        );
        let paths = shown(&["--apex-tenant=none"]);
        assert!(
            paths.contains("docker push localhost:5000/TENANT/app:v1"),
            "{paths}"
        );
    }
}
