//! Standing, waiting and warning, on time of the test's own.

use std::sync::Mutex;

use super::*;
use crate::metadata::position::Replayed;
use crate::metadata::{MetadataError, Result};

/// A database that says what the test wants, or fails.
#[derive(Default)]
struct Told(Mutex<Option<Replayed>>);

impl Told {
    fn says(&self, at: u64, behind: u64) {
        *self.0.lock().unwrap() = Some(Replayed {
            at: Lsn(at),
            behind: Duration::from_secs(behind),
        });
    }
}

#[async_trait::async_trait]
impl Position for Told {
    async fn replayed(&self) -> Result<Option<Replayed>> {
        let told = *self.0.lock().unwrap();
        told.map(Some)
            .ok_or_else(|| MetadataError::Unavailable("away".into()))
    }
}

fn standby() -> (Arc<Told>, Arc<Standby>) {
    let told = Arc::new(Told::default());
    (told.clone(), Standby::follow(told, Duration::from_secs(30)))
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_place_waits_until_it_is_replayed_or_its_time_is_over() {
    let (told, standby) = standby();
    told.says(10, 0);
    pass(2).await;
    let limit = Duration::from_secs(5);
    assert!(standby.has_come_to(Lsn(10), limit).await);
    let begun = Instant::now();
    assert!(!standby.has_come_to(Lsn(11), limit).await);
    assert_eq!(begun.elapsed(), limit);

    let waiting = tokio::spawn({
        let standby = standby.clone();
        async move { standby.has_come_to(Lsn(11), limit).await }
    });
    pass(1).await;
    told.says(12, 0);
    let begun = Instant::now();
    assert!(waiting.await.unwrap());
    assert!(
        begun.elapsed() <= 2 * WAITED_FOR,
        "looked at more often while somebody waits"
    );
    assert_eq!(standby.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_stops_answering_grows_old() {
    let (told, standby) = standby();
    assert!(standby.standing().is_none() && standby.warning().is_some());
    told.says(10, 3);
    pass(2).await;
    assert_eq!(standby.standing().unwrap().behind, Duration::from_secs(3));
    assert_eq!(standby.warning(), None);
    *told.0.lock().unwrap() = None;
    pass(40).await;
    assert!(standby.standing().unwrap().behind >= Duration::from_secs(40));
    assert!(
        standby
            .warning()
            .is_some_and(|text| text.contains("--max-lag is 30 s"))
    );
}
