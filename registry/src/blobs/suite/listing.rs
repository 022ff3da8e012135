//! Walking the published objects, and their sizes.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::{MEMORY, PART, Place, bytes, on_both_stores, write};
use crate::blobs::{Foreign, ObjectKey, ObjectPage};

on_both_stores!(MEMORY;
    the_walk_shows_each_object_with_its_size_and_age,
    an_empty_store_has_one_page,
    the_walk_goes_on_after_any_key,
    pages_are_bounded,
    what_is_no_object_is_told_once,
    an_upload_that_is_not_published_is_no_object,
    the_size_of_an_object_is_known_until_it_is_deleted,
);

/// All pages.
async fn walk(place: &Place) -> Vec<ObjectPage> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = place.store.objects(after).await.unwrap();
        after = page.next.clone();
        pages.push(page);
        if after.is_none() {
            return pages;
        }
    }
}

fn paths(pages: &[ObjectPage]) -> Vec<String> {
    let objects = pages.iter().flat_map(|page| &page.objects);
    objects.map(|object| object.key.path()).collect()
}

async fn the_walk_shows_each_object_with_its_size_and_age(place: Place) {
    let mut pushed = BTreeMap::new();
    for size in [0, 1, 100_000, PART + 1] {
        pushed.insert(place.push(&bytes(1, size)).await.path(), size as u64);
    }

    let pages = walk(&place).await;

    let seen: Vec<(String, u64)> = pages
        .iter()
        .flat_map(|page| &page.objects)
        .map(|object| (object.key.path(), object.size))
        .collect();
    assert_eq!(
        seen,
        pushed.into_iter().collect::<Vec<_>>(),
        "in the order of paths"
    );
    for object in pages.iter().flat_map(|page| &page.objects) {
        let age = SystemTime::now()
            .duration_since(object.modified)
            .unwrap_or_default();
        assert!(age < Duration::from_secs(60), "{age:?}");
    }
    place.clean_up().await;
}

async fn an_empty_store_has_one_page(place: Place) {
    assert_eq!(walk(&place).await, [ObjectPage::default()]);
    place.clean_up().await;
}

async fn the_walk_goes_on_after_any_key(place: Place) {
    for _ in 0..12 {
        place.push(b"content").await;
    }
    let all = paths(&walk(&place).await);

    for (index, path) in all.iter().enumerate() {
        let after = ObjectKey::of_path(path).unwrap();
        let rest = place.store.objects(Some(after)).await.unwrap();
        assert_eq!(paths(&[rest]), all[index + 1..]);
    }
    // Also after one that is not there any more.
    let gone = ObjectKey::of_path(&all[5]).unwrap();
    place.store.delete(&gone).await.unwrap();
    let rest = place.store.objects(Some(gone)).await.unwrap();
    assert_eq!(paths(&[rest]), all[6..]);
    place.clean_up().await;
}

async fn pages_are_bounded(place: Place) {
    let mut planted: Vec<String> = (0..ObjectPage::LIMIT + 200)
        .map(|_| ObjectKey::of_upload(Uuid::new_v4()).path())
        .collect();
    for path in &planted {
        place.plant(path).await;
    }
    planted.sort();

    let pages = walk(&place).await;

    assert!(pages.len() > 1 && pages.iter().all(|page| page.objects.len() <= ObjectPage::LIMIT));
    assert_eq!(paths(&pages), planted);
    place.clean_up().await;
}

async fn what_is_no_object_is_told_once(place: Place) {
    let object = place.push(b"content").await;
    let elsewhere = format!("blobs/{:02x}/{}", object.shard() ^ 1, object.upload());
    let planted = [
        "blobs/README".to_owned(),
        "blobs/zz/file".to_owned(),
        format!("{}.bak", object.path()),
        format!("blobs/{:02x}/!first", object.shard()),
        elsewhere,
    ];
    for path in &planted {
        place.plant(path).await;
    }

    let pages = walk(&place).await;

    assert_eq!(paths(&pages), [object.path()]);
    let told: Vec<&Foreign> = pages.iter().map(|page| &page.foreign).collect();
    let count: u64 = told.iter().map(|foreign| foreign.count).sum();
    let mut paths: Vec<&str> = told
        .iter()
        .flat_map(|foreign| &foreign.paths)
        .map(String::as_str)
        .collect();
    paths.sort_unstable();
    assert_eq!((count, paths.len()), (5, 5), "{paths:?}");
    for path in &planted {
        // Of a folder that is foreign as a whole, its contents are not told.
        assert!(
            paths.iter().any(|told| path.starts_with(told)),
            "{path} in {paths:?}"
        );
    }
    place.clean_up().await;
}

async fn an_upload_that_is_not_published_is_no_object(place: Place) {
    let id = Uuid::now_v7();
    let mut writer = place.writer(id, 1, &place.store.begin()).await;
    write(&mut writer, &bytes(2, PART + 100_000), 100_000).await;
    writer.flush().await.unwrap();

    assert_eq!(walk(&place).await, [ObjectPage::default()]);
    assert_eq!(place.store.size(&ObjectKey::of_upload(id)).await.unwrap(), None);
    place.clean_up().await;
}

async fn the_size_of_an_object_is_known_until_it_is_deleted(place: Place) {
    for size in [0, 1, PART + 7] {
        let key = place.push(&bytes(3, size)).await;
        assert_eq!(place.store.size(&key).await.unwrap(), Some(size as u64));
        place.store.delete(&key).await.unwrap();
        assert_eq!(place.store.size(&key).await.unwrap(), None);
    }
    place.clean_up().await;
}
