//! Pages of lists: `n`, `last` and `Link` (distribution-spec, "Listing Tags").

use http::HeaderValue;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::answer;
use super::error::{ApiError, Code};
use super::query::Query;

/// Entries of a page, however many are asked for: some clients read at most 4 MiB.
pub const PAGE_LIMIT: u32 = 10_000;

/// Which page is asked for.
pub struct Page {
    /// Entries, at most [`PAGE_LIMIT`].
    pub limit: u32,
    /// The last entry of the page before, exclusive; it need not exist.
    pub after: Option<String>,
}

impl Page {
    /// Reads `n` and `last`.
    pub fn of(query: &Query) -> Result<Self, ApiError> {
        let limit = match query.first("n") {
            None => PAGE_LIMIT,
            Some(text) => {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let asked: Option<u64> = digits.then(|| text.parse().ok()).flatten();
                let asked = asked.ok_or_else(|| {
                    ApiError::of(
                        Code::PaginationNumberInvalid,
                        "n is the number of entries wanted: 0 or more",
                    )
                })?;
                u32::try_from(asked).unwrap_or(PAGE_LIMIT).min(PAGE_LIMIT)
            }
        };
        Ok(Self {
            limit,
            after: query.first("last").map(str::to_owned),
        })
    }

    /// Cuts a list that was read with one entry more than the page holds, and says where the next begins:
    /// at `link`, to which parameters are added.
    pub fn cut(&self, link: &str, entries: &mut Vec<String>) -> Option<HeaderValue> {
        let more = entries.len() > self.limit as usize;
        entries.truncate(self.limit as usize);
        let last = entries.last().filter(|_| more)?;
        Some(self.next(link, last))
    }

    /// The link to the page that begins behind `last`.
    pub fn next(&self, link: &str, last: &str) -> HeaderValue {
        let last = utf8_percent_encode(last, NON_ALPHANUMERIC);
        answer::value(format!("<{link}n={}&last={last}>; rel=\"next\"", self.limit))
    }
}
