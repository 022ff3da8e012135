//! What is stored over time, and what it costs.

use harness::content::blob;
use harness::http::send;
use harness::{Backend, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Place, WAIT, settings};

const HOUR: u64 = 3600;

/// Has the server sample this hour once more, and waits until `acme` has byte-hours.
async fn sampled(place: &mut Place) -> Value {
    let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() / HOUR;
    place.berth.kill9();
    // Of this hour there is a sample already, of nothing.
    place.sql("DELETE FROM usage_hourly; DELETE FROM usage_monthly");
    let state = format!(r#"{{"hour":{}}}"#, since - 1);
    place.sql(&format!(
        "UPDATE job SET due_at = 0, claimed_until = 0, state = '{state}' WHERE kind = 2"
    ));
    place.berth.restart().await;
    eventually("a sample", WAIT, async || {
        let usage = place.get("usage?tenant=acme").await;
        (usage[0]["byteHours"].as_u64() > Some(0)).then(|| usage[0].clone())
    })
    .await
}

/// Rows of a table without quotes, as objects of texts.
fn parsed(csv: &str) -> Vec<Value> {
    let mut lines = csv
        .split_terminator("\r\n")
        .map(|line| line.split(',').collect::<Vec<_>>());
    let columns = lines.next().expect("a header");
    lines
        .map(|fields| {
            assert_eq!(fields.len(), columns.len(), "{csv}");
            columns
                .iter()
                .zip(fields)
                .map(|(column, field)| ((*column).to_owned(), Value::from(field)))
                .collect()
        })
        .collect()
}

/// The same row, as CSV has it.
fn as_texts(row: &Value, columns: &Value) -> Value {
    let text = |column: &str| match &row[column] {
        Value::Null if column == "deleted" => "false".to_owned(),
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let columns = columns.as_object().expect("a row").keys();
    columns
        .map(|column| (column.clone(), Value::from(text(column))))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn byte_hours_are_priced_as_each_tenant_has_it() {
    for backend in Backend::BOTH {
        let mut place = Place::start(settings(backend)).await;
        let billing = json!({ "billing": { "price": "1.5", "currency": "EUR" } });
        place.admin.put_tenant("acme", billing).await;
        for tenant in ["acme", "other"] {
            place
                .content(tenant)
                .await
                .push("team/app", "v1", &blob(100_000, 1))
                .await;
        }

        // 1. An hour of what is stored.
        let usage = sampled(&mut place).await;
        let (bytes, byte_hours) = (
            usage["bytes"].as_u64().unwrap(),
            usage["byteHours"].as_u64().unwrap(),
        );
        assert!(bytes > 100_000 && byte_hours.is_multiple_of(bytes), "{usage}");
        assert_eq!((&usage["tags"], &usage["repositories"]), (&json!(1), &json!(1)));
        assert_eq!(
            usage["storedBytes"], 100_000,
            "manifests are in the metadata store"
        );
        let hourly = place.get("usage/hourly?tenant=acme").await;
        assert_eq!(hourly["next"], Value::Null);
        let sample = &hourly["samples"][0];
        assert_eq!(
            (&sample["bytes"], &sample["storedBytes"]),
            (&json!(bytes), &json!(100_000))
        );
        let at = sample["at"].as_str().unwrap();
        assert!(at.ends_with(":00:00Z"), "{at}");
        let same = place.get(&format!("usage/hourly?tenant=acme&from={at}")).await;
        assert_eq!(same, hourly);
        let later = at.replace(":00:00Z", ":00:01Z");
        let after = place.get(&format!("usage/hourly?tenant=acme&from={later}")).await;
        assert_eq!(
            after["samples"].as_array().map(Vec::len),
            hourly["samples"].as_array().map(|all| all.len() - 1)
        );

        // 2. A terabyte for a month.
        place.sql("UPDATE usage_monthly SET byte_hours = 730000000000000");
        let usage = place.get("usage").await;
        let row = |tenant: &str| {
            let rows = usage.as_array().unwrap().iter();
            rows.into_iter()
                .find(|row| row["tenant"] == tenant)
                .unwrap()
                .clone()
        };
        for (tenant, price, cost, currency) in [
            ("acme", "1.50", "1500.000000", "EUR"),
            ("other", "0.20", "200.000000", "USD"),
        ] {
            let row = row(tenant);
            assert_eq!(
                (&row["price"], &row["cost"], &row["currency"]),
                (&json!(price), &json!(cost), &json!(currency)),
                "{tenant}"
            );
            assert_eq!(row["gibHours"], "679865.479");
        }
        let text = place.text(&["usage"]);
        assert!(text.contains("1500.000000 EUR") && text.contains("KiB"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_is_told_as_json_and_csv_alike() {
    for backend in Backend::BOTH {
        let mut place = Place::start(settings(backend)).await;
        place.admin.put_tenant("third", json!({})).await;
        for (tenant, repositories) in [("acme", &["a", "team/b"][..]), ("third", &["c"])] {
            let content = place.content(tenant).await;
            for name in repositories {
                content.push(name, "v1", name.as_bytes()).await;
            }
        }
        sampled(&mut place).await;
        let path = "tenants/third?erase=true";
        place.admin.ask(Method::DELETE, path, None).await.expect(200);

        // 1. Tenants alone: one that is gone, and one that has nothing.
        let usage = place.get("usage").await;
        let names = |usage: &Value| -> Vec<(String, bool)> {
            let rows = usage.as_array().unwrap().iter();
            rows.map(|row| (row["tenant"].as_str().unwrap().to_owned(), row["deleted"] == true))
                .collect()
        };
        let expected = [("acme", false), ("other", false), ("third", true)];
        assert_eq!(
            names(&usage),
            expected.map(|(name, deleted)| (name.to_owned(), deleted))
        );
        assert_eq!(usage[1]["byteHours"], 0);
        assert!(usage[2]["byteHours"].as_u64() > Some(0));
        let past = place.get("usage?month=2020-01").await;
        assert_eq!(
            names(&past),
            expected[..2]
                .iter()
                .map(|(name, _)| ((*name).to_owned(), false))
                .collect::<Vec<_>>()
        );
        assert_eq!(
            (&past[0]["byteHours"], &past[0]["month"]),
            (&json!(0), &json!("2020-01"))
        );

        // 2. With repositories, in both forms.
        let rows = place.get("usage?repositories=true&tenant=acme").await;
        let mut told: Vec<Option<&str>> = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["repository"].as_str())
            .collect();
        assert_eq!(told[0], None, "the whole before its parts");
        told.sort_unstable();
        assert_eq!(told, [None, Some("a"), Some("team/b")]);
        assert!(rows[0]["storedBytes"].is_u64() && rows[1]["storedBytes"].is_null());
        assert_eq!(
            rows[0]["byteHours"].as_u64().unwrap(),
            rows[1]["byteHours"].as_u64().unwrap() + rows[2]["byteHours"].as_u64().unwrap()
        );
        for path in [
            "usage?repositories=true",
            "usage",
            "usage?month=2020-01",
            "usage?tenant=other",
        ] {
            let json = place.get(path).await;
            let separator = if path.contains('?') { '&' } else { '?' };
            let csv = place
                .admin
                .ask(Method::GET, &format!("{path}{separator}format=csv"), None)
                .await
                .expect(200);
            assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
            let parsed = parsed(&csv.text());
            let columns = parsed[0].clone();
            let expected: Vec<Value> = json
                .as_array()
                .unwrap()
                .iter()
                .map(|row| as_texts(row, &columns))
                .collect();
            assert_eq!(parsed, expected, "{path}");
        }
        assert!(
            place
                .text(&["usage", "-o", "csv"])
                .starts_with("tenant,repository,bytes,tags,repositories,month,")
        );
        assert_eq!(place.json(&["usage", "--tenant", "acme", "--repositories"]), rows);
        let text = place.text(&["usage", "--repositories"]);
        assert!(
            text.contains("third (deleted)") && text.contains("team/b"),
            "{text}"
        );

        // 3. What is no month, form or tenant.
        for (path, status) in [
            ("usage?month=2026-13", 400),
            ("usage?format=xml", 400),
            ("usage?repositories=perhaps", 400),
            ("usage?tenant=nobody", 404),
            ("usage?tenant=third", 404),
            ("usage/hourly", 400),
            ("usage/hourly?tenant=nobody", 404),
            ("usage/hourly?tenant=acme&from=yesterday", 400),
        ] {
            place.refused(Method::GET, path, status).await;
        }
        assert!(
            place
                .complaint(&["usage", "--month", "November"], 2)
                .contains("2026-11")
        );
        // A tenant is told of itself alone.
        assert_eq!(
            names(&place.get("usage?tenant=other&repositories=true").await),
            [("other".to_owned(), false)]
        );
        let hourly = place.get("usage/hourly?tenant=other").await;
        assert!(
            hourly["samples"]
                .as_array()
                .unwrap()
                .iter()
                .all(|sample| sample["bytes"] == 0),
            "{hourly}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_of_more_repositories_than_a_page_comes_whole() {
    for backend in Backend::BOTH {
        let place = Place::start(settings(backend)).await;
        // Gone since; the tenant's own row has 0.
        place.sql(
            "INSERT INTO usage_monthly (tenant_id, month, repository_id, byte_hours) \
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) \
             SELECT t.id, 202002, n.i, n.i + 1 FROM tenant t, n WHERE t.name IN ('acme', 'other')",
        );
        let usage = place.get("usage?month=2020-02&repositories=true").await;
        let rows = usage.as_array().unwrap();
        for (tenant, rows) in ["acme", "other"].iter().zip(rows.chunks(2501)) {
            let mut hours: Vec<u64> = rows.iter().filter_map(|row| row["byteHours"].as_u64()).collect();
            assert!(
                rows.iter().all(|row| row["tenant"] == *tenant),
                "one after the other"
            );
            assert_eq!((&rows[0]["repository"], hours[0]), (&Value::Null, 1));
            hours.sort_unstable();
            assert_eq!(hours, (1..=2501).collect::<Vec<u64>>(), "each once");
        }
        assert_eq!(rows.len(), 2 * 2501);
        let csv = place.text(&["usage", "--month", "2020-02", "--repositories", "-o", "csv"]);
        assert_eq!(csv.lines().count(), 2 * 2501 + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_storage_of_the_installation_is_more_than_what_tenants_are_told() {
    for backend in Backend::BOTH {
        let place = Place::start(settings(backend)).await;
        let content = place.content("acme").await;
        content.push("app", "v1", &blob(50_000, 7)).await;
        place
            .content("other")
            .await
            .push("app", "v1", &blob(50_000, 7))
            .await;
        let started = send(content.request(Method::POST, "app/blobs/uploads/"))
            .await
            .expect(202);
        let location = started.header("location").trim_start_matches("/v2/").to_owned();
        send(content.request(Method::PATCH, &location).body(blob(30_000, 8)))
            .await
            .expect(202);
        let storage = place.get("storage").await;
        let usage = place.get("usage").await;
        let told: u64 = usage
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|row| row["bytes"].as_u64())
            .sum();
        assert_eq!(storage["logicalBytes"], told);
        assert_eq!(storage["storedBytes"], 100_000, "each tenant has its own copy");
        assert_eq!(storage["openUploadBytes"], 30_000);
        assert_eq!(storage["garbageBytes"], 0);
    }
}
