//! The file of `--regions`: read strictly, since a region that is not the one that was meant is found out late.

use std::collections::HashMap;

use http::HeaderName;
use ipnet::IpNet;
use serde::Deserialize;

/// The header that names a region if the file says nothing.
const HEADER: HeaderName = HeaderName::from_static("x-berth-region");
/// What home is called if no region stands for it.
const HOME: &str = "home";
/// Most regions: each is a series of the metrics.
const MOST: usize = 64;
/// Most networks and zones of a region.
const MOST_OF_ONE: usize = 1000;
/// Longest name, in bytes.
const NAME_LIMIT: usize = 63;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    header: Option<String>,
    regions: Vec<WrittenRegion>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenRegion {
    name: String,
    blobs: Option<String>,
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default)]
    zones: Vec<String>,
    #[serde(default)]
    globally_replicated: bool,
}

/// A region's bucket.
#[derive(Debug, PartialEq, Eq)]
pub struct BucketPlan {
    /// The same kind of URL as `--blobs`.
    pub url: String,
    /// Whether it has every object as soon as home has it, so that none is looked for.
    pub globally_replicated: bool,
}

/// What the file says. A place is the index of a bucket, or none for home.
#[derive(Debug)]
pub struct Plan {
    pub header: HeaderName,
    pub home: String,
    pub buckets: Vec<(String, BucketPlan)>,
    /// Longest prefix first.
    pub networks: Vec<(IpNet, Option<usize>)>,
    zones: HashMap<String, Option<usize>>,
}

impl Plan {
    /// Whose zone this is.
    pub fn zone(&self, zone: &str) -> Option<Option<usize>> {
        self.zones.get(zone).copied()
    }
}

/// Reads the file's text, or says what is wrong with it.
pub fn read(text: &str) -> Result<Plan, String> {
    let written: Written = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let header = match written.header {
        None => HEADER,
        Some(name) => header(&name)?,
    };
    if written.regions.is_empty() || written.regions.len() > MOST {
        return Err(format!("name 1 to {MOST} regions"));
    }
    let mut plan = Plan {
        header,
        home: HOME.to_owned(),
        buckets: Vec::new(),
        networks: Vec::new(),
        zones: HashMap::new(),
    };
    let mut names = Vec::new();
    let mut has_home = false;
    for region in written.regions {
        let name = region.name.clone();
        check_name(&name)?;
        if names.contains(&name) {
            return Err(format!("region {name} is there twice"));
        }
        let place = match region.blobs {
            Some(ref url) => {
                if !url.starts_with("s3://") {
                    return Err(format!(
                        "region {name}: blobs is s3://<bucket>/<prefix>?…, not {url:?}"
                    ));
                }
                let bucket = BucketPlan {
                    url: url.clone(),
                    globally_replicated: region.globally_replicated,
                };
                plan.buckets.push((name.clone(), bucket));
                Some(plan.buckets.len() - 1)
            }
            None if has_home => {
                return Err(format!(
                    "region {name} has no blobs: only one region is home, whose bucket is that of --blobs"
                ));
            }
            None if region.globally_replicated => {
                return Err(format!("region {name}: globallyReplicated goes with blobs"));
            }
            None => {
                has_home = true;
                plan.home.clone_from(&name);
                None
            }
        };
        plan.add(&name, &region, place)?;
        names.push(name);
    }
    if !has_home && names.iter().any(|name| name == HOME) {
        return Err(format!(
            "{HOME} is what --blobs is called; leave out its blobs, or call it otherwise"
        ));
    }
    plan.networks
        .sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
    Ok(plan)
}

impl Plan {
    fn add(&mut self, name: &str, region: &WrittenRegion, place: Option<usize>) -> Result<(), String> {
        if region.networks.len() > MOST_OF_ONE || region.zones.len() > MOST_OF_ONE {
            return Err(format!(
                "region {name} has more than {MOST_OF_ONE} networks or zones"
            ));
        }
        for text in &region.networks {
            let network: IpNet = text.parse().map_err(|_| {
                format!("region {name}: {text:?} is no network; write for example 10.1.0.0/16")
            })?;
            let network = network.trunc();
            if self.networks.iter().any(|(other, _)| *other == network) {
                return Err(format!("region {name}: network {network} is there twice"));
            }
            self.networks.push((network, place));
        }
        for zone in &region.zones {
            if zone.is_empty() {
                return Err(format!("region {name}: a zone has a name"));
            }
            if self.zones.insert(zone.clone(), place).is_some() {
                return Err(format!("region {name}: zone {zone} is there twice"));
            }
        }
        Ok(())
    }
}

