//! What something is expected to be, in files of the checkout.

use std::path::Path;

/// Compares with a file of the checkout, or writes it if `BERTH_BLESS=1`.
///
/// # Panics
/// If they differ; the message shows the first line that does.
pub fn same_as_stored(path: &Path, content: &str) {
    if std::env::var("BERTH_BLESS").is_ok_and(|bless| bless == "1") {
        std::fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    if stored == content {
        return;
    }
    let mut lines = stored.lines().zip(content.lines()).enumerate();
    let differing = lines.find(|(_, (old, new))| old != new);
    let shown = differing.map_or_else(
        || "one is longer".to_owned(),
        |(number, (old, new))| format!("line {}:\n- {old}\n+ {new}", number + 1),
    );
    panic!(
        "{} is not what is made now; look at the change, then BERTH_BLESS=1 writes it.\n{shown}",
        path.display()
    );
}
