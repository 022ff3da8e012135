//! Where a request goes, below `/admin/v1/`. Whatever a name says, it stays the part of the path or the parameter that it
//! was given as: names come from objects that others write.

use reqwest::Url;

use super::{RegistryError, broken};

/// A path and its parameters, not written as a URL yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    segments: Vec<String>,
    parameters: Vec<(&'static str, String)>,
}

impl Target {
    /// By the path's segments.
    pub fn at<const N: usize>(segments: [&str; N]) -> Self {
        Self {
            segments: segments.map(str::to_owned).into(),
            parameters: Vec::new(),
        }
    }

    /// Further segments, separated by slashes.
    pub fn below(mut self, path: &str) -> Self {
        self.segments.extend(path.split('/').map(str::to_owned));
        self
    }

    /// A parameter.
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.parameters.push((key, value.to_string()));
        self
    }

    /// The URL. A segment that a client or a server may take for another place is refused.
    pub fn url(&self, base: &Url) -> Result<Url, RegistryError> {
        let is_elsewhere = |segment: &String| {
            matches!(segment.as_str(), "" | "." | "..") || segment.contains(char::is_control)
        };
        if let Some(segment) = self.segments.iter().find(|segment| is_elsewhere(segment)) {
            return Err(broken(
                &"a name that the registry cannot have",
                &segment.escape_debug(),
            ));
        }
        let mut url = base.clone();
        url.path_segments_mut()
            .map_err(|()| broken(base, &"no URL of a registry"))?
            .pop_if_empty()
            .extend(["admin", "v1"])
            .extend(&self.segments);
        if !self.parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.parameters);
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(target: &Target) -> Result<String, RegistryError> {
        let base = Url::parse("https://registry.test:5001").unwrap();
        target.url(&base).map(String::from)
    }

    #[test]
    fn a_name_stays_one_segment_and_a_value_one_parameter() {
        let plain = Target::at(["tenants", "acme"]).below("repositories/apps/api");
        assert_eq!(
            url(&plain).unwrap(),
            "https://registry.test:5001/admin/v1/tenants/acme/repositories/apps/api"
        );
        let hostile = "../../victim?erase=true#";
        let token = Target::at(["tenants", "acme", "tokens", hostile]).with("term", 7);
        assert_eq!(
            url(&token).unwrap(),
            "https://registry.test:5001/admin/v1/tenants/acme/tokens/..%2F..%2Fvictim%3Ferase=true%23?term=7"
        );
        let policy = Target::at(["usage"]).with("tenant", "a&erase=true#%2F/");
        assert_eq!(
            url(&policy).unwrap(),
            "https://registry.test:5001/admin/v1/usage?tenant=a%26erase%3Dtrue%23%252F%2F"
        );
        let encoded = Target::at(["tenants", "%2e%2e"]);
        assert!(url(&encoded).unwrap().ends_with("/tenants/%252e%252e"));
    }

    #[test]
    fn a_segment_that_leads_elsewhere_is_refused() {
        for segment in ["", ".", "..", ".\t.", "\n..", "a\0"] {
            let target = Target::at(["tenants", segment]);
            assert!(
                matches!(url(&target), Err(RegistryError::Invalid(_))),
                "{segment:?}"
            );
        }
        assert!(url(&Target::at(["tenants"]).below("acme/../victim")).is_err());
        assert!(url(&Target::at(["tenants"]).below("acme//victim")).is_err());
    }
}
