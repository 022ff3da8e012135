//! Walking the published objects.

use std::time::SystemTime;

use super::bucket::Bucket;
use super::errors::failed;
use crate::blobs::{BlobError, Foreign, ObjectKey, ObjectPage, StoredObject};

/// The page after `after`: one request, and a further one for each 1,000 keys in a row that are no objects.
pub(super) async fn page(bucket: &Bucket, after: Option<ObjectKey>) -> Result<ObjectPage, BlobError> {
    let prefix = bucket.key("blobs/");
    let above = bucket.key("").len();
    let mut pages = bucket
        .client
        .list_objects_v2()
        .bucket(bucket.name())
        .prefix(&prefix)
        .set_start_after(after.map(|after| bucket.key(&after.path())))
        .into_paginator()
        .send();
    let mut page = ObjectPage::default();
    // What comes behind the page's last object is listed again with the next page.
    let mut trailing = Foreign::default();
    while let Some(listed) = pages.next().await {
        for listed in listed.map_err(failed(&prefix))?.contents() {
            let path = listed.key().and_then(|key| key.get(above..)).unwrap_or_default();
            // Consoles show folders by empty objects of such names.
            if path.ends_with('/') {
                continue;
            }
            let Some(key) = ObjectKey::of_path(path) else {
                trailing.add(path.to_owned());
                continue;
            };
            page.foreign.append(std::mem::take(&mut trailing));
            page.next = Some(key.clone());
            page.objects.push(StoredObject {
                key,
                size: u64::try_from(listed.size().unwrap_or(0)).unwrap_or(0),
                // What says nothing sensible counts as new.
                modified: listed
                    .last_modified()
                    .and_then(|at| SystemTime::try_from(*at).ok())
                    .unwrap_or_else(SystemTime::now),
            });
        }
        // A service may answer with more than it was asked for, or with less.
        if !page.objects.is_empty() {
            return Ok(page);
        }
    }
    page.foreign.append(trailing);
    Ok(page)
}
