//! Writes the definitions of the four kinds: `crdgen > crds/manifests/berth.yaml`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match berth_crds::manifest() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}
