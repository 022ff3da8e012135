//! Comma-separated values (RFC 4180).

/// Adds a record. A field is quoted if it must be.
pub(super) fn record(text: &mut String, fields: &[impl AsRef<str>]) {
    for (at, field) in fields.iter().map(AsRef::as_ref).enumerate() {
        if at > 0 {
            text.push(',');
        }
        if field.contains(['"', ',', '\r', '\n']) {
            text.push('"');
            text.push_str(&field.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(field);
        }
    }
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let mut text = String::new();
        record(&mut text, &["a", "", "b,c", "say \"d\"", "two\nlines"]);
        assert_eq!(text, "a,,\"b,c\",\"say \"\"d\"\"\",\"two\nlines\"\r\n");
    }
}
