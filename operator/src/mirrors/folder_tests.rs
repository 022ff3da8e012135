use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn mirrors(registries: &[&str]) -> Vec<Mirror> {
    let mirror = |registry: &&str| format!("upstream={registry},endpoint=https://acme.r.example").parse();
    registries
        .iter()
        .map(|registry| mirror(registry).unwrap())
        .collect()
}

fn ours(root: &TempDir) -> Folder {
    Folder::new(root.path(), "berth-system/berth", "one")
}

fn taken(root: &TempDir) -> Folder {
    let folder = ours(root);
    folder.take_over().unwrap();
    folder
}

fn done(folder: &Folder, registries: &[&str]) -> Done {
    match folder.look(&mirrors(registries)).unwrap() {
        Looked::Done(done) => done,
        Looked::Succeeded => panic!("it was succeeded"),
    }
}

fn read(root: &TempDir, path: &str) -> String {
    std::fs::read_to_string(root.path().join(path)).unwrap_or_default()
}

fn put(root: &TempDir, path: &str, text: &str) {
    let path = root.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// What lies in the folder, notes aside.
fn names(root: &TempDir) -> Vec<String> {
    let mut names = entries(root.path()).unwrap();
    names.retain(|name| !name.starts_with(".berth."));
    names
}

#[test]
fn files_are_written_once_and_again_when_they_are_to_differ_or_were_changed() {
    let root = TempDir::new().unwrap();
    let folder = taken(&root);
    let first = done(&folder, &["docker.io", "r.example:5000"]);
    assert_eq!(first.written, ["docker.io", "r.example:5000"]);
    assert_eq!(names(&root), ["docker.io", "r.example_5000_"]);
    let text = read(&root, "docker.io/hosts.toml");
    assert!(
        text.starts_with("# managed by berth: berth-system/berth\n"),
        "{text}"
    );
    assert!(text.contains("[host.\"https://acme.r.example\"]"), "{text}");
    let mode = |path: &str| {
        std::fs::metadata(root.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("docker.io"), mode("docker.io/hosts.toml")), (0o755, 0o644));
    assert_eq!(entries(&root.path().join("docker.io")).unwrap(), ["hosts.toml"]);

    assert_eq!(done(&folder, &["docker.io", "r.example:5000"]), Done::default());
    put(
        &root,
        "docker.io/hosts.toml",
        "# managed by berth: berth-system/berth\nserver = \"https://b\"\n",
    );
    assert_eq!(
        done(&folder, &["docker.io", "r.example:5000"]).written,
        ["docker.io"]
    );
    assert_eq!(read(&root, "docker.io/hosts.toml"), text);
    std::fs::remove_dir_all(root.path().join("docker.io")).unwrap();
    assert_eq!(
        done(&folder, &["docker.io", "r.example:5000"]).written,
        ["docker.io"]
    );
}

#[test]
fn what_leaves_the_list_goes_and_so_does_all_at_the_end() {
    let root = TempDir::new().unwrap();
    let folder = taken(&root);
    done(&folder, &["docker.io", "quay.io", "ghcr.io"]);
    put(&root, "quay.io/ca.crt", "somebody's");
    let second = done(&folder, &["ghcr.io"]);
    assert_eq!(second.removed, ["docker.io", "quay.io"]);
    assert_eq!(
        names(&root),
        ["ghcr.io", "quay.io"],
        "a folder with something else in it stays"
    );
    assert_eq!(read(&root, "quay.io/ca.crt"), "somebody's");
    assert_eq!(read(&root, "quay.io/hosts.toml"), "");
    assert_eq!(folder.give_up(true).unwrap(), ["ghcr.io"]);
    assert_eq!(
        entries(root.path()).unwrap(),
        ["quay.io"],
        "not even a note is left"
    );
}

#[test]
fn files_stay_where_that_is_wanted() {
    let root = TempDir::new().unwrap();
    let folder = taken(&root);
    done(&folder, &["docker.io"]);
    assert_eq!(folder.give_up(false).unwrap(), Vec::<String>::new());
    assert_eq!(entries(root.path()).unwrap(), ["docker.io"]);
    assert!(!read(&root, "docker.io/hosts.toml").is_empty());
}

#[test]
fn what_others_have_put_there_is_neither_changed_nor_shadowed_nor_removed() {
    let root = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    put(
        &elsewhere,
        "hosts.toml",
        "# managed by berth: berth-system/berth\nelsewhere",
    );
    put(&root, "docker.io/hosts.toml", "server = \"https://theirs\"\n");
    put(
        &root,
        "quay.io/hosts.toml",
        "\n# managed by berth: berth-system/berth\n",
    );
    put(
        &root,
        "ghcr.io/hosts.toml",
        "# managed by berth: berth-system/berth2\n",
    );
    put(&root, "a.example/ca.crt", "a certificate");
    put(&root, "b.example:5000/hosts.toml", "theirs");
    put(&root, "c.example", "a file");
    symlink(elsewhere.path(), root.path().join("d.example")).unwrap();
    put(&root, "e.example/x", "");
    std::fs::remove_file(root.path().join("e.example/x")).unwrap();
    symlink(
        elsewhere.path().join("hosts.toml"),
        root.path().join("e.example/hosts.toml"),
    )
    .unwrap();
    put(&root, "f.example/hosts.toml", "");
    put(&root, "_default/hosts.toml", "theirs");
    let all = [
        "docker.io",
        "quay.io",
        "ghcr.io",
        "a.example",
        "b.example:5000",
        "c.example",
        "d.example",
        "e.example",
        "f.example",
    ];
    let folder = taken(&root);
    let before = names(&root);
    let outcome = done(&folder, &all);
    let left: Vec<&str> = outcome
        .left
        .iter()
        .map(|(registry, _)| registry.as_str())
        .collect();
    assert_eq!(left, all);
    assert_eq!((outcome.written, outcome.removed), (Vec::new(), Vec::new()));
    // And nothing of it goes, neither with the list nor at the end.
    done(&folder, &[]);
    folder.give_up(true).unwrap();
    assert_eq!(names(&root), before);
    assert_eq!(
        read(&root, "docker.io/hosts.toml"),
        "server = \"https://theirs\"\n"
    );
    assert_eq!(read(&root, "_default/hosts.toml"), "theirs");
    assert!(read(&elsewhere, "hosts.toml").ends_with("elsewhere"));
    assert!(!root.path().join("b.example_5000_").exists());
}

#[test]
fn an_empty_folder_and_what_a_killed_process_left_are_no_obstacle() {
    let root = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    put(&elsewhere, "file", "theirs");
    std::fs::create_dir(root.path().join("quay.io")).unwrap();
    put(&root, "docker.io/.hosts.toml.berth", "half");
    std::fs::create_dir(root.path().join("ghcr.io")).unwrap();
    symlink(
        elsewhere.path().join("file"),
        root.path().join("ghcr.io/.hosts.toml.berth"),
    )
    .unwrap();
    let folder = taken(&root);
    let outcome = done(&folder, &["docker.io", "ghcr.io", "quay.io"]);
    assert_eq!(outcome.written, ["docker.io", "ghcr.io", "quay.io"]);
    assert_eq!(read(&elsewhere, "file"), "theirs");
    put(&root, "docker.io/.hosts.toml.berth", "half");
    folder.give_up(true).unwrap();
    assert_eq!(entries(root.path()).unwrap(), Vec::<String>::new());
}

#[test]
fn the_process_that_came_last_has_the_files_until_it_ends() {
    let root = TempDir::new().unwrap();
    let old = taken(&root);
    done(&old, &["docker.io", "quay.io"]);
    let new = Folder::new(root.path(), "berth-system/berth", "two");
    new.take_over().unwrap();
    assert_eq!(done(&new, &["docker.io"]).removed, ["quay.io"]);
    assert_eq!(
        old.look(&mirrors(&["docker.io", "quay.io"])).unwrap(),
        Looked::Succeeded
    );
    assert_eq!(
        old.give_up(true).unwrap(),
        Vec::<String>::new(),
        "they are not its own any more"
    );
    assert_eq!(names(&root), ["docker.io"]);
    // A successor that is withdrawn leaves the field to whoever is still there.
    assert_eq!(new.give_up(true).unwrap(), ["docker.io"]);
    assert_eq!(done(&old, &["quay.io"]).written, ["quay.io"]);
    assert_eq!(new.look(&mirrors(&[])).unwrap(), Looked::Succeeded);
}

#[test]
fn owners_do_not_meet() {
    let root = TempDir::new().unwrap();
    let ours = taken(&root);
    let other = Folder::new(root.path(), "other/berth", "one");
    other.take_over().unwrap();
    done(&ours, &["docker.io"]);
    let outcome = done(&other, &["docker.io", "quay.io"]);
    assert_eq!((outcome.written.len(), outcome.left.len()), (1, 1));
    assert_eq!(other.give_up(true).unwrap(), ["quay.io"]);
    assert_eq!(names(&root), ["docker.io"]);
}

#[test]
fn whoever_reads_meanwhile_sees_a_whole_file() {
    let root = TempDir::new().unwrap();
    let folder = taken(&root);
    let variants = ["https://a.r.example", "https://another-and-longer.r.example"].map(|endpoint| {
        let mirror: Mirror = format!("upstream=docker.io,endpoint={endpoint}").parse().unwrap();
        vec![mirror]
    });
    let texts = variants
        .each_ref()
        .map(|mirrors| mirrors[0].text(&folder.first_line()));
    folder.look(&variants[0]).unwrap();
    let path = root.path().join("docker.io/hosts.toml");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..2000 {
                let text = std::fs::read_to_string(&path).expect("the file is always there");
                assert!(texts.contains(&text), "{text}");
            }
        });
        let mut turn = 0;
        while !reader.is_finished() {
            turn += 1;
            folder.look(&variants[turn % 2]).unwrap();
        }
        reader.join().expect("a whole file each time");
    });
}

#[test]
fn a_folder_that_is_not_there_is_made_and_what_cannot_be_is_told_with_its_path() {
    let root = TempDir::new().unwrap();
    let deep = Folder::new(&root.path().join("a/b"), "berth", "one");
    deep.take_over().unwrap();
    assert_eq!(done(&deep, &["docker.io"]).written, ["docker.io"]);
    put(&root, "file", "");
    let path = root.path().join("file");
    let told = Folder::new(&path, "berth", "one")
        .take_over()
        .expect_err("it is a file")
        .to_string();
    assert!(told.contains(path.to_str().unwrap()), "{told}");
    let absent = Folder::new(&root.path().join("absent"), "berth", "one");
    assert_eq!(absent.give_up(true).unwrap(), Vec::<String>::new());
    assert!(!root.path().join("absent").exists());
}
