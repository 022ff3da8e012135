use super::*;

fn table() -> Table {
    let column = |name: &str, kind| Column {
        name: name.to_owned(),
        kind,
    };
    Table {
        name: "tag".to_owned(),
        columns: vec![
            column("digest", Kind::Bytes),
            column("name", Kind::Text),
            column("at", Kind::Integer),
        ],
        key: vec![2, 1],
    }
}

#[test]
fn a_page_begins_behind_a_key_in_the_order_of_the_key() {
    let text = |after| select(&table(), after, |column| format!("t.{}", column.name));
    assert_eq!(
        text(true),
        "SELECT t.digest, t.name, t.at FROM \"tag\" AS t WHERE (t.\"at\", t.\"name\") > ($1, $2) \
         ORDER BY t.\"at\", t.\"name\" LIMIT $3"
    );
    assert!(text(false).ends_with("FROM \"tag\" AS t ORDER BY t.\"at\", t.\"name\" LIMIT $1"));
}

#[test]
fn a_position_is_stored_and_read_as_it_was() {
    let row = vec![
        Value::Bytes(vec![0, 255]),
        Value::Text("v1".to_owned()),
        Value::Integer(i64::MIN),
    ];
    let stored = position(&table(), &row).unwrap();
    let read: Row = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, vec![row[2].clone(), row[1].clone()]);
    let all: Row = serde_json::from_str(&serde_json::to_string(&row).unwrap()).unwrap();
    assert_eq!(all, row);
}

#[test]
fn rows_that_differ_have_other_hashes() {
    let hash = |row: &[Value]| {
        let mut hash = Sha256::new();
        row.iter().for_each(|value| hash_value(&mut hash, value));
        hash.finalize()
    };
    let text = |text: &str| Value::Text(text.to_owned());
    let rows = [
        vec![text("ab"), text("c")],
        vec![text("a"), text("bc")],
        vec![Value::Bytes(b"ab".to_vec()), text("c")],
        vec![Value::Null, text("abc")],
        vec![text(""), text("abc")],
        vec![Value::Integer(0), Value::Null],
    ];
    for (at, one) in rows.iter().enumerate() {
        for other in &rows[at + 1..] {
            assert_ne!(hash(one), hash(other), "{one:?} {other:?}");
        }
    }
}

/// Moves a table to its end; how many pages that took.
async fn moved(source: &mut Side, into: &mut Side, name: &str) -> usize {
    let table = source
        .tables()
        .unwrap()
        .into_iter()
        .find(|table| table.name == name)
        .unwrap();
    let (mut standing, mut pages) = (into.standing(&table).await.unwrap(), 0);
    while !standing.is_done {
        standing = into.take_page(source, &table, &standing).await.unwrap();
        pages += 1;
    }
    assert_eq!(
        source.content(&table, |_| {}).await.unwrap(),
        into.content(&table, |_| {}).await.unwrap()
    );
    pages
}

#[tokio::test]
async fn large_payloads_come_one_by_one_and_a_second_writer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let mut source = Side::open(&url("source.db"), true).await.unwrap();
    let mut into = Side::open(&url("into.db"), true).await.unwrap();
    source.begin("itself").await.unwrap();
    into.begin("the source").await.unwrap();
    let manifests = source.tables().unwrap();
    let manifests = manifests
        .iter()
        .find(|table| table.name == "deleted_manifest")
        .unwrap();
    let row = |number: i64| -> Row {
        let value = |column: &Column| match column.kind {
            _ if column.name == HEAVY => Value::Bytes(vec![7; 5 << 20]),
            Kind::Integer | Kind::Truth => Value::Integer(number),
            Kind::Text => Value::Text(String::new()),
            Kind::Bytes | Kind::Id => Value::Bytes(vec![1]),
        };
        manifests.columns.iter().map(value).collect()
    };
    let (first, then) = (
        Standing::default(),
        Standing {
            rows: 3,
            position: "[]".to_owned(),
            is_done: true,
        },
    );
    let rows: Vec<Row> = (1..4).map(row).collect();
    let Database::Sqlite(written) = &mut source.database else {
        panic!("SQLite")
    };
    written.write(manifests, &rows, &first, &then).await.unwrap();
    let again = written.write(manifests, &[], &first, &then).await;
    assert!(matches!(again, Err(MetadataError::Conflict(_))), "{again:?}");

    // 10 MiB are too many for a page.
    assert_eq!(moved(&mut source, &mut into, "deleted_manifest").await, 4);
    assert_eq!(moved(&mut source, &mut into, "tenant").await, 1);
    assert_eq!(into.unfinished().await.unwrap().as_deref(), Some("the source"));
    assert!(
        Side::open(&url("into.db"), false).await.is_err(),
        "it is held alone"
    );
    into.finish().await.unwrap();
    assert_eq!(into.unfinished().await.unwrap(), None);
}
