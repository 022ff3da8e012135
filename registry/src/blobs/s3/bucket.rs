//! One bucket and prefix, and how requests to it are made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::types::ServerSideEncryption;
use uuid::Uuid;

use super::errors::Conflicts;
use super::state::SegmentName;
use super::traced::Traced;
use crate::blobs::ObjectKey;

/// How long opening a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// How long S3 may take to put the parts of an object together.
const COMPLETE: Duration = Duration::from_secs(600);
/// The slowest acceptable rate of a part being sent: bytes a second.
const SLOWEST: u64 = 256 << 10;
/// How long a transfer may stand still.
const STALLED: Duration = Duration::from_secs(20);
/// How often in a row an answer may break off without a byte.
const BREAKS: u32 = 3;
/// How often a request is tried in all.
const ATTEMPTS: u32 = 5;

/// How long an answer may take, and how long a connection, of a bucket that another one can stand in for.
const BRIEF_CONNECT: Duration = Duration::from_secs(1);
const BRIEF_ANSWER: Duration = Duration::from_secs(2);

/// Where objects lie and how the bucket is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The bucket's name.
    pub bucket: String,
    /// Keys are below this; empty or without slashes at its ends.
    pub prefix: String,
    /// The region; by default that of the AWS default chain.
    pub region: Option<String>,
    /// The service's URL, if it is not Amazon's.
    pub endpoint: Option<String>,
    /// The service's URL in presigned links, if clients reach it by another name.
    pub public_endpoint: Option<String>,
    /// Bucket in the path instead of the host name.
    pub path_style: bool,
    /// Bytes of a part, 5 MiB to 5 GiB; uploads that need larger ones to stay within 10,000 parts take them.
    pub part_size: u64,
    /// Encryption by the service.
    pub encryption: Option<Encryption>,
    /// How long its answers are waited for.
    pub patience: Patience,
}

/// How long answers are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as it makes sense: nothing else has the objects.
    Full,
    /// A second or two, once: they are to be had elsewhere.
    Brief,
}

/// Encryption by the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// With the service's keys.
    Aes256,
    /// With a key of the key management service; its default key if none is named.
    Kms(Option<String>),
}

/// The bucket with its clients.
pub(super) struct Bucket {
    pub(super) client: Client,
    /// Signs the links that clients get.
    pub(super) public: Client,
    options: Options,
    /// Whether the service takes conditions on writes; unknown until it refuses one.
    conditions: AtomicBool,
}

impl Bucket {
    /// Reads credentials and region by the AWS default chain. Makes no request to the bucket.
    pub(super) async fn open(options: Options) -> Self {
        let (attempts, patience) = match options.patience {
            Patience::Full => (ATTEMPTS, timeouts(CONNECT, ANSWER)),
            Patience::Brief => (1, timeouts(BRIEF_CONNECT, BRIEF_ANSWER)),
        };
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard().with_max_attempts(attempts))
            .timeout_config(patience)
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .grace_period(STALLED)
                    .build(),
            );
        if let Some(region) = &options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let shared = loader.load().await;
        // Many other stores refuse or ignore the checksums that the SDK adds unasked.
        let mut config = Builder::from(&shared)
            .force_path_style(options.path_style)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if shared.region().is_none() {
            // Part of every signature; what services without regions expect.
            config = config.region(Region::new("us-east-1"));
        }
        if let Some(endpoint) = &options.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let public = match &options.public_endpoint {
            Some(endpoint) => config.clone().endpoint_url(endpoint),
            None => config.clone(),
        };
        Self {
            // Signing makes no call: what hands out links is not traced.
            client: Client::from_conf(config.retry_classifier(Conflicts).interceptor(Traced).build()),
            public: Client::from_conf(public.build()),
            options,
            conditions: AtomicBool::new(true),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.options.bucket
    }

    pub(super) fn part_size(&self) -> u64 {
        self.options.part_size
    }

    /// How often in a row an answer may break off without a byte, and is asked for again.
    pub(super) fn breaks(&self) -> u32 {
        match self.options.patience {
            Patience::Full => BREAKS,
            Patience::Brief => 0,
        }
    }

    /// Whether writes may carry conditions.
    pub(super) fn takes_conditions(&self) -> bool {
        self.conditions.load(Ordering::Relaxed)
    }

    /// The service does not implement conditions: don't send it any more of them.
    pub(super) fn refuses_conditions(&self) {
        self.conditions.store(false, Ordering::Relaxed);
    }

    /// The full key of a path below the prefix.
    pub(super) fn key(&self, path: &str) -> String {
        match self.options.prefix.as_str() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        }
    }

    pub(super) fn object(&self, upload: Uuid) -> String {
        self.key(&ObjectKey::of_upload(upload).path())
    }

    pub(super) fn segment(&self, upload: Uuid, name: SegmentName) -> String {
        self.key(&name.path(upload))
    }

    /// The algorithm and key that objects are encrypted with.
    pub(super) fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.options.encryption {
            None => (None, None),
            Some(Encryption::Aes256) => (Some(ServerSideEncryption::Aes256), None),
            Some(Encryption::Kms(key)) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }
}

/// The settings of a request that sends `size` bytes: its answer comes after the last of them.
pub(super) fn sending(size: u64) -> Builder {
    Builder::default().timeout_config(timeouts(CONNECT, ANSWER + Duration::from_secs(size / SLOWEST)))
}

/// The settings of a request that puts an object together.
pub(super) fn completing() -> Builder {
    Builder::default().timeout_config(timeouts(CONNECT, COMPLETE))
}

fn timeouts(connect: Duration, answer: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(connect)
        .read_timeout(answer)
        .build()
}
