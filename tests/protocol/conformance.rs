//! The conformance suite of the OCI distribution specification, with every API and data option on.

use harness::{Backend, Berth, Client, Cluster, output_folder};

use super::report::Report;

/// Every switch of the suite. Listed one by one, so that a default that changes to "off" in a later
/// release of the suite does not go unnoticed.
const SWITCHES: [&str; 31] = [
    "OCI_API_PING",
    "OCI_API_PULL",
    "OCI_API_PUSH",
    "OCI_API_BLOBS_ATOMIC",
    "OCI_API_BLOBS_DELETE",
    "OCI_API_BLOBS_DIGEST_HEADER",
    "OCI_API_BLOBS_MOUNT_ANONYMOUS",
    "OCI_API_BLOBS_UPLOAD_CANCEL",
    "OCI_API_MANIFESTS_ATOMIC",
    "OCI_API_MANIFESTS_DELETE",
    "OCI_API_MANIFESTS_DIGEST_HEADER",
    "OCI_API_MANIFESTS_TAG_PARAM",
    "OCI_API_TAGS_ATOMIC",
    "OCI_API_TAGS_DELETE",
    "OCI_API_TAGS_LIST",
    "OCI_API_REFERRER",
    "OCI_DATA_IMAGE",
    "OCI_DATA_INDEX",
    "OCI_DATA_INDEX_LIST",
    "OCI_DATA_SPARSE",
    "OCI_DATA_ARTIFACT",
    "OCI_DATA_SUBJECT",
    "OCI_DATA_SUBJECT_MISSING",
    "OCI_DATA_ARTIFACT_LIST",
    "OCI_DATA_SUBJECT_LIST",
    "OCI_DATA_DATA_FIELD",
    "OCI_DATA_NONDISTRIBUTABLE",
    "OCI_DATA_CUSTOM_FIELDS",
    "OCI_DATA_NO_LAYERS",
    "OCI_DATA_EMPTY_BLOB",
    "OCI_DATA_SHA512",
];

/// The rows of the suite's API table and of its data table.
const ROWS: usize = 28 + 24;

/// The header that a presigned answer of an object store cannot carry.
const DIGEST_HEADER_OF_BLOBS: &str = "OCI_API_BLOBS_DIGEST_HEADER";

/// Runs the suite against `address` with every switch on but those in `off`, and asserts that
/// nothing failed, was skipped or was disabled, and that more than `least` checks passed.
async fn assert_conformant(run: &str, address: &str, version: &str, off: &[&str], least: usize) {
    assert_passes(Client::new("conformance"), run, address, version, off, least).await;
}

/// The same, by a suite that has been given credentials and a way to the registry.
pub(crate) async fn assert_passes(
    suite: Client,
    run: &str,
    address: &str,
    version: &str,
    off: &[&str],
    least: usize,
) {
    let results = output_folder("conformance", run);
    let mut suite = suite
        .variable("OCI_REGISTRY", address)
        .variable("OCI_TLS", "disabled")
        .variable("OCI_VERSION", version)
        .variable("OCI_REPO1", "conformance/one")
        .variable("OCI_REPO2", "conformance/two")
        .variable("OCI_RESULTS_DIR", results.to_str().expect("a plain path"));
    for switch in SWITCHES {
        suite = suite.variable(switch, if off.contains(&switch) { "false" } else { "true" });
    }
    let output = suite.attempt(&[]).await;
    std::fs::write(
        results.join("output.txt"),
        [&output.stdout, output.stderr.as_bytes()].concat(),
    )
    .expect("a writable results folder");

    let report = Report::read(&results);
    let passed = report.cases - report.not_passed.len();
    println!(
        "conformance {run}: {passed} of {} passed, {} rows",
        report.cases,
        report.rows.len()
    );
    assert_eq!(
        report.rows.len(),
        ROWS,
        "the suite reports other rows: {:?}",
        report.rows
    );
    assert_eq!(
        report.rows_not_passed(),
        Vec::<&(String, String)>::new(),
        "rows of {}",
        results.display()
    );
    assert_eq!(
        report.not_passed,
        Vec::<String>::new(),
        "cases of {}",
        results.display()
    );
    assert!(
        passed > least,
        "only {passed} checks passed: the suite did not run everything"
    );
    assert!(output.success, "the suite failed: {}", output.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_and_a_folder_pass_everything() {
    let berth = Berth::builder().flag("--sparse", "Always").start().await;
    assert_conformant("sqlite-folder", &berth.address(), "dev", &[], 800).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_on_postgres_and_s3_pass_everything_behind_a_round_robin() {
    // Redirected reads lack Docker-Content-Digest, which the development version demands.
    let settings = Berth::builder()
        .flag("--sparse", "Always")
        .flag("--redirect", "Never");
    let cluster = Cluster::start_with(2, settings).await;
    assert_conformant("postgres-s3-two-replicas", &cluster.address(), "dev", &[], 800).await;
    let served = cluster.proxy().served();
    assert!(
        served.iter().all(|&requests| requests > 600),
        "requests by replica: {served:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirected_blob_reads_pass_the_stable_version() {
    let settings = Berth::builder().backend(Backend::Distributed);
    let berth = settings
        .flag("--sparse", "Always")
        .flag("--redirect", "Always")
        .start()
        .await;
    let off = [DIGEST_HEADER_OF_BLOBS];
    assert_conformant("postgres-s3-redirect", &berth.address(), "1.1", &off, 800).await;
}
