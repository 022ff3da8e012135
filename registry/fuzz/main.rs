//! The targets of `berth_registry::fuzzing` under libFuzzer: `BERTH_FUZZ_TARGET` names one. `./tests/run fuzz` builds and runs it.

#![no_main]

use std::sync::LazyLock;

use berth_registry::fuzzing::{Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("BERTH_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("BERTH_FUZZ_TARGET={name} names no target"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
