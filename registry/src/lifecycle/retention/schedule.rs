//! When a policy runs: five fields of cron, in UTC.
//!
//! Written here because the well-kept crate, croner, refuses some of what resources may hold (`1,*`, `5/10`), takes
//! a `+` before a day of the week for "and", and walks three thousand years for a day that never comes.

use std::str::FromStr;

use time::{Date, OffsetDateTime};

use crate::metadata::Time;

const MICROSECONDS_PER_MINUTE: i64 = 60_000_000;
const MINUTES_PER_DAY: i64 = 24 * 60;

/// A day that comes at all comes within eight years: 29 February, around a century that has none.
const LONGEST_WAIT_DAYS: i64 = 8 * 366;

/// Times of a policy's runs, to the minute, in UTC.
///
/// Takes what [`berth_crds::check::cron`] takes and means what a `CronJob` of Kubernetes would: `5/10` goes from 5
/// to the field's end, and if both the day of the month and the day of the week are restricted, either suffices. A
/// field is restricted unless one of its entries is `*` or `*/1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    minutes: Set,
    hours: Set,
    months: Set,
    days: Days,
}

/// Numbers below 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Set(u64);

impl Set {
    fn with(self, number: u32) -> Self {
        Self(self.0 | (1 << number))
    }

    fn has(self, number: u8) -> bool {
        (self.0 >> number) & 1 == 1
    }

    /// The least number that is at least this.
    fn from(self, least: u32) -> Option<u32> {
        let rest = self.0.checked_shr(least)? << least;
        (rest != 0).then(|| rest.trailing_zeros())
    }
}

/// On which days; weeks begin with Sunday, 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Days {
    OfMonth(Set),
    OfWeek(Set),
    Either { of_month: Set, of_week: Set },
}

impl Days {
    fn has(self, date: Date) -> bool {
        let (day, weekday) = (date.day(), date.weekday().number_days_from_sunday());
        match self {
            Self::OfMonth(set) => set.has(day),
            Self::OfWeek(set) => set.has(weekday),
            Self::Either { of_month, of_week } => of_month.has(day) || of_week.has(weekday),
        }
    }
}

impl Schedule {
    /// The first time strictly after `after`; none if it never comes, like 31 February.
    pub fn next(&self, after: Time) -> Option<Time> {
        let first = after.0.div_euclid(MICROSECONDS_PER_MINUTE) + 1;
        let mut day = first.div_euclid(MINUTES_PER_DAY);
        let mut minute = u32::try_from(first.rem_euclid(MINUTES_PER_DAY)).ok()?;
        let mut date = OffsetDateTime::from_unix_timestamp(day * MINUTES_PER_DAY * 60)
            .ok()?
            .date();
        let last = day + LONGEST_WAIT_DAYS;
        while day <= last {
            if let Some(found) = self.in_day(date, minute) {
                let minutes = day * MINUTES_PER_DAY + i64::from(found);
                return Some(Time(minutes * MICROSECONDS_PER_MINUTE));
            }
            date = date.next_day()?;
            (day, minute) = (day + 1, 0);
        }
        None
    }

    /// The first minute of the day that is at least `least`.
    fn in_day(&self, date: Date, least: u32) -> Option<u32> {
        if !self.months.has(u8::from(date.month())) || !self.days.has(date) {
            return None;
        }
        let (this_hour, this_minute) = (least / 60, least % 60);
        let hour = self.hours.from(this_hour)?;
        let (hour, minute) = match self.minutes.from(this_minute) {
            Some(minute) if hour == this_hour => (hour, minute),
            None if hour == this_hour => (self.hours.from(hour + 1)?, self.minutes.from(0)?),
            Some(_) | None => (hour, self.minutes.from(0)?),
        };
        Some(hour * 60 + minute)
    }
}

impl Default for Schedule {
    /// Every hour: `0 * * * *`.
    fn default() -> Self {
        Self {
            minutes: Set(1),
            hours: Set((1 << 24) - 1),
            months: Set((1 << 13) - 2),
            days: Days::OfMonth(Set((1 << 32) - 2)),
        }
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        berth_crds::check::cron(text)?;
        read(text)
            .ok_or_else(|| format!("{text:?} is no schedule: five fields as in cron, like \"0 3 * * *\""))
    }
}

fn read(text: &str) -> Option<Schedule> {
    let mut fields = text.split_ascii_whitespace();
    let minutes = field(fields.next()?, 0, 59)?;
    let hours = field(fields.next()?, 0, 23)?;
    let of_month = field(fields.next()?, 1, 31)?;
    let months = field(fields.next()?, 1, 12)?;
    // An open end is Saturday: 7 is but another name of Sunday.
    let of_week = field(fields.next()?, 0, 6)?;
    let sunday = |set: Set| if set.has(7) { set.with(0) } else { set };
    let days = match (of_month, of_week) {
        (Field::Any(days) | Field::Restricted(days), Field::Any(_)) => Days::OfMonth(days),
        (Field::Any(_), Field::Restricted(days)) => Days::OfWeek(sunday(days)),
        (Field::Restricted(of_month), Field::Restricted(days)) => Days::Either {
            of_month,
            of_week: sunday(days),
        },
    };
    Some(Schedule {
        minutes: minutes.set(),
        hours: hours.set(),
        months: months.set(),
        days,
    })
}

enum Field {
    Any(Set),
    Restricted(Set),
}

impl Field {
    fn set(self) -> Set {
        match self {
            Self::Any(set) | Self::Restricted(set) => set,
        }
    }
}

/// Reads a field that [`berth_crds::check::cron`] took.
fn field(text: &str, least: u32, most: u32) -> Option<Field> {
    let mut set = Set::default();
    let mut any = false;
    for entry in text.split(',') {
        let (range, step) = match entry.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<usize>().ok()?)),
            None => (entry, None),
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
            None if range == "*" => (least, most),
            None => {
                let number: u32 = range.parse().ok()?;
                (number, if step.is_some() { most.max(number) } else { number })
            }
        };
        let step = step.unwrap_or(1);
        any |= range == "*" && step == 1;
        set = (from..=to).step_by(step).fold(set, Set::with);
    }
    Some(if any {
        Field::Any(set)
    } else {
        Field::Restricted(set)
    })
}

#[cfg(test)]
mod tests;
