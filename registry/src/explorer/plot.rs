//! A curve over time as an inline picture: no script, no file, colours by the style sheet.

use maud::{Markup, html};

use super::shown;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 160.0;
/// Points that are drawn; of more, some are left out.
const POINTS: usize = 240;

/// Bytes at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Hours since 1970.
    pub hour: i64,
    /// How many.
    pub bytes: u64,
}

/// The curve from the first to the last point; nothing if there are fewer than two. `label` says what it is.
pub fn curve(points: &[Point], label: &str) -> Markup {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return html! {};
    };
    let most = points.iter().map(|point| point.bytes).max().unwrap_or_default();
    let hours = last.hour - first.hour;
    if hours <= 0 {
        return html! {};
    }
    let top = ceiling(most);
    // Some hundred pixels: what a float loses is not seen.
    #[expect(clippy::cast_precision_loss)]
    let place = |point: &Point| {
        let x = (point.hour - first.hour) as f64 / hours as f64 * WIDTH;
        let y = HEIGHT - point.bytes as f64 / top as f64 * HEIGHT;
        format!("{x:.1},{y:.1}")
    };
    let line: Vec<String> = thinned(points).map(place).collect();
    let line = line.join(" ");
    html! {
        figure.plot {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(label) {
                line class="grid" x1="0" y1="0" x2=(WIDTH) y2="0" {}
                line class="grid" x1="0" y1=(HEIGHT / 2.0) x2=(WIDTH) y2=(HEIGHT / 2.0) {}
                polygon class="under" points=(format!("0,{HEIGHT} {line} {WIDTH},{HEIGHT}")) {}
                polyline class="curve" points=(line) {}
            }
            figcaption { (label) "; the upper line is " (shown::size_text(top)) }
        }
    }
}

/// The points, or so many of them, the last among them.
fn thinned(points: &[Point]) -> impl Iterator<Item = &Point> {
    let step = points.len().div_ceil(POINTS).max(1);
    let last = points.len() - 1;
    let kept = move |(at, _): &(usize, &Point)| at % step == 0 || *at == last;
    points.iter().enumerate().filter(kept).map(|(_, point)| point)
}

/// A round number of binary units that is not smaller: 1, 2 or 5 times a power of ten of KiB, MiB and so on.
fn ceiling(bytes: u64) -> u64 {
    let mut unit: u64 = 1024;
    while unit < 1 << 60 && bytes >= unit * 1024 {
        unit *= 1024;
    }
    for factor in [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] {
        if unit.saturating_mul(factor) >= bytes {
            return unit.saturating_mul(factor);
        }
    }
    unit.saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_line_is_round_and_not_below_the_curve() {
        for (bytes, expected) in [
            (0, 1024),
            (1, 1024),
            (1025, 2048),
            (3 << 20, 5 << 20),
            (1001 << 20, 1 << 30),
            (512 << 30, 1000 << 30),
        ] {
            assert_eq!(ceiling(bytes), expected, "{bytes}");
        }
        assert!(ceiling(u64::MAX) >= u64::MAX / 2);
    }

    #[test]
    fn of_very_many_points_some_are_left_out_but_not_the_last() {
        let points: Vec<Point> = (0..10_000).map(|hour| Point { hour, bytes: 1 }).collect();
        let kept: Vec<&Point> = thinned(&points).collect();
        assert!(kept.len() <= POINTS + 1);
        assert_eq!((kept[0].hour, kept[kept.len() - 1].hour), (0, 9999));
    }

    #[test]
    fn what_is_no_curve_is_not_drawn() {
        let point = Point { hour: 7, bytes: 1 };
        for count in 0..3 {
            let points = vec![point.clone(); count];
            assert_eq!(curve(&points, "x").into_string(), "");
        }
    }
}
