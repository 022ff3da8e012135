//! What a browser brings back from an issuer.

/// Longest parameter looked at, in bytes.
const LIMIT: usize = 4096;
/// Longest words of an issuer that are told on, in characters.
const WORDS: usize = 300;

/// An answer of an issuer, in the query of the callback (RFC 6749, sections 4.1.2 and 4.1.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    state: String,
    /// Which issuer says so (RFC 9207).
    issuer: Option<String>,
    outcome: Result<String, String>,
}

impl Answer {
    /// Reads a query; none if it is no answer. No parameter may stand there twice (RFC 6749, section 3.1).
    pub fn read(query: &str) -> Option<Self> {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let value = |name: &str| -> Option<Option<&str>> {
            let mut values = pairs.iter().filter(|(key, _)| key == name);
            let first = values.next().map(|(_, value)| value.as_str());
            let is_fine = values.next().is_none() && first.is_none_or(|value| value.len() <= LIMIT);
            is_fine.then_some(first.filter(|value| !value.is_empty()))
        };
        let outcome = match (value("error")?, value("code")?) {
            (Some(error), _) => Err(words(error, value("error_description")?)),
            (None, Some(code)) => Ok(code.to_owned()),
            (None, None) => return None,
        };
        Some(Self {
            state: value("state")??.to_owned(),
            issuer: value("iss")?.map(str::to_owned),
            outcome,
        })
    }

    pub(super) fn state(&self) -> &str {
        &self.state
    }

    /// Whether it is an issuer's, as far as it says; `always` if that issuer always does.
    pub(super) fn is_of(&self, issuer: &str, always: bool) -> bool {
        match &self.issuer {
            Some(named) => named == issuer,
            None => !always,
        }
    }

    /// The code, or why there is none.
    pub(super) fn code(&self) -> Result<&str, String> {
        self.outcome.as_deref().map_err(Clone::clone)
    }
}

/// An issuer's error in its own words, fit for a page and a record.
pub(super) fn words(error: &str, description: Option<&str>) -> String {
    let text = match description {
        Some(description) => format!("{description} ({error})"),
        None => error.to_owned(),
    };
    text.chars().filter(|c| !c.is_control()).take(WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_and_an_error_are_read() {
        let code = Answer::read("code=a%2Fb&state=s&iss=https%3A%2F%2Fid.test&session_state=x").unwrap();
        assert_eq!((code.state(), code.code()), ("s", Ok("a/b")));
        assert!(code.is_of("https://id.test", true) && !code.is_of("https://id.test/", false));

        let error = "error=access_denied&error_description=not%0Atoday%3Cb%3E&state=s&code=x";
        let error = Answer::read(error).unwrap();
        assert_eq!(error.code(), Err("nottoday<b> (access_denied)".to_owned()));
        assert!(error.is_of("any", false) && !error.is_of("any", true));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let long = format!("code={}&state=s", "x".repeat(LIMIT + 1));
        for query in [
            "",
            "code=a",
            "state=s",
            "code=&state=s",
            "code=a&state=",
            "code=a&code=b&state=s",
            "code=a&state=s&state=t",
            "code=a&state=s&iss=x&iss=y",
            &long,
        ] {
            assert_eq!(Answer::read(query), None, "{query}");
        }
    }
}
