//! The settings: flags in `args` of the kubelet's CredentialProviderConfig, or variables in its `env`.

use std::path::PathBuf;

use clap::Parser;

/// A kubelet credential provider for Berth: exchanges a pod's service-account token for a password that pulls one
/// repository.
///
/// The kubelet starts it, as its CredentialProviderConfig says, with a CredentialProviderRequest on standard input.
#[derive(Debug, Default, Parser)]
#[command(name = "berth-credential-provider", version)]
pub struct Settings {
    /// PEM file with certificates of authorities that are trusted besides the system's
    #[arg(long, env = "BERTH_CREDENTIAL_PROVIDER_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Further host that tokens may be sent to; without it only the tokens' audience, which is the registry's domain, and
    /// the names below it. For the own domains of tenants; may be repeated
    #[arg(
        long = "host",
        env = "BERTH_CREDENTIAL_PROVIDER_HOSTS",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub hosts: Vec<String>,

    /// Host, with its port if images name one, that is spoken to by plain HTTP, where everyone on the way can read the
    /// token; may be repeated
    #[arg(
        long,
        env = "BERTH_CREDENTIAL_PROVIDER_PLAIN_HTTP",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub plain_http: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_settings_are_well_formed_and_nothing_is_plain_by_default() {
        Settings::command().debug_assert();
        let settings = Settings::parse_from(["berth-credential-provider"]);
        assert!(settings.plain_http.is_empty() && settings.hosts.is_empty() && settings.ca_file.is_none());
        let settings = Settings::parse_from(["x", "--host=a.example", "--host=b.example,c.example"]);
        assert_eq!(settings.hosts, ["a.example", "b.example", "c.example"]);
    }
}