fn header(name: &str) -> Result<HeaderName, String> {
    let header = HeaderName::try_from(name).map_err(|_| format!("{name:?} is no name of a header"))?;
    // Others mean something already, to the registry or to whatever stands in front of it.
    if header.as_str().starts_with("x-forwarded-") || !header.as_str().contains('-') {
        return Err(format!(
            "header {name} means something else; write for example {HEADER}"
        ));
    }
    Ok(header)
}

/// Names stand in headers, metrics and logs.
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_LIMIT || !name.bytes().all(allowed) {
        return Err(format!(
            "region {name:?}: a name is 1 to {NAME_LIMIT} lower-case letters, digits and hyphens"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_names_buckets_networks_and_zones_and_which_region_is_home() {
        let plan = read(
            "header: CloudFront-Viewer-Region\n\
             regions:\n\
             - name: us\n  networks: [10.1.4.0/24]\n  zones: [us-east-1a]\n\
             - name: eu\n  blobs: s3://eu?region=eu-1\n  networks: [10.1.0.9/16, 'fd00::/8']\n  zones: [eu-1a, eu-1b]\n\
             - name: asia\n  blobs: s3://all\n  globallyReplicated: true\n",
        )
        .unwrap();
        assert_eq!(plan.header.as_str(), "cloudfront-viewer-region");
        assert_eq!(plan.home, "us");
        assert_eq!(plan.buckets.len(), 2);
        assert!(!plan.buckets[0].1.globally_replicated && plan.buckets[1].1.globally_replicated);
        let networks: Vec<String> = plan
            .networks
            .iter()
            .map(|(network, place)| format!("{network} {place:?}"))
            .collect();
        assert_eq!(
            networks,
            ["10.1.4.0/24 None", "10.1.0.0/16 Some(0)", "fd00::/8 Some(0)"]
        );
        assert_eq!(plan.zone("eu-1b"), Some(Some(0)));
        assert_eq!(plan.zone("us-east-1a"), Some(None));
        assert_eq!(plan.zone("elsewhere"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let one = |rest: &str| format!("regions:\n- name: eu\n  {rest}\n");
        for (text, named) in [
            (String::new(), "regions"),
            ("regions: []".into(), "1 to 64"),
            ("regions: {}\n".into(), "sequence"),
            (one("bucket: s3://x"), "bucket"),
            (one("blobs: folder:/data"), "folder:/data"),
            (one("blobs: s3://x\n  networks: [10.0.0.0]"), "10.0.0.0"),
            (
                one("blobs: s3://x\n  networks: [10.0.0.1/8, 10.0.0.2/8]"),
                "twice",
            ),
            (one("blobs: s3://x\n  zones: [a, a]"), "twice"),
            (one("blobs: s3://x\n  zones: ['']"), "zone"),
            (one("globallyReplicated: true"), "globallyReplicated"),
            (one("blobs: s3://x\n- name: eu\n  blobs: s3://y"), "twice"),
            (one("zones: [a]\n- name: us"), "only one region is home"),
            ("regions:\n- name: EU\n".into(), "EU"),
            ("regions:\n- name: home\n  blobs: s3://x\n".into(), "home"),
            (format!("header: host\n{}", one("blobs: s3://x")), "host"),
            (
                format!("header: X-Forwarded-For\n{}", one("blobs: s3://x")),
                "X-Forwarded-For",
            ),
            (format!("header: 'a b'\n{}", one("blobs: s3://x")), "a b"),
        ] {
            let problem = read(&text).unwrap_err();
            assert!(problem.contains(named), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = read(&text);
        }
    }
}
