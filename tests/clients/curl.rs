//! curl, as the README shows it.

use harness::{Backend, Berth, Client};

use super::{repository, tags};

on_both_backends!(the_readme_s_steps_work_as_they_stand);

async fn the_readme_s_steps_work_as_they_stand(backend: Backend) {
    let berth = Berth::start(backend).await;
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).expect("a README");
    let blocks = readme
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let steps: Vec<&str> = blocks.filter(|block| block.starts_with("base=")).collect();
    let [steps] = steps[..] else {
        panic!("the README has one block of curl: {steps:?}");
    };
    let bash = Client::new("bash");
    let folder = bash.path_text("folder");
    std::fs::create_dir(&folder).expect("a folder");
    let script = format!(
        "set -eu; cd '{folder}'\n{}",
        steps.replace("localhost:5000", &berth.address())
    );

    let said = bash.run(&["-c", &script]).await.text();

    assert!(said.contains(r#""tags":["v1"]"#), "{said}");
    assert!(said.ends_with("hello"), "{said}");
    assert_eq!(tags(&berth, "team/notes").await, ["v1"]);
    repository(&berth, "team/notes")
        .get_manifest("v1")
        .await
        .expect(200);
}
