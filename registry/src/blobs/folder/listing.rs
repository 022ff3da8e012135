//! Walking the published objects.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use uuid::Uuid;

use super::failed;
use super::layout::Layout;
use crate::blobs::{BlobError, Foreign, ObjectKey, ObjectPage, StoredObject};

/// The page after `after`. A directory of objects is read once for each page that holds some of them.
pub(super) fn page(layout: &Layout, after: Option<ObjectKey>) -> Result<ObjectPage, BlobError> {
    let mut page = ObjectPage::default();
    if after.is_none() {
        page.foreign = beside_shards(layout)?;
    }
    let first = after.as_ref().map_or(0, ObjectKey::shard);
    for shard in first..=u8::MAX {
        let entered_before = after.as_ref().is_some_and(|after| after.shard() == shard);
        let behind = after.as_ref().filter(|_| entered_before);
        let room = ObjectPage::LIMIT - page.objects.len();
        let (keys, foreign) = shard_keys(layout, shard, behind, room)?;
        if !entered_before {
            page.foreign.append(foreign);
        }
        let last = keys.last().copied().filter(|_| keys.len() == room);
        for id in keys {
            page.objects.extend(look(layout, ObjectKey::of_upload(id))?);
        }
        if let Some(last) = last {
            page.next = Some(ObjectKey::of_upload(last));
            return Ok(page);
        }
    }
    Ok(page)
}

/// The first `room` ids behind `behind` in a directory, and everything in it that is no object.
fn shard_keys(
    layout: &Layout,
    shard: u8,
    behind: Option<&ObjectKey>,
    room: usize,
) -> Result<(BTreeSet<Uuid>, Foreign), BlobError> {
    let (mut keys, mut foreign) = (BTreeSet::new(), Foreign::default());
    for entry in fs::read_dir(layout.shard_path(shard)).map_err(failed("cannot list objects"))? {
        let entry = entry.map_err(failed("cannot list objects"))?;
        let path = format!("blobs/{shard:02x}/{}", entry.file_name().to_string_lossy());
        let is_file = entry
            .file_type()
            .map_err(failed("cannot list objects"))?
            .is_file();
        let Some(key) = ObjectKey::of_path(&path).filter(|_| is_file) else {
            foreign.add(path);
            continue;
        };
        if behind.is_none_or(|behind| key.upload() > behind.upload()) {
            keys.insert(key.upload());
            if keys.len() > room {
                keys.pop_last();
            }
        }
    }
    Ok((keys, foreign))
}

/// An object, unless it has been deleted meanwhile.
fn look(layout: &Layout, key: ObjectKey) -> Result<Option<StoredObject>, BlobError> {
    let found = fs::metadata(layout.object(&key)).and_then(|found| Ok((found.len(), found.modified()?)));
    match found {
        Ok((size, modified)) => Ok(Some(StoredObject { key, size, modified })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("cannot read an object's size")(error)),
    }
}

/// What lies where only the directories of objects should.
fn beside_shards(layout: &Layout) -> Result<Foreign, BlobError> {
    let mut foreign = Foreign::default();
    for entry in fs::read_dir(layout.root().join("blobs")).map_err(failed("cannot list objects"))? {
        let entry = entry.map_err(failed("cannot list objects"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let shard = u8::from_str_radix(&name, 16).ok();
        if shard.is_none_or(|shard| format!("{shard:02x}") != name) {
            foreign.add(format!("blobs/{name}"));
        }
    }
    Ok(foreign)
}
