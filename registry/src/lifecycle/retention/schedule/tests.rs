use proptest::prelude::*;

use super::*;
use crate::rfc3339;

fn following(schedule: &str, after: &str, many: usize) -> Vec<String> {
    let schedule: Schedule = schedule.parse().unwrap();
    let first = rfc3339::read(after).unwrap();
    let times = std::iter::successors(schedule.next(first), |time| schedule.next(*time));
    times.take(many).map(rfc3339::write).collect()
}

#[test]
fn the_next_time_is_strictly_after() {
    let hourly = "0 * * * *";
    assert_eq!(
        following(hourly, "2026-12-31T23:00:00Z", 1),
        ["2027-01-01T00:00:00Z"]
    );
    assert_eq!(
        following(hourly, "2026-12-31T22:59:59.999999Z", 1),
        ["2026-12-31T23:00:00Z"]
    );
    assert_eq!(
        following(hourly, "2026-12-31T23:00:00.000001Z", 1),
        ["2027-01-01T00:00:00Z"]
    );
    assert_eq!(
        following(hourly, "1969-12-31T22:30:00Z", 1),
        ["1969-12-31T23:00:00Z"]
    );
}

#[test]
fn without_a_schedule_it_runs_hourly() {
    assert_eq!(Schedule::default(), "0 * * * *".parse().unwrap());
}

#[test]
fn lists_ranges_and_steps_are_followed() {
    let after = "2026-03-01T00:00:00Z";
    for (schedule, expected) in [
        (
            "50/5,7 1-3/2 * * *",
            ["01T01:07", "01T01:50", "01T01:55", "01T03:07"],
        ),
        ("0 0 10/10 * *", ["10T00:00", "20T00:00", "30T00:00", "10T00:00"]),
        ("*/59 0 * * *", ["01T00:59", "02T00:00", "02T00:59", "03T00:00"]),
        ("0 0 * * 5-7", ["06T00:00", "07T00:00", "08T00:00", "13T00:00"]),
        ("0 0 * * 1/2", ["02T00:00", "04T00:00", "06T00:00", "09T00:00"]),
        ("+5 4 * * *", ["01T04:05", "02T04:05", "03T04:05", "04T04:05"]),
    ] {
        let found = following(schedule, after, 4);
        let found: Vec<&str> = found.iter().map(|time| &time[8..16]).collect();
        assert_eq!(found, expected, "{schedule}");
    }
}

#[test]
fn either_day_suffices_if_both_are_restricted() {
    let after = "2026-03-01T12:00:00Z";
    for (schedule, expected) in [
        ("0 0 3 * 1", ["02", "03", "09", "16"]),
        ("0 0 * * 1", ["02", "09", "16", "23"]),
        ("0 0 1,* * 1", ["02", "09", "16", "23"]),
        ("0 0 */10 * 1", ["02", "09", "11", "16"]),
        ("0 0 3 * *", ["03", "03", "03", "03"]),
        ("0 0 3 * */1", ["03", "03", "03", "03"]),
    ] {
        let found = following(schedule, after, 4);
        let found: Vec<&str> = found.iter().map(|time| &time[8..10]).collect();
        assert_eq!(found, expected, "{schedule}");
    }
}

#[test]
fn a_rare_day_is_found_and_one_that_never_comes_is_not() {
    assert_eq!(
        following("0 0 29 2 *", "2096-02-29T00:00:00Z", 2),
        ["2104-02-29T00:00:00Z", "2108-02-29T00:00:00Z"]
    );
    let no_times: [&str; 0] = [];
    assert_eq!(following("0 0 31 2 *", "2026-01-01T00:00:00Z", 1), no_times);
    assert_eq!(
        following("0 0 31 4,6,9,11 *", "2026-01-01T00:00:00Z", 1),
        no_times
    );
    assert_eq!(
        following("0 0 31 2 0", "2026-01-31T00:00:00Z", 1),
        ["2026-02-01T00:00:00Z"]
    );
    let never: Schedule = "* * * * *".parse().unwrap();
    assert_eq!(never.next(Time(i64::MAX)), None);
    assert_eq!(never.next(Time(i64::MIN)), None);
}

#[test]
fn what_is_no_schedule_is_refused() {
    for text in [
        "",
        "@daily",
        "* * * *",
        "60 * * * *",
        "* * 0 * *",
        "*-5 * * * *",
        "5-1 * * * *",
    ] {
        assert!(text.parse::<Schedule>().is_err(), "{text:?}");
    }
}

/// Whether an entry of a field, whose open ends reach `most`, names a number.
fn entry_names(entry: &str, number: u32, least: u32, most: u32) -> bool {
    let (range, step) = entry.split_once('/').unwrap_or((entry, ""));
    let bounds: Vec<u32> = range.split('-').filter_map(|bound| bound.parse().ok()).collect();
    let (from, to) = match (&bounds[..], step) {
        ([], _) => (least, most),
        ([from], "") => (*from, *from),
        ([from], _) => (*from, most.max(*from)),
        (bounds, _) => (bounds[0], bounds[1]),
    };
    let step = step.parse().unwrap_or(1);
    from <= number && number <= to && (number - from).is_multiple_of(step)
}

