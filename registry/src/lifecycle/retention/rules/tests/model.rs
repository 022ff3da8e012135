//! What the documentation says about retention, tag by tag and nothing clever: every count is made anew.

use super::*;

/// A tag, with times in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub name: String,
    pub pushed_at: i64,
    pub renewed_at: Option<i64>,
    pub pulled_at: Option<i64>,
}

#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub name: String,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub(super) struct Repository {
    pub policies: Vec<Policy>,
    pub immutable: Vec<String>,
    /// Microseconds.
    pub lifetime: Option<i64>,
    pub images: Vec<Image>,
}

fn matches(glob: &[u8], text: &[u8]) -> bool {
    match (glob, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| matches(rest, &text[taken..])),
        ([b'?', rest @ ..], [_, others @ ..]) => matches(rest, others),
        ([one, rest @ ..], [other, others @ ..]) => one == other && matches(rest, others),
        ([], _) | (_, []) => false,
    }
}

fn any_matches(globs: &[String], name: &str) -> bool {
    globs.iter().any(|glob| matches(glob.as_bytes(), name.as_bytes()))
}

fn covers(rule: &Rule, name: &str) -> bool {
    (rule.tags.is_empty() || any_matches(&rule.tags, name)) && !any_matches(&rule.not, name)
}

/// Major and minor.
fn version(name: &str) -> Option<(u64, u64)> {
    let text = name.trim_start_matches('v');
    if name.len() - text.len() > 1 || text.ends_with(['-', '_', '.']) {
        return None;
    }
    let end = text.find(['-', '_']).unwrap_or(text.len());
    let mut numbers = Vec::new();
    for number in text[..end].split('.') {
        let read: u64 = number.parse().ok()?;
        if read.to_string() != number {
            return None;
        }
        numbers.push(read);
    }
    (numbers.len() <= 3).then(|| (numbers[0], numbers.get(1).copied().unwrap_or(0)))
}

impl Repository {
    fn position(&self, rule: &Rule, image: &Image) -> usize {
        let newer = |other: &&Image| {
            other.pushed_at > image.pushed_at
                || (other.pushed_at == image.pushed_at && other.name < image.name)
        };
        1 + self
            .images
            .iter()
            .filter(|other| covers(rule, &other.name))
            .filter(newer)
            .count()
    }

    fn is_newest(&self, rule: &Rule, keep: KeepSemver, (major, minor): (u64, u64)) -> bool {
        let mut all: Vec<(u64, u64)> = self
            .images
            .iter()
            .filter(|image| covers(rule, &image.name))
            .filter_map(|image| version(&image.name))
            .collect();
        all.sort();
        all.dedup();
        all.reverse();
        let newer_minors = all
            .iter()
            .filter(|other| other.0 == major && other.1 > minor)
            .count();
        let mut newer_majors: Vec<u64> = all
            .iter()
            .map(|other| other.0)
            .filter(|other| *other > major)
            .collect();
        newer_majors.dedup();
        newer_majors.len() < keep.major as usize && keep.minor.is_none_or(|most| newer_minors < most as usize)
    }

    /// All of a rule's reasons to keep an image, those that hold for ever first.
    fn reasons(&self, rule: &Rule, image: &Image, now: i64) -> Vec<Why> {
        if !covers(rule, &image.name) {
            return Vec::new();
        }
        if rule.keep_within.is_none() && rule.keep_last.is_none() && rule.keep_semver.is_none() {
            return vec![Why::Matches];
        }
        let mut reasons = Vec::new();
        let position = self.position(rule, image);
        if let Some(of) = rule.keep_last
            && position <= of as usize
        {
            let position = position as u64;
            reasons.push(Why::Last { position, of });
        }
        if let (Some(keep), Some((major, minor))) = (rule.keep_semver, version(&image.name))
            && self.is_newest(rule, keep, (major, minor))
        {
            reasons.push(Why::Semver { major, minor });
        }
        if let Some(span) = &rule.keep_within {
            let mut from = image.pushed_at;
            if let (Since::Pull, Some(pulled_at)) = (rule.since, image.pulled_at) {
                from = from.max(pulled_at);
            }
            let until = from + i64::try_from(span.duration().as_micros()).unwrap();
            if until > now {
                let (until, since) = (Time(until), rule.since);
                reasons.push(Why::Within { until, since });
            }
        }
        reasons
    }

    pub(super) fn verdict(&self, image: &Image, now: i64) -> Verdict {
        if any_matches(&self.immutable, &image.name) {
            return Verdict::Kept(Kept::Immutable);
        }
        if let Some(lifetime) = self.lifetime {
            let end = image.pushed_at.max(image.renewed_at.unwrap_or(i64::MIN)) + lifetime;
            if end <= now {
                return Verdict::Goes(Goes::Expired { at: Time(end) });
            }
        }
        if self.policies.iter().all(|policy| policy.rules.is_empty()) {
            return Verdict::Kept(Kept::NoRules);
        }
        let mut found = Vec::new();
        for policy in &self.policies {
            for (rule, content) in policy.rules.iter().enumerate() {
                for why in self.reasons(content, image, now) {
                    let end = if let Why::Within { until, .. } = why {
                        until.0
                    } else {
                        i64::MAX
                    };
                    let policy = Arc::from(policy.name.as_str());
                    found.push((end, Kept::Rule { policy, rule, why }));
                }
            }
        }
        // A stable sort: of those that keep it equally long, the first stays first.
        found.sort_by_key(|(end, _)| Reverse(*end));
        match found.into_iter().next() {
            Some((_, kept)) => Verdict::Kept(kept),
            None => Verdict::Goes(Goes::NoRuleKeeps),
        }
    }
}
