//! The spans of time that a curve may show.

use maud::{Markup, html};

const SPANS: [i64; 3] = [7, 30, 365];
const USUAL: i64 = 30;

/// The days that a query asks for.
pub(super) fn asked(query: Vec<(String, String)>) -> i64 {
    let days = query.into_iter().find(|(key, _)| key == "days");
    let days = days.and_then(|(_, value)| value.parse().ok());
    days.filter(|days| SPANS.contains(days)).unwrap_or(USUAL)
}

/// Links to the same page with each span.
pub(super) fn links(place: &str, chosen: i64) -> Markup {
    html! {
        nav aria-label="Span of time" {
            @for (at, days) in SPANS.into_iter().enumerate() {
                @if at > 0 { " · " }
                a href=(format!("{place}?days={days}")) aria-current=[(days == chosen).then_some("page")] {
                    (days) " days"
                }
            }
        }
    }
}