/// A clock that is set forward minute by minute.
#[derive(Clone, Copy)]
struct Clock {
    minutes: i64,
    year: u32,
    /// Minute, hour, day of the month, month, day of the week.
    fields: [u32; 5],
}

impl Clock {
    fn of_1970() -> Self {
        Self {
            minutes: 0,
            year: 1970,
            fields: [0, 0, 1, 1, 4],
        }
    }

    fn forward_a_day(&mut self) {
        let [_, _, day, month, weekday] = &mut self.fields;
        let leap =
            self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let length = match *month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        *weekday = (*weekday + 1) % 7;
        *day += 1;
        if *day > length {
            (*day, *month) = (1, *month + 1);
        }
        if *month > 12 {
            (*month, self.year) = (1, self.year + 1);
        }
    }

    fn forward(&mut self) {
        self.minutes += 1;
        self.fields[0] += 1;
        if self.fields[0] == 60 {
            self.fields[0] = 0;
            self.fields[1] += 1;
        }
        if self.fields[1] == 24 {
            self.fields[1] = 0;
            self.forward_a_day();
        }
    }

    fn after_days(days: u32) -> Self {
        let mut clock = Self::of_1970();
        (0..days).for_each(|_| clock.forward_a_day());
        clock.minutes = i64::from(days) * 24 * 60;
        clock
    }
}

/// Which numbers each field names, and which fields are restricted.
struct Model {
    named: [Vec<bool>; 5],
    restricted: [bool; 5],
}

impl Model {
    fn new(fields: &[String]) -> Self {
        let limits = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
        let named = std::array::from_fn(|at| {
            let (least, most) = limits[at];
            let names = |number| {
                fields[at]
                    .split(',')
                    .any(|entry| entry_names(entry, number, least, most))
            };
            (0..60)
                .map(|number| names(number) || at == 4 && number == 0 && names(7))
                .collect()
        });
        let open = |entry: &str| matches!(entry, "*" | "*/1");
        let restricted = std::array::from_fn(|at| !fields[at].split(',').any(open));
        Self { named, restricted }
    }

    fn runs(&self, clock: &Clock) -> bool {
        let named = |at: usize| self.named[at][clock.fields[at] as usize];
        let either = self.restricted[2] && self.restricted[4];
        let day = || {
            if either {
                named(2) || named(4)
            } else {
                named(2) && named(4)
            }
        };
        named(0) && named(1) && named(3) && day()
    }
}

fn a_field(least: u32, most: u32) -> impl Strategy<Value = String> {
    let number = least..=most;
    let step = prop_oneof![3 => Just(String::new()), 1 => (1..=most).prop_map(|step| format!("/{step}"))];
    let range = prop_oneof![
        Just("*".to_owned()),
        number.clone().prop_map(|number| number.to_string()),
        (number.clone(), number).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
    ];
    let entry = (range, step).prop_map(|(range, step)| format!("{range}{step}"));
    prop_oneof![
        1 => Just("*".to_owned()),
        2 => prop::collection::vec(entry, 1..4).prop_map(|entries| entries.join(",")),
    ]
}

fn fields() -> impl Strategy<Value = Vec<String>> {
    let fields = (
        a_field(0, 59),
        a_field(0, 23),
        a_field(1, 31),
        a_field(1, 12),
        a_field(0, 7),
    );
    fields.prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_text_that_the_check_takes_is_read(text in "[0-9*/,+-]{1,4}( [0-9*/,+-]{1,4}){3,5}") {
        prop_assert_eq!(text.parse::<Schedule>().is_ok(), berth_crds::check::cron(&text).is_ok());
    }

    #[test]
    fn the_next_time_agrees_with_a_clock_that_is_watched(
        fields in fields(),
        // From 2023 to 2028, and around the February of 2100 that has no 29th.
        start in prop_oneof![19_400..21_200_u32, 47_450..47_500_u32],
    ) {
        let schedule: Schedule = fields.join(" ").parse().unwrap();
        let model = Model::new(&fields);
        let mut clock = Clock::after_days(start);
        let mut next = schedule.next(Time(clock.minutes * MICROSECONDS_PER_MINUTE));
        for _ in 0..100 * MINUTES_PER_DAY {
            clock.forward();
            let now = Time(clock.minutes * MICROSECONDS_PER_MINUTE);
            let due = next == Some(now);
            if due != model.runs(&clock) {
                prop_assert!(false, "{} at {}: {next:?}", fields.join(" "), rfc3339::write(now));
            }
            if due {
                next = schedule.next(now);
            }
        }
    }
}
