//! Which region a request is for, and what becomes of one that fails.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use super::*;
use crate::blobs::folder::FolderStore;
use crate::blobs::{BlobError, BlobStream, BlobWriter, ObjectKey, ObjectPage, UploadState};
use crate::settings::Scheme;

fn origin(address: &str, by_proxy: bool) -> Origin {
    Origin {
        authority: "registry.test".into(),
        host: "registry.test".into(),
        scheme: Scheme::Http,
        direct: Scheme::Http,
        address: address.parse().unwrap(),
        by_proxy,
        local: false,
    }
}

async fn regions(zone: Option<&str>) -> Arc<Regions> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "regions:\n\
                - {name: us, networks: [10.1.4.0/24], zones: [us-1a]}\n\
                - {name: eu, blobs: 's3://b/eu?endpoint=http://127.0.0.1:1', networks: [10.1.0.0/16], zones: [eu-1a]}\n\
                - {name: asia, blobs: 's3://b/asia?endpoint=http://127.0.0.1:1', networks: ['fd00::/8']}\n";
    std::fs::write(file.path(), text).unwrap();
    Regions::open(file.path(), zone, Budget::new(1)).await.unwrap()
}

fn chosen<'r>(regions: &'r Regions, named: &[&str], origin: &Origin) -> &'r str {
    let mut headers = HeaderMap::new();
    for name in named {
        headers.append("x-berth-region", HeaderValue::from_str(name).unwrap());
    }
    regions
        .of(&headers, origin)
        .map_or_else(|| regions.home(), |region| region.name())
}

#[tokio::test]
async fn a_proxy_s_word_goes_before_the_network_and_the_network_before_the_zone() {
    let regions = regions(Some("eu-1a")).await;
    for (named, address, by_proxy, expected) in [
        (&["asia"][..], "10.1.0.1", true, "asia"),
        (&["us"], "10.1.0.1", true, "us"),
        (&["nowhere"], "10.1.0.1", true, "us"),
        (&["asia", "eu"], "10.1.0.1", true, "us"),
        (&[""], "fd00::1", true, "asia"),
        (&["asia"], "10.1.0.1", false, "eu"),
        (&["asia"], "10.1.4.1", false, "us"),
        (&[], "::ffff:10.1.4.1", false, "us"),
        (&[], "fd00::1", false, "asia"),
        (&[], "192.0.2.1", false, "eu"),
    ] {
        let found = chosen(&regions, named, &origin(address, by_proxy));
        assert_eq!(found, expected, "{named:?} {address} {by_proxy}");
    }
}

#[tokio::test]
async fn without_a_zone_of_a_region_whoever_is_in_no_network_reads_at_home() {
    for zone in [None, Some("us-1a"), Some("elsewhere")] {
        let regions = regions(zone).await;
        assert_eq!(chosen(&regions, &[], &origin("192.0.2.1", false)), "us");
    }
}

/// A bucket that sends the first half of whatever is read and breaks off.
struct Half(Vec<u8>);

#[async_trait]
impl BlobStore for Half {
    fn begin(&self) -> UploadState {
        unreachable!("nothing is written to a region")
    }
    async fn resume(
        &self,
        _: Uuid,
        _: i64,
        _: UploadState,
        _: Option<u64>,
    ) -> Result<Box<dyn BlobWriter>, BlobError> {
        unreachable!("nothing is written to a region")
    }
    async fn complete(&self, _: Uuid, _: &UploadState) -> Result<u64, BlobError> {
        unreachable!("nothing is written to a region")
    }
    async fn discard(&self, _: Uuid, _: &UploadState) -> Result<(), BlobError> {
        unreachable!("nothing is written to a region")
    }
    async fn read(&self, _: &ObjectKey, range: Range<u64>) -> Result<BlobStream, BlobError> {
        let (start, end) = (range.start as usize, range.end as usize);
        let half = self.0[start..start + (end - start) / 2].to_vec();
        let broken = Err(BlobError::Unavailable("cut".into()));
        Ok(stream::iter([Ok(half.into()), broken]).boxed())
    }
    async fn delete(&self, _: &ObjectKey) -> Result<(), BlobError> {
        unreachable!("nothing is deleted in a region")
    }
    async fn size(&self, _: &ObjectKey) -> Result<Option<u64>, BlobError> {
        Ok(Some(self.0.len() as u64))
    }
    async fn objects(&self, _: Option<ObjectKey>) -> Result<ObjectPage, BlobError> {
        unreachable!("a region is not listed")
    }
    async fn presign(&self, _: &ObjectKey, _: std::time::Duration) -> Result<Option<String>, BlobError> {
        Ok(None)
    }
    async fn probe(&self) -> Result<(), BlobError> {
        Ok(())
    }
    async fn unpublished(&self, _: std::time::Duration, _: Option<Uuid>) -> Result<Vec<Uuid>, BlobError> {
        unreachable!("a region is not listed")
    }
    async fn sweep(&self, _: Uuid) -> Result<(), BlobError> {
        unreachable!("nothing is deleted in a region")
    }
}

use std::ops::Range;

#[tokio::test]
async fn bytes_that_break_off_go_on_at_home_from_where_they_stopped() {
    let content: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let folder = tempfile::tempdir().unwrap();
    let home: Arc<dyn BlobStore> = Arc::new(FolderStore::open(folder.path(), Budget::new(16 << 20)).unwrap());
    let id = Uuid::new_v4();
    let mut writer = home.resume(id, 1, home.begin(), None).await.unwrap();
    writer.write(content.clone().into()).await.unwrap();
    writer.finish().await.unwrap();
    let key = ObjectKey::of_upload(id);
    let region = Arc::new(Region::new("eu", Arc::new(Half(content.clone())), false));
    tokio::spawn(region.clone().watch());
    while !region.is_up() {
        tokio::task::yield_now().await;
    }

    assert!(region.holds(&key, 100_000).await);
    assert!(
        !region.holds(&ObjectKey::of_upload(Uuid::new_v4()), 99).await,
        "another size"
    );
    for range in [0..100_000, 1..99_999, 500..501] {
        let stream = region.read(&home, &key, range.clone()).await.unwrap();
        let read: Vec<_> = stream.map(Result::unwrap).collect().await;
        let expected = &content[range.start as usize..range.end as usize];
        assert!(read.concat() == expected, "{range:?}");
    }
    assert_eq!(region.tally.broken.load(Ordering::Relaxed), 3);
    assert!(!region.is_up());
    assert!(
        !region.holds(&key, 100_000).await,
        "a region that broke is away for a while"
    );
}
