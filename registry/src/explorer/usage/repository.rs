//! What one repository stored over time, and what that cost.

use axum::response::Response;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;

use super::super::answer::{self, Failure, View};
use super::super::path;
use super::super::plot::{self, Point};
use super::super::shown::{self, Column};
use super::super::visit::{self, Visit};
use super::{Month, bar, of_month, spans};
use crate::domain::RepositoryName;
use crate::domain::grant::Action;
use crate::lifecycle::metering::Price;
use crate::metadata::Time;
use crate::metadata::explore::Day;
use crate::rfc3339;

/// Months that are shown.
const MONTHS: u32 = 24;
const DAY: i64 = 86_400_000_000;
const HOURS: i64 = 24;

/// What a repository stores.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RepositoryUsage {
    repository: String,
    bytes: u64,
    tags: u64,
    /// What a month of 730 hours at this size costs.
    monthly_cost: String,
    currency: String,
    /// Days that the samples go back.
    days: i64,
    /// Bytes at the end of each day on which they changed, the oldest first.
    samples: Vec<Sample>,
    /// What it stored in each month, this one so far, the oldest first.
    months: Vec<Month>,
    #[serde(skip)]
    points: Vec<Point>,
}

#[derive(Debug, Serialize)]
struct Sample {
    /// Like 2026-11-26, in UTC.
    day: String,
    bytes: u64,
}

/// The page.
pub async fn get(visit: &Visit, name: RepositoryName, parts: &Parts) -> Result<Response, Failure> {
    visit.reads(&parts.method)?;
    let repository = visit.repository(name.clone(), Action::Metadata)?;
    visit.known()?;
    let (explorer, tenant) = (&visit.explorer, &visit.tenant);
    let usage = explorer
        .configuration
        .repository_usage(tenant.id, &repository.name)
        .await?;
    let usage = usage.ok_or_else(|| visit.unknown(&name))?;
    let span = spans::asked(visit::query(parts)?);
    let price = explorer.keeper.price().of(tenant.config.billing.as_ref());

    let now = Time::now();
    let from = now.0.div_euclid(DAY) - span;
    let limit = u32::try_from(span + 2).unwrap_or(u32::MAX);
    let days = explorer.explore.days(&repository, from, limit).await?;
    let months = explorer.explore.months(&repository, MONTHS).await?;
    let page = RepositoryUsage {
        repository: repository.name.to_string(),
        bytes: usage.bytes,
        tags: usage.tags,
        monthly_cost: monthly(&price, usage.bytes),
        currency: price.currency.clone(),
        days: span,
        samples: days.iter().map(Sample::from).collect(),
        months: months
            .into_iter()
            .map(|month| of_month(month.month, month.byte_hours, &price))
            .collect(),
        points: points(&days, from, now, usage.bytes),
    };
    Ok(answer::view(visit, &page))
}

/// What a month of 730 hours at this size costs.
pub(super) fn monthly(price: &Price, bytes: u64) -> String {
    price.cost(bytes.saturating_mul(super::MONTH))
}

impl From<&Day> for Sample {
    fn from(day: &Day) -> Self {
        let text = rfc3339::write(Time(day.day.saturating_mul(DAY)));
        Self {
            day: text.get(..10).unwrap_or(&text).to_owned(),
            bytes: day.bytes,
        }
    }
}

/// A curve of steps: each day's bytes stayed until the next one's. It begins where the span does and ends now.
fn points(days: &[Day], from: i64, now: Time, bytes: u64) -> Vec<Point> {
    let mut points = Vec::new();
    let mut stored = 0;
    for day in days {
        // The end of its day.
        let hour = (day.day.max(from - 1) + 1) * HOURS;
        if day.day >= from {
            points.push(Point {
                hour: hour - HOURS,
                bytes: stored,
            });
        }
        points.push(Point {
            hour,
            bytes: day.bytes,
        });
        stored = day.bytes;
    }
    if points.is_empty() {
        return points;
    }
    let end = now.0 / (DAY / HOURS) + 1;
    // The sample of today is as old as the last hour.
    points.retain(|point| point.hour < end);
    points.push(Point { hour: end, bytes });
    points
}

impl View for RepositoryUsage {
    fn title(&self) -> String {
        format!("Usage of {}", self.repository)
    }

    fn body(&self, _: &Visit) -> Markup {
        let label = format!(
            "Bytes stored by {} in the last {} days",
            self.repository, self.days
        );
        html! {
            (shown::crumbs(Some(&self.repository)))
            h1 { "Usage" }
            dl.facts {
                div { dt { "Stored" } dd { (shown::size(self.bytes)) } }
                div { dt { "Tags" } dd { (shown::grouped(self.tags)) } }
                div { dt { "A month at this size" } dd { (self.monthly_cost) " " (self.currency) } }
            }
            section aria-labelledby="time" {
                h2 #time { "Storage over time" }
                (spans::links(&path::of_part(&self.repository, "usage"), self.days))
                @if self.samples.is_empty() { p.hint { "Nothing has been measured yet; that is done once an hour." } }
                (plot::curve(&self.points, &label))
            }
            @if !self.months.is_empty() { (self.months()) }
        }
    }
}

impl RepositoryUsage {
    fn months(&self) -> Markup {
        let most = self.months.iter().map(|month| month.byte_hours).max();
        let most = most.unwrap_or_default().max(1);
        html! {
            section aria-labelledby="months" {
                h2 #months { "By month" }
                (shown::table("Months", &[Column::Text("Month"), Column::Number("GiB-hours"), Column::Hidden("Share"), Column::Number("Cost")], &html! {
                    @for month in self.months.iter().rev() {
                        tr {
                            th scope="row" { (month.month) }
                            td.number { (crate::lifecycle::metering::gib_hours(month.byte_hours)) }
                            td { (bar(month.byte_hours, most)) }
                            td.number { (month.cost) " " (month.currency) }
                        }
                    }
                }))
                p.hint { "What repositories share counts in each of them, and once for the tenant." }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64, bytes: u64) -> Day {
        Day { day, bytes }
    }

    #[test]
    fn a_curve_goes_on_from_what_was_stored_before_it() {
        // Day 10 at noon.
        let now = Time(10 * DAY + DAY / 2);
        let drawn = |days: &[Day], bytes| -> Vec<(i64, u64)> {
            let points = points(days, 5, now, bytes);
            points
                .into_iter()
                .map(|point| (point.hour, point.bytes))
                .collect()
        };
        assert_eq!(drawn(&[], 7), []);
        assert_eq!(drawn(&[day(2, 5)], 7), [(5 * 24, 5), (253, 7)]);
        assert_eq!(
            drawn(&[day(2, 5), day(7, 9), day(10, 8)], 8),
            [(120, 5), (168, 5), (192, 9), (240, 9), (253, 8)]
        );
        assert_eq!(drawn(&[day(8, 9)], 9), [(192, 0), (216, 9), (253, 9)]);
    }
}
