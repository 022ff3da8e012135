use super::super::spool::Spools;
use super::*;

fn piece(length: usize, value: u8) -> Bytes {
    Bytes::from(vec![value; length])
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(crate::domain::Algorithm::Sha256, bytes)
}

async fn bytes(reader: &mut Reader) -> Bytes {
    match reader.next().await {
        Next::Bytes(bytes) => bytes,
        Next::Behind => panic!("behind"),
        Next::Otherwise(phase) => panic!("{phase:?}"),
    }
}

async fn push(growing: &Growing, bytes: Bytes) {
    growing.room(bytes.len()).await;
    growing.push(growing.end(), bytes);
}

#[tokio::test]
async fn everybody_who_reads_along_gets_every_byte_from_its_place_on() {
    let growing = Growing::new(digest(b""));
    growing.begin(30, 0, Source::Replica, None);
    push(&growing, piece(10, 1)).await;
    let (mut first, mut later) = (growing.reader(0), growing.reader(5));
    assert_eq!(bytes(&mut first).await, piece(10, 1));
    assert_eq!(bytes(&mut later).await, piece(5, 1));
    let waits = tokio::spawn(async move { bytes(&mut first).await });
    push(&growing, piece(20, 2)).await;
    assert_eq!(waits.await.unwrap(), piece(20, 2));
    assert_eq!(bytes(&mut later).await, piece(20, 2));
}

#[tokio::test]
async fn who_falls_out_of_the_window_is_told_and_the_window_is_bounded() {
    let growing = Growing::new(digest(b""));
    growing.begin(1 << 30, 0, Source::Replica, None);
    for _ in 0..100 {
        push(&growing, piece(1 << 20, 1)).await;
    }
    let held: usize = growing.ring().pieces.iter().map(Bytes::len).sum();
    assert!(held as u64 <= WINDOW);
    let mut slow = growing.reader(0);
    assert!(matches!(slow.next().await, Next::Behind));
    slow.seek(growing.end() - 3);
    assert_eq!(bytes(&mut slow).await, piece(3, 1));
}

#[tokio::test]
async fn with_a_spool_nobody_falls_behind_and_memory_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let spools = Spools::new(folder.path().to_owned(), 64 << 20);
    let growing = Growing::new(digest(b""));
    growing.begin(40 << 20, 0, Source::Replica, spools.open(40 << 20).await);
    for n in 0..40 {
        push(&growing, piece(1 << 20, n)).await;
    }
    let held: usize = growing.ring().pieces.iter().map(Bytes::len).sum();
    assert!(held as u64 <= WINDOW + BATCH, "{held}");
    let (mut late, mut read) = (growing.reader(0), Vec::new());
    while read.len() < 40 << 20 {
        read.extend_from_slice(&bytes(&mut late).await);
    }
    assert!(
        read.chunks(1 << 20)
            .zip(0..)
            .all(|(chunk, n)| chunk.iter().all(|byte| *byte == n))
    );
}

#[tokio::test]
async fn what_comes_again_from_another_source_is_shown_once() {
    let growing = Growing::new(digest(b""));
    growing.begin(30, 0, Source::Replica, None);
    growing.push(0, piece(20, 1));
    let mut reader = growing.reader(0);
    assert_eq!(bytes(&mut reader).await, piece(20, 1));
    growing.begin(30, 10, Source::Session(Uuid::nil()), None);
    growing.push(10, piece(5, 1));
    growing.push(15, [piece(5, 1), piece(10, 2)].concat().into());
    assert_eq!(bytes(&mut reader).await, piece(10, 2));
    assert_eq!(growing.end(), 30);
}

#[tokio::test]
async fn what_several_replicas_sent_is_confirmed_as_a_whole() {
    let growing = Growing::new(digest(b"abcdef"));
    growing.begin(6, 0, Source::Replica, None);
    growing.push(0, Bytes::from_static(b"abc"));
    // Another begins anew; what is known of it is not shown again.
    growing.begin(6, 0, Source::Session(Uuid::nil()), None);
    growing.push(0, Bytes::from_static(b"xbcde"));
    assert_eq!(growing.confirms(b"f"), Some(true));
    assert_eq!(growing.confirms(b"g"), Some(false));

    let growing = Growing::new(digest(b"abcdef"));
    growing.begin(6, 0, Source::Replica, None);
    growing.push(0, Bytes::from_static(b"xbc"));
    growing.begin(6, 0, Source::Session(Uuid::nil()), None);
    growing.push(0, Bytes::from_static(b"abcde"));
    assert_eq!(growing.confirms(b"f"), Some(false), "its first byte was another");

    let own = Growing::new(digest(b"abcdef"));
    own.begin(6, 0, Source::Session(Uuid::nil()), None);
    assert_eq!(own.confirms(b"f"), None, "its session is hashed");
}

#[tokio::test(start_paused = true)]
async fn what_is_over_holds_no_memory_whoever_still_reads() {
    let growing = Growing::new(digest(b""));
    growing.begin(30, 0, Source::Replica, None);
    growing.push(0, piece(20, 1));
    let mut slow = growing.reader(5);
    growing.set(Phase::Failed(Trouble::ended()));
    let gone = tokio::join!(growing.let_go(), async { bytes(&mut slow).await }).1;
    assert_eq!(gone, piece(15, 1), "it had time to take the rest");
    assert!(growing.ring().pieces.is_empty());
    assert!(matches!(slow.next().await, Next::Otherwise(Phase::Failed(_))));
}

#[tokio::test]
async fn the_fetch_waits_for_the_fastest_reader_only_while_nobody_waits_behind() {
    let growing = Growing::new(digest(b""));
    growing.begin(1 << 30, 0, Source::Replica, None);
    push(&growing, piece(1 << 20, 1)).await;
    let window = usize::try_from(WINDOW).unwrap();
    let mut along = growing.reader(0);
    bytes(&mut along).await;
    assert!(growing.ring().has_room(WINDOW), "it has read what there is");
    assert!(!growing.ring().has_room(WINDOW + 1), "it would run away");
    // Its place is before the window.
    push(&growing, piece(window, 1)).await;
    let mut late = growing.reader(0);
    assert!(matches!(late.next().await, Next::Behind));
    assert!(growing.ring().has_room(WINDOW + 1), "somebody waits for the end");
    drop(late);
    assert!(!growing.ring().has_room(WINDOW + 1));
    drop(along);
    assert!(growing.ring().has_room(WINDOW + 1));
}

#[tokio::test]
async fn what_is_in_the_window_is_read_to_its_end_when_it_is_over() {
    let growing = Growing::new(digest(b""));
    growing.begin(10, 0, Source::Replica, None);
    let mut reader = growing.reader(0);
    growing.push(0, piece(10, 1));
    growing.set(Phase::Failed(Trouble::ended()));
    assert_eq!(bytes(&mut reader).await, piece(10, 1));
    assert!(matches!(reader.next().await, Next::Otherwise(Phase::Failed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_always_moves_and_never_fast_does_not_hold_the_fetch() {
    let growing = Growing::new(digest(b""));
    growing.begin(1 << 30, 0, Source::Replica, None);
    let mut slow = growing.reader(0);
    let reads = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let Next::Bytes(_) = slow.next().await else { return };
        }
    });
    let begun = Instant::now();
    for _ in 0..512 {
        push(&growing, piece(64 << 10, 1)).await;
    }
    let took = begun.elapsed();
    assert!(took >= STALL && took < STALL * 3, "{took:?}");
    // It is told that it has fallen behind.
    reads.await.unwrap();
}
