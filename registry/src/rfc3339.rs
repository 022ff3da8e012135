//! Times as text (RFC 3339), in UTC.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::metadata::Time;

/// Now.
pub fn now() -> String {
    write(Time::now())
}

/// A time, to the second where it has no fraction.
pub fn write(time: Time) -> String {
    let nanoseconds = i128::from(time.0) * 1000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
}

/// Reads a time.
pub fn read(text: &str) -> Result<Time, String> {
    let refused = |_| format!("{text:?} is no time: write it like 2027-01-31T12:00:00Z");
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(refused)?;
    let microseconds = time.unix_timestamp_nanos() / 1000;
    Ok(Time(i64::try_from(microseconds).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_again() {
        assert_eq!(write(Time(0)), "1970-01-01T00:00:00Z");
        assert_eq!(
            read("2027-01-31T12:00:00.5+01:00").map(write).as_deref(),
            Ok("2027-01-31T11:00:00.5Z")
        );
        assert!(read("tomorrow").is_err());
        assert_eq!(write(Time(i64::MAX)), "9999-12-31T23:59:59Z");
    }
}
