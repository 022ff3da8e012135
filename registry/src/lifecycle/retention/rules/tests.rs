mod model;
mod properties;

use std::cmp::Reverse;

use berth_crds::{Rule, Span, Untagged};

use super::*;

fn tag(name: &str, pushed_at: i64) -> Tag<'_> {
    Tag {
        name,
        pushed_at: Time(pushed_at),
        renewed_at: None,
        pulled_at: None,
    }
}

fn span(text: &str) -> Option<Span> {
    Some(text.parse().unwrap())
}

fn policy(rules: Vec<Rule>) -> (Arc<str>, Arc<RetentionPolicyConfig>) {
    let config = RetentionPolicyConfig {
        rules,
        ..RetentionPolicyConfig::default()
    };
    (Arc::from("ci"), Arc::new(config))
}

fn plan(rules: Vec<Rule>) -> Plan {
    Plan::new(&[policy(rules)], Vec::new(), None).unwrap()
}

const SECOND: i64 = 1_000_000;

/// All verdicts as of a time, in the order of the walk, and the deadline.
fn walk<'a>(plan: &Plan, now: i64, tags: &[Tag<'a>]) -> (Vec<(&'a str, Verdict)>, Option<Time>) {
    let mut tags = tags.to_vec();
    let mut versions = plan.versions();
    tags.iter().for_each(|tag| versions.see(tag.name));
    tags.sort_by_key(|tag| (Reverse(tag.pushed_at), tag.name));
    let mut walk = plan.walk(Time(now), versions);
    let verdicts = tags.iter().map(|tag| (tag.name, walk.judge(tag))).collect();
    (verdicts, walk.next_deadline())
}

fn kept<'a>(plan: &Plan, now: i64, tags: &[Tag<'a>]) -> Vec<&'a str> {
    let (verdicts, _) = walk(plan, now, tags);
    let kept = verdicts
        .iter()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Kept(_)));
    kept.map(|(name, _)| *name).collect()
}

#[test]
fn a_repository_without_rules_keeps_everything() {
    let plan = plan(Vec::new());
    assert!(plan.keeps_everything());
    let (verdicts, deadline) = walk(&plan, i64::MAX, &[tag("a", 0)]);
    assert_eq!(verdicts, [("a", Verdict::Kept(Kept::NoRules))]);
    assert_eq!(deadline, None);
}

#[test]
fn a_rule_without_a_reason_keeps_what_it_covers() {
    let plan = plan(vec![Rule {
        tags: vec!["v*".to_owned(), "main".to_owned()],
        not: vec!["*-rc*".to_owned()],
        ..Rule::default()
    }]);
    let tags = ["v1", "v1-rc1", "main", "x"].map(|name| tag(name, 0));
    assert_eq!(kept(&plan, i64::MAX, &tags), ["main", "v1"]);
}

#[test]
fn a_tag_goes_exactly_when_its_span_is_over() {
    let plan = plan(vec![Rule {
        keep_within: span("10s"),
        ..Rule::default()
    }]);
    let tags = [tag("a", 0)];
    let (verdicts, deadline) = walk(&plan, 10 * SECOND - 1, &tags);
    assert!(matches!(verdicts[..], [(_, Verdict::Kept(_))]));
    assert_eq!(deadline, Some(Time(10 * SECOND)));
    let (verdicts, deadline) = walk(&plan, 10 * SECOND, &tags);
    assert_eq!(verdicts, [("a", Verdict::Goes(Goes::NoRuleKeeps))]);
    assert_eq!(deadline, None);
}

#[test]
fn a_pull_counts_only_for_a_rule_that_says_so() {
    let pulled = Tag {
        pulled_at: Some(Time(5 * SECOND)),
        ..tag("a", 0)
    };
    for (since, kept_at) in [(Since::Push, false), (Since::Pull, true)] {
        let plan = plan(vec![Rule {
            keep_within: span("10s"),
            since,
            ..Rule::default()
        }]);
        assert_eq!(kept(&plan, 12 * SECOND, &[pulled]).len() == 1, kept_at);
    }
}

#[test]
fn the_newest_are_counted_per_rule_with_ties_by_name() {
    let plan = plan(vec![
        Rule {
            tags: vec!["a*".to_owned()],
            keep_last: Some(2),
            ..Rule::default()
        },
        Rule {
            keep_last: Some(1),
            ..Rule::default()
        },
    ]);
    let tags = [tag("a3", 1), tag("a1", 1), tag("a2", 1), tag("b", 7), tag("c", 6)];
    assert_eq!(kept(&plan, i64::MAX, &tags), ["b", "a1", "a2"]);
}

#[test]
fn tags_that_stay_for_another_reason_are_counted_too() {
    let keep_last = Rule {
        keep_last: Some(1),
        ..Rule::default()
    };
    let immutable = vec!["v*".parse().unwrap()];
    let plan = Plan::new(&[policy(vec![keep_last])], immutable, None).unwrap();
    assert_eq!(kept(&plan, 9, &[tag("v1", 2), tag("a", 1)]), ["v1"]);
}

