//! Until when a certificate is valid: the one field of it that is looked at here. Everything else about certificates is
//! the TLS library's.

use time::{Date, Month, PrimitiveDateTime, Time};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Seconds since 1970 of the end of a certificate in DER (RFC 5280, section 4.1); nothing if it cannot be read.
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(certificate, SEQUENCE)?;
    let (_, mut fields, _) = element(certificate, SEQUENCE)?;
    if let Some((_, _, rest)) = element(fields, VERSION) {
        fields = rest;
    }
    // Serial number, signature, issuer.
    for _ in 0..3 {
        (_, _, fields) = any(fields)?;
    }
    let (_, validity, _) = element(fields, SEQUENCE)?;
    let (_, _, rest) = any(validity)?;
    let (tag, text, _) = any(rest)?;
    seconds(tag, std::str::from_utf8(text).ok()?)
}

/// The first element, if it has this tag: tag, content, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(u8, &[u8], &[u8])> {
    any(bytes).filter(|(found, ..)| *found == tag)
}

/// The first element of DER. Tags of several bytes do not occur before the field that is sought.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0_usize, |length, digit| (length << 8) | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, whose years are 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn seconds(tag: u8, text: &str) -> Option<i64> {
    let digits = text
        .strip_suffix('Z')
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year: i32 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<u8>().ok();
    let month = Month::try_from(part(0)?).ok()?;
    let date = Date::from_calendar_date(year, month, part(2)?).ok()?;
    let time = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    /// To the 3rd of February 2027, in two digits of a year; version 1, which has no number.
    const SOON: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBDzCBtgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlhLmV4YW1wbGUwHhcN\n\
        MjYwMTAyMDMwNDA1WhcNMjcwMjAzMDQwNTA2WjAUMRIwEAYDVQQDDAlhLmV4YW1w\n\
        bGUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQlQNS5JYk33IcibLzCtlPpzOtO\n\
        HcXvmfvTwNCnHhRtsxavZPXK3h5edT0OeV7O8obhUbH4f7MLSuJ+AWbO7mprMAoG\n\
        CCqGSM49BAMCA0gAMEUCIECeGdxWc8ENjMCDmw2Uznu+53/8NpR0H0YHOA8dOsSk\n\
        AiEAtHQzCm/qubqJlnheQP84uSeaZEsnbIeT8QwHM7lM+GY=\n\
        -----END CERTIFICATE-----";
    /// To the 3rd of February 2051, in four; version 3.
    const LATE: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBRDCB66ADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWIuZXhhbXBs\n\
        ZTAgFw0yNjAxMDIwMzA0MDVaGA8yMDUxMDIwMzA0MDUwNlowFDESMBAGA1UEAwwJ\n\
        Yi5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJUDUuSWJN9yHImy8\n\
        wrZT6czrTh3F75n708DQpx4UbbMWr2T1yt4eXnU9DnlezvKG4VGx+H+zC0rifgFm\n\
        zu5qa6MsMCowCQYDVR0TBAIwADAdBgNVHQ4EFgQU12JvhikB746WtvN++02wXC5W\n\
        4xIwCgYIKoZIzj0EAwIDSAAwRQIhANpta4y6ZCV0FZXT+hpyzz5LnUZElrAlshpZ\n\
        39LgDypxAiAsrOySdG/pa25rrrFdEQrbbaSh2aPnp19TRWH9mNRK8w==\n\
        -----END CERTIFICATE-----";

    fn der(pem: &str) -> Vec<u8> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_of_a_time() {
        assert_eq!(not_after(&der(SOON)), Some(1_801_627_506));
        assert_eq!(not_after(&der(LATE)), Some(2_559_009_906));
    }

    #[test]
    fn what_is_no_certificate_has_no_end_and_does_no_harm() {
        let whole = der(SOON);
        let end = whole
            .windows(13)
            .position(|window| window == b"270203040506Z")
            .unwrap()
            + 13;
        for length in 0..end {
            assert_eq!(not_after(&whole[..length]), None, "{length}");
        }
        let mut other = whole.clone();
        for place in 0..end {
            for value in [0x00, 0x1f, 0x80, 0x84, 0xff] {
                other[place] = value;
                // Whatever comes of it, it comes without a panic.
                let _ = not_after(&other);
            }
            other[place] = whole[place];
        }
        for text in ["9913010000Z", "271303040506Z", "27020304050aZ", "270203040560Z"] {
            assert_eq!(seconds(UTC_TIME, text), None, "{text}");
        }
    }
}
