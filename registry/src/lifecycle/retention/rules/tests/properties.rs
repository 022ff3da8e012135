//! The walk against the model, over repositories of all kinds.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::model::{Image, Policy, Repository};
use super::*;

const GLOBS: &[&str] = &["*", "v*", "1*", "*.1", "?", "*-*", "a?", "main", "v1.?.*", "b*"];

/// Names that are nearly versions.
const NAMES: &[&str] = &[
    "main",
    "latest",
    "01.2",
    "1.2.3.4",
    "18446744073709551616",
    "v",
    "1.0.0-",
];

fn a_span() -> impl Strategy<Value = Span> {
    (1..40_u32).prop_map(|seconds| format!("{seconds}s").parse().unwrap())
}

fn globs(most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(select(GLOBS).prop_map(str::to_owned), 0..=most)
}

fn a_rule() -> impl Strategy<Value = Rule> {
    let semver =
        (1..4_u32, prop::option::of(1..4_u32)).prop_map(|(major, minor)| KeepSemver { major, minor });
    (
        globs(2),
        globs(1),
        prop::option::weighted(0.5, a_span()),
        prop::bool::ANY,
        prop::option::weighted(0.4, 1..6_u32),
        prop::option::weighted(0.3, semver),
    )
        .prop_map(|(tags, not, keep_within, pull, keep_last, keep_semver)| Rule {
            tags,
            not,
            since: if pull && keep_within.is_some() {
                Since::Pull
            } else {
                Since::Push
            },
            keep_within,
            keep_last,
            keep_semver,
        })
}

fn an_image() -> impl Strategy<Value = Image> {
    let name = prop_oneof![
        3 => "v?[0-4](\\.[0-4]){0,2}(-rc\\.[1-3])?(_b)?",
        2 => "[ab][ab0-9]?",
        1 => select(NAMES).prop_map(str::to_owned),
    ];
    let second = || (0..60_i64).prop_map(|at| at * SECOND);
    (
        name,
        second(),
        prop::option::of(second()),
        prop::option::of(second()),
    )
        .prop_map(|(name, pushed_at, renewed_at, pulled_at)| Image {
            name,
            pushed_at,
            renewed_at,
            pulled_at,
        })
}

fn a_repository() -> impl Strategy<Value = Repository> {
    let policies = prop::collection::vec(prop::collection::vec(a_rule(), 0..4), 0..4).prop_map(|policies| {
        let named = policies.into_iter().enumerate();
        named
            .map(|(at, rules)| Policy {
                name: format!("p{at}"),
                rules,
            })
            .collect()
    });
    let images = prop::collection::vec(an_image(), 0..25).prop_map(|mut images: Vec<Image>| {
        images.sort_by(|a, b| a.name.cmp(&b.name));
        images.dedup_by(|a, b| a.name == b.name);
        images
    });
    (
        policies,
        prop_oneof![3 => Just(Vec::new()), 1 => globs(1)],
        prop::option::weighted(0.3, 1..60_i64),
        images.prop_shuffle(),
    )
        .prop_map(|(policies, immutable, lifetime, images)| Repository {
            policies,
            immutable,
            lifetime: lifetime.map(|seconds| seconds * SECOND),
            images,
        })
}

fn plan_of(repository: &Repository) -> Plan {
    let policies: Vec<(Arc<str>, Arc<RetentionPolicyConfig>)> = repository
        .policies
        .iter()
        .map(|Policy { name, rules }| {
            let config = RetentionPolicyConfig {
                rules: rules.clone(),
                ..RetentionPolicyConfig::default()
            };
            (Arc::from(name.as_str()), Arc::new(config))
        })
        .collect();
    let immutable = repository.immutable.iter().map(|glob| glob.parse().unwrap());
    let lifetime = repository
        .lifetime
        .map(|lifetime| Duration::from_micros(lifetime.unsigned_abs()));
    Plan::new(&policies, immutable.collect(), lifetime).unwrap()
}

fn tags_of(repository: &Repository) -> Vec<Tag<'_>> {
    let tags = repository.images.iter().map(|image| Tag {
        name: &image.name,
        pushed_at: Time(image.pushed_at),
        renewed_at: image.renewed_at.map(Time),
        pulled_at: image.pulled_at.map(Time),
    });
    tags.collect()
}

fn a_moment() -> impl Strategy<Value = i64> {
    (0..100 * 4_i64).prop_map(|quarter| quarter * SECOND / 4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_verdict_is_the_models(repository in a_repository(), now in a_moment()) {
        let plan = plan_of(&repository);
        let (verdicts, _) = walk(&plan, now, &tags_of(&repository));
        prop_assert_eq!(verdicts.len(), repository.images.len());
        let goes = |(_, verdict): &(&str, Verdict)| matches!(verdict, Verdict::Goes(_));
        prop_assert!(!plan.keeps_everything() || !verdicts.iter().any(goes));
        for (name, verdict) in verdicts {
            let image = repository.images.iter().find(|image| image.name == name).unwrap();
            prop_assert_eq!(verdict, repository.verdict(image, now), "{} at {}", name, now);
        }
    }

    #[test]
    fn neither_the_stores_order_nor_the_policies_decides_what_stays(
        repository in a_repository(),
        now in a_moment(),
    ) {
        let here = plan_of(&repository);
        let mut tags = tags_of(&repository);
        let (verdicts, deadline) = walk(&here, now, &tags);
        tags.reverse();
        prop_assert_eq!(&walk(&here, now, &tags), &(verdicts, deadline));
        let mut other = repository.clone();
        other.policies.reverse();
        other.policies.iter_mut().for_each(|policy| policy.rules.reverse());
        let there = plan_of(&other);
        prop_assert_eq!(kept(&there, now, &tags), kept(&here, now, &tags));
        prop_assert_eq!(walk(&there, now, &tags).1, deadline);
    }

    #[test]
    fn until_the_deadline_no_kept_tag_goes_and_then_one_does(
        repository in a_repository(),
        now in a_moment(),
        thousandths in 0..1000_i64,
    ) {
        let plan = plan_of(&repository);
        let tags = tags_of(&repository);
        let here = kept(&plan, now, &tags);
        let (_, deadline) = walk(&plan, now, &tags);
        let far = 1_000_000 * SECOND;
        let last = deadline.map_or(far, |Time(at)| at - 1);
        prop_assert!(last >= now);
        let between = now + (last - now) / 1000 * thousandths;
        for later in [between, last] {
            prop_assert_eq!(&kept(&plan, later, &tags), &here, "at {}", later);
        }
        if let Some(Time(at)) = deadline {
            prop_assert!(kept(&plan, at, &tags).len() < here.len());
        }
    }

    #[test]
    fn what_went_changes_nothing_for_what_stays(repository in a_repository(), now in a_moment()) {
        let plan = plan_of(&repository);
        let here = kept(&plan, now, &tags_of(&repository));
        let left: Vec<Tag<'_>> = tags_of(&repository)
            .into_iter()
            .filter(|tag| here.contains(&tag.name))
            .collect();
        prop_assert_eq!(kept(&plan, now, &left), here);
    }
}
