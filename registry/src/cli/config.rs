//! `berth-registry config`: the effective settings.

use std::io::Write;

use super::{Ended, Output};
use crate::settings::{Resolved, print};

pub(super) fn run(resolved: &Resolved, output: Output) -> Ended {
    let text = match output {
        Output::Text => print::yaml(resolved),
        Output::Json => format!("{:#}\n", print::json(resolved)),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
