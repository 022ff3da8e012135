//! The nearest known name to one that was mistyped.

/// The candidate with the smallest edit distance, if it is near enough to be meant.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let normal = name.to_ascii_lowercase().replace('_', "-");
    let scored = candidates.map(|candidate| (distance(&normal, candidate), candidate));
    let (distance, candidate) = scored.min()?;
    (distance <= candidate.len() / 3 + 1).then_some(candidate)
}

/// Levenshtein distance in bytes; names are short.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_name_and_nonsense_finds_none() {
        let names = ["listen", "admin-listen", "metadata"];
        assert_eq!(nearest("listn", names.into_iter()), Some("listen"));
        assert_eq!(nearest("admin_listen", names.into_iter()), Some("admin-listen"));
        assert_eq!(nearest("xyzzyplugh", names.into_iter()), None);
    }
}
