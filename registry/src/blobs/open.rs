//! Opening a blob store by its URL, as it stands in the settings.

use std::path::Path;
use std::sync::Arc;

use url::Url;

use super::BlobStore;
use super::budget::Budget;
use super::folder::{FolderStore, LockError};
use super::s3::{Encryption, Options, Patience, S3Store};

/// S3's smallest part but for the last.
const SMALLEST_PART: u64 = 5 << 20;
/// S3's largest part.
const LARGEST_PART: u64 = 5 << 30;
/// Parts of 16 MiB reach to 156 GiB.
const DEFAULT_PART: u64 = 16 << 20;

/// Why a blob store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL says something that is not understood.
    #[error("blob store {url:?}: {problem}")]
    Invalid {
        /// The URL.
        url: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] LockError),
}

/// What a URL names.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Folder(String),
    Bucket(Options),
}

/// Opens `folder:<path>` or `s3://<bucket>[/<prefix>][?<option>=<value>&…]` with the options `region`,
/// `endpoint`, `public-endpoint`, `path-style` (`true`, `false`), `part-size` (bytes, or with the unit KiB, MiB
/// or GiB; 5 MiB to 5 GiB), `sse` (`AES256`, `aws:kms`) and `kms-key`. Credentials come from the AWS default
/// chain. Upload buffers come out of `budget`.
pub async fn open(url: &str, budget: Budget) -> Result<Arc<dyn BlobStore>, OpenError> {
    match parse(url).map_err(|problem| OpenError::Invalid {
        url: url.to_owned(),
        problem,
    })? {
        Place::Folder(path) => Ok(Arc::new(FolderStore::open(Path::new(&path), budget)?)),
        Place::Bucket(options) => Ok(Arc::new(S3Store::open(options, budget).await)),
    }
}

/// Opens a bucket whose objects are to be had elsewhere too, so that it is not waited for.
pub async fn open_brief(url: &str, budget: Budget) -> Result<Arc<dyn BlobStore>, OpenError> {
    let invalid = |problem: String| OpenError::Invalid {
        url: url.to_owned(),
        problem,
    };
    match parse(url).map_err(invalid)? {
        Place::Folder(_) => Err(invalid("write s3://<bucket>/<prefix>".to_owned())),
        Place::Bucket(options) => {
            let options = Options {
                patience: Patience::Brief,
                ..options
            };
            Ok(Arc::new(S3Store::open(options, budget).await))
        }
    }
}

fn parse(url: &str) -> Result<Place, String> {
    if let Some(path) = url.strip_prefix("folder:") {
        return match path {
            "" => Err("write folder:<path>".to_owned()),
            path => Ok(Place::Folder(path.to_owned())),
        };
    }
    if url.starts_with("s3:") {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        return bucket(&url).map(Place::Bucket);
    }
    Err("write folder:<path> or s3://<bucket>/<prefix>".to_owned())
}

fn bucket(url: &Url) -> Result<Options, String> {
    let bucket = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or("write s3://<bucket>/<prefix>")?;
    if url.port().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(
            "only a bucket may stand there: write the service as ?endpoint=, and the credentials \
                    in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
                .to_owned(),
        );
    }
    if url.fragment().is_some() {
        return Err("there is a # in it; write %23".to_owned());
    }
    let prefix = percent_encoding::percent_decode_str(url.path().trim_matches('/')).decode_utf8();
    let mut options = Options {
        bucket: bucket.to_owned(),
        prefix: prefix.map_err(|_| "the prefix is not UTF-8")?.into_owned(),
        region: None,
        endpoint: None,
        public_endpoint: None,
        path_style: false,
        part_size: DEFAULT_PART,
        encryption: None,
        patience: Patience::Full,
    };
    let (mut sse, mut kms_key) = (None, None);
    for (name, value) in url.query_pairs() {
        let value = value.into_owned();
        match &*name {
            "region" => options.region = Some(value),
            "endpoint" => options.endpoint = Some(endpoint(value)?),
            "public-endpoint" => options.public_endpoint = Some(endpoint(value)?),
            "path-style" => options.path_style = value.parse().map_err(|_| "path-style is true or false")?,
            "part-size" => options.part_size = part_size(&value)?,
            "sse" => sse = Some(value),
            "kms-key" => kms_key = Some(value),
            other => return Err(format!("there is no option {other:?}")),
        }
    }
    options.encryption = match (sse.as_deref(), kms_key) {
        (None, None) => None,
        (Some("AES256"), None) => Some(Encryption::Aes256),
        (Some("aws:kms"), key) => Some(Encryption::Kms(key)),
        (_, Some(_)) => return Err("kms-key goes with sse=aws:kms only".to_owned()),
        (Some(other), None) => return Err(format!("sse is AES256 or aws:kms, not {other:?}")),
    };
    Ok(options)
}

fn endpoint(value: String) -> Result<String, String> {
    match Url::parse(&value) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(value),
        _ => Err(format!("an endpoint is an http or https URL, not {value:?}")),
    }
}

/// A number of bytes, with a binary unit or none.
fn part_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .into_iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
        .unwrap_or((text, 1));
    let size = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit));
    let wrong = || format!("part-size is between 5MiB and 5GiB, not {text:?}");
    size.filter(|size| (SMALLEST_PART..=LARGEST_PART).contains(size))
        .ok_or_else(wrong)
}

/// The bucket that a URL names.
#[cfg(test)]
pub(super) fn bucket_options(url: &str) -> Options {
    let Ok(Place::Bucket(options)) = parse(url) else {
        panic!("{url} names no bucket")
    };
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_by_its_path() {
        assert_eq!(
            parse("folder:./data/blobs"),
            Ok(Place::Folder("./data/blobs".into()))
        );
        assert!(parse("folder:").is_err());
        assert!(parse("/data").unwrap_err().contains("folder:<path>"));
    }

    #[test]
    fn every_option_of_a_bucket_is_read() {
        let options = bucket_options(
            "s3://images/a/b%20c/?region=eu-1&endpoint=http://127.0.0.1:9000&path-style=true&part-size=64MiB\
             &public-endpoint=https%3A%2F%2Fs3.example.com&sse=aws:kms&kms-key=k",
        );
        let expected = Options {
            bucket: "images".into(),
            prefix: "a/b c".into(),
            region: Some("eu-1".into()),
            endpoint: Some("http://127.0.0.1:9000".into()),
            public_endpoint: Some("https://s3.example.com".into()),
            path_style: true,
            part_size: 64 << 20,
            encryption: Some(Encryption::Kms(Some("k".into()))),
            patience: Patience::Full,
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn a_bare_bucket_has_defaults() {
        let options = bucket_options("s3://images");
        assert_eq!((options.prefix.as_str(), options.part_size), ("", 16 << 20));
        assert!(options.encryption.is_none() && !options.path_style);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, named) in [
            ("s3://b?regoin=x", "regoin"),
            ("s3://b?part-size=1MiB", "1MiB"),
            ("s3://b?part-size=99999999999GiB", "99999999999GiB"),
            ("s3://b?sse=AES128", "AES128"),
            ("s3://b?kms-key=x", "kms-key"),
            ("s3://b?endpoint=localhost", "localhost"),
            ("s3://b?path-style=yes", "path-style"),
            ("s3://key:secret@b", "AWS_ACCESS_KEY_ID"),
            ("s3:///x", "s3://<bucket>"),
        ] {
            let problem = parse(url).unwrap_err();
            assert!(problem.contains(named), "{url}: {problem}");
        }
    }
}