#[test]
fn an_ephemeral_tag_expires_whatever_the_rules_say_unless_it_is_immutable() {
    let immutable = vec!["v*".parse().unwrap()];
    let lifetime = Some(Duration::from_secs(10));
    let plan = Plan::new(&[policy(vec![Rule::default()])], immutable, lifetime).unwrap();
    assert!(!plan.keeps_everything());
    let renewed = Tag {
        renewed_at: Some(Time(5 * SECOND)),
        ..tag("renewed", 0)
    };
    let (verdicts, deadline) = walk(&plan, 10 * SECOND, &[tag("old", 0), renewed, tag("v1", 0)]);
    let at = Time(10 * SECOND);
    assert_eq!(verdicts[0], ("old", Verdict::Goes(Goes::Expired { at })));
    assert!(matches!(
        verdicts[1],
        ("renewed", Verdict::Kept(Kept::Rule { .. }))
    ));
    assert_eq!(verdicts[2], ("v1", Verdict::Kept(Kept::Immutable)));
    assert_eq!(deadline, Some(Time(15 * SECOND)));
}

#[test]
fn the_rule_that_keeps_a_tag_the_longest_is_named() {
    let within = |text| Rule {
        keep_within: span(text),
        ..Rule::default()
    };
    let both = plan(vec![within("10s"), within("20s"), within("20s")]);
    let (verdicts, deadline) = walk(&both, 0, &[tag("a", 0)]);
    let text = verdicts[0].1.to_string();
    assert_eq!(
        text,
        "kept: policy ci, rules[1]: pushed recently enough to stay until 1970-01-01T00:00:20Z"
    );
    assert_eq!(deadline, Some(Time(20 * SECOND)));
    let for_ever = plan(vec![within("10s"), Rule::default()]);
    let (verdicts, deadline) = walk(&for_ever, 0, &[tag("a", 0)]);
    assert_eq!(verdicts[0].1.to_string(), "kept: policy ci, rules[1]: it matches");
    assert_eq!(deadline, None);
}

#[test]
fn verdicts_are_told_to_people() {
    let (major, minor) = (1, 2);
    let policy = Arc::from("ci");
    let why = Why::Semver { major, minor };
    let (position, of) = (3, 20);
    for (verdict, text) in [
        (Verdict::Kept(Kept::Immutable), "kept: the tag is immutable"),
        (
            Verdict::Kept(Kept::NoRules),
            "kept: no policy has a rule for the repository",
        ),
        (
            Verdict::Kept(Kept::Rule { policy, rule: 0, why }),
            "kept: policy ci, rules[0]: 1.2 is among the newest versions",
        ),
        (Verdict::Goes(Goes::NoRuleKeeps), "goes: no rule keeps it"),
        (
            Verdict::Goes(Goes::Expired { at: Time(0) }),
            "goes: its lifetime in this ephemeral repository ended at 1970-01-01T00:00:00Z",
        ),
    ] {
        assert_eq!(verdict.to_string(), text);
    }
    let last = Why::Last { position, of };
    assert_eq!(last.to_string(), "number 3 of the newest 20 by push");
}

#[test]
fn of_several_policies_the_longest_windows_hold() {
    let with = |window: Option<&str>, after: Option<&str>| {
        let config = RetentionPolicyConfig {
            restore_window: window.and_then(span),
            untagged: after.map(|text| Untagged {
                delete_after: text.parse().unwrap(),
            }),
            ..RetentionPolicyConfig::default()
        };
        (Arc::from("p"), Arc::new(config))
    };
    let policies = [
        with(Some("1h"), None),
        with(Some("3h"), Some("2h")),
        with(None, Some("1h")),
    ];
    let plan = Plan::new(&policies, Vec::new(), None).unwrap();
    assert_eq!(plan.restore_window(), Some(Duration::from_secs(3 * 3600)));
    assert_eq!(plan.untagged_after(), Some(Duration::from_secs(2 * 3600)));
    let none = Plan::new(&policies[..1], Vec::new(), None).unwrap();
    assert_eq!(none.untagged_after(), None);
}

#[test]
fn a_glob_that_is_none_is_told_with_its_policy_and_rule() {
    let rule = Rule {
        not: vec!["a/b".to_owned()],
        ..Rule::default()
    };
    let error = Plan::new(&[policy(vec![Rule::default(), rule])], Vec::new(), None).unwrap_err();
    assert!(error.starts_with("policy ci, rules[1].not: "), "{error}");
}

#[test]
fn memory_for_versions_is_bounded_by_the_rules_not_by_the_tags() {
    let keep = |major, minor| Rule {
        keep_semver: Some(KeepSemver { major, minor }),
        ..Rule::default()
    };
    let plan = plan(vec![keep(2, Some(3)), Rule::default(), keep(4, None)]);
    assert!(plan.needs_versions());
    let mut versions = plan.versions();
    for at in 0..50_000_u32 {
        versions.see(&format!("v{}.{}.{at}", at * 31 % 1000, at * 17 % 999));
        let held: usize = versions.newest.iter().flatten().map(Newest::held).sum();
        assert!(held <= 2 * (1 + 3) + 4);
    }
}
