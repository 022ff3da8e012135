//! The profiles that come with the chart.

use harness::same_as_stored;

use super::{PROFILES, chart, checkout, helm, profile, rendered};

#[test]
fn the_chart_passes_the_strict_lint_with_its_defaults_and_with_every_profile() {
    let folder = chart("");
    let folder = folder.to_str().expect("a plain path");
    let files: Vec<String> = PROFILES.iter().map(|name| profile(name)).collect();
    let values = files.iter().map(|file| vec!["-f", file.as_str()]);
    for values in std::iter::once(Vec::new()).chain(values) {
        let output = helm(&[&["lint", "--strict", folder][..], &values].concat());
        assert!(
            output.status.success(),
            "{values:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn every_profile_renders_the_same_twice() {
    for name in PROFILES {
        let file = profile(name);
        assert!(rendered(&["-f", &file]) == rendered(&["-f", &file]), "{name}");
    }
}

/// What every profile has alike, or is long, is compared elsewhere.
const LEFT_OUT: &str = "crds.install=false,metrics.dashboard.enabled=false";

#[test]
fn every_profile_renders_what_is_stored() {
    for name in PROFILES {
        let render = rendered(&["-f", &profile(name), "--set", LEFT_OUT]);
        same_as_stored(&checkout(&format!("tests/chart/golden/{name}.yaml")), &render);
    }
}
