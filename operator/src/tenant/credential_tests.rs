use berth_crds::Action;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use super::super::secret::{self, Written};
use super::*;

const HOUR: i64 = 3600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn credential() -> Credential {
    Credential {
        purpose: Purpose::Pull,
        name: "pull-apps".to_owned(),
        namespace: "apps".to_owned(),
        secret: "berth-acme".to_owned(),
        grants: vec![Grant {
            repositories: vec!["**".to_owned()],
            actions: vec![Action::Pull],
        }],
        expires_after: None,
        rotate_every: Some("24h".parse().unwrap()),
        hosts: vec!["acme.registry.test".to_owned()],
    }
}

fn id(text: &str) -> TokenId {
    text.parse().unwrap()
}

fn info(text: &str, used: bool) -> TokenInfo {
    TokenInfo {
        id: id(text),
        description: "Secret apps/berth-acme".to_owned(),
        grants: json!([{ "repositories": ["**"], "actions": ["pull"] }]),
        created_at: at(0).to_string(),
        created_by: "uid".to_owned(),
        expires_at: None,
        last_used_at: used.then(|| at(700).to_string()),
    }
}

/// A Secret that was written at second 0.
fn observed(wanted: &Credential, token: &Token, previous: &[Predecessor]) -> Contents {
    let owner = OwnerReference::default();
    let written = Written {
        tenant: "acme",
        owner: &owner,
        previous,
        issued: at(0),
        rotation_requested: false,
        accounts: &[],
        replaces: None,
    };
    secret::read(&secret::write(wanted, token, written))
}

fn terms(now: i64) -> Terms {
    Terms {
        now: at(now),
        grace: Duration::from_secs(24 * 3600),
        revoke_before: None,
    }
}

fn predecessor(text: &str, replaced: i64) -> Predecessor {
    Predecessor {
        id: id(text),
        replaced: at(replaced),
    }
}

fn ids(texts: &[&str]) -> Vec<TokenId> {
    texts.iter().copied().map(id).collect()
}

fn issue(previous: &[Predecessor], revoke: &[&str]) -> Step {
    Step::Issue {
        previous: previous.to_vec(),
        revoke: ids(revoke),
    }
}

#[test]
fn a_secret_that_is_absent_is_made_and_one_of_others_is_left_alone() {
    assert_eq!(
        step(&credential(), &Observed::Absent, &[], terms(0)),
        issue(&[], &[])
    );
    assert_eq!(
        step(&credential(), &Observed::Foreign, &[], terms(0)),
        Step::Conflict
    );
}

#[test]
fn a_token_that_the_registry_knows_is_kept_until_its_time() {
    let (wanted, token) = (credential(), Token::generate());
    let id = token.id().as_str();
    let ours = Observed::Ours(observed(&wanted, &token, &[]));
    let tokens = [info(id, false)];
    assert_eq!(step(&wanted, &ours, &tokens, terms(23 * HOUR)), Step::Keep);
    assert_eq!(
        step(&wanted, &ours, &tokens, terms(24 * HOUR)),
        issue(&[predecessor(id, 24 * HOUR)], &[])
    );
    assert_eq!(
        step(&wanted, &ours, &[], terms(0)),
        issue(&[], &[]),
        "unknown to the registry"
    );
}

#[test]
fn the_predecessor_ends_once_the_successor_was_used_or_after_the_grace() {
    let (wanted, token) = (
        Credential {
            rotate_every: None,
            ..credential()
        },
        Token::generate(),
    );
    let id = token.id().as_str();
    let ours = Observed::Ours(observed(&wanted, &token, &[predecessor("previous0000", 0)]));
    let (unused, used) = (
        [info(id, false), info("previous0000", true)],
        [info(id, true), info("previous0000", true)],
    );
    let retire = Step::Retire(ids(&["previous0000"]));
    assert_eq!(
        step(&wanted, &ours, &used, terms(599)),
        Step::Keep,
        "pulls under way"
    );
    assert_eq!(step(&wanted, &ours, &used, terms(600)), retire);
    assert_eq!(step(&wanted, &ours, &unused, terms(23 * HOUR)), Step::Keep);
    assert_eq!(step(&wanted, &ours, &unused, terms(24 * HOUR)), retire);
    assert_eq!(
        step(&wanted, &ours, &[info(id, true)], terms(24 * HOUR)),
        Step::Keep,
        "it is gone"
    );
}

#[test]
fn a_revocation_ends_both_tokens_at_once() {
    let (wanted, token) = (credential(), Token::generate());
    let id = token.id().as_str();
    let mut contents = observed(&wanted, &token, &[predecessor("previous0000", 0)]);
    let tokens = [info(id, true), info("previous0000", true)];
    let all = issue(&[], &[id, "previous0000"]);
    let by_tenant = Terms {
        revoke_before: Some(at(1)),
        ..terms(2)
    };
    assert_eq!(
        step(&wanted, &Observed::Ours(contents.clone()), &tokens, by_tenant),
        all
    );
    let earlier = Terms {
        revoke_before: Some(at(-1)),
        ..terms(2)
    };
    assert_eq!(
        step(&wanted, &Observed::Ours(contents.clone()), &tokens, earlier),
        Step::Keep
    );
    contents.revoke_requested = true;
    assert_eq!(step(&wanted, &Observed::Ours(contents), &tokens, terms(2)), all);
}

#[test]
fn a_list_of_predecessors_is_revoked_as_a_whole() {
    let (wanted, token) = (credential(), Token::generate());
    let id = token.id().as_str();
    let mut contents = observed(
        &wanted,
        &token,
        &[predecessor("previous0001", 0), predecessor("previous0000", -2)],
    );
    contents.revoke_requested = true;
    let tokens = ["previous0000", "previous0001", id].map(|id| info(id, true));
    let all = issue(&[], &[id, "previous0001", "previous0000"]);
    assert_eq!(
        step(&wanted, &Observed::Ours(contents.clone()), &tokens, terms(2)),
        all
    );
    contents.token = None;
    assert_eq!(step(&wanted, &Observed::Ours(contents), &tokens, terms(2)), all);
}

#[test]
fn a_predecessor_that_was_issued_before_ends_although_its_successor_was_issued_after() {
    let (wanted, token) = (credential(), Token::generate());
    let ours = Observed::Ours(observed(
        &wanted,
        &token,
        &[predecessor("previous0001", 0), predecessor("previous0000", -2)],
    ));
    let made = |id, second| TokenInfo {
        created_at: at(second).to_string(),
        ..info(id, true)
    };
    let tokens = [
        info(token.id().as_str(), true),
        made("previous0001", -2),
        made("previous0000", -60),
    ];
    let revoking = Terms {
        revoke_before: Some(at(-2)),
        ..terms(1)
    };
    assert_eq!(
        step(&wanted, &ours, &tokens, revoking),
        Step::Retire(ids(&["previous0000"]))
    );
}

#[test]
fn rotations_in_a_row_end_no_token_that_a_pull_may_still_have() {
    let (wanted, token) = (credential(), Token::generate());
    let id = token.id().as_str();
    let mut contents = observed(
        &wanted,
        &token,
        &[predecessor("previous0001", 0), predecessor("previous0000", -2)],
    );
    contents.rotation_requested = true;
    let tokens = ["previous0000", "previous0001", id].map(|id| info(id, true));
    let ours = Observed::Ours(contents);
    let listed = |now| {
        [
            predecessor(id, now),
            predecessor("previous0001", 0),
            predecessor("previous0000", -2),
        ]
    };
    assert_eq!(step(&wanted, &ours, &tokens, terms(2)), issue(&listed(2), &[]));
    assert_eq!(
        step(&wanted, &ours, &tokens, terms(598)),
        issue(&listed(598)[..2], &["previous0000"]),
        "each has a time of its own"
    );
    assert_eq!(
        step(&wanted, &ours, &tokens[1..], terms(2)),
        issue(&listed(2)[..2], &[]),
        "one that is gone is listed no more"
    );
}

#[test]
fn a_predecessor_ends_once_any_token_after_it_was_used() {
    let wanted = Credential {
        rotate_every: None,
        ..credential()
    };
    let token = Token::generate();
    let ours = Observed::Ours(observed(
        &wanted,
        &token,
        &[predecessor("previous0001", 0), predecessor("previous0000", -60)],
    ));
    let tokens =
        |used: &str| [token.id().as_str(), "previous0001", "previous0000"].map(|id| info(id, id == used));
    let retire = |texts: &[&str]| Step::Retire(ids(texts));
    let used = |used, now| step(&wanted, &ours, &tokens(used), terms(now));
    assert_eq!(used("previous0000", 600), Step::Keep, "no successor was used");
    assert_eq!(used("previous0001", 600), retire(&["previous0000"]));
    assert_eq!(used(token.id().as_str(), 540), retire(&["previous0000"]));
    assert_eq!(
        used(token.id().as_str(), 600),
        retire(&["previous0001", "previous0000"])
    );
    assert_eq!(used("", 24 * HOUR - 60), retire(&["previous0000"]), "the grace");
}

/// Predecessors of which one was replaced every so many seconds until second 0, and what the registry knows.
fn many(token: &Token, count: usize, every: i64) -> (Vec<Predecessor>, Vec<TokenInfo>) {
    let seconds = (0..).map(|number: i64| -number * every);
    let list: Vec<Predecessor> = (0..count)
        .zip(seconds)
        .map(|(number, second)| predecessor(&format!("previous{number:04}"), second))
        .collect();
    let texts = list.iter().map(|predecessor| predecessor.id.as_str());
    let tokens = texts
        .chain([token.id().as_str()])
        .map(|text| info(text, false))
        .collect();
    (list, tokens)
}

#[test]
fn few_predecessors_wait_for_a_use_beyond_the_overlap() {
    let (wanted, token) = (credential(), Token::generate());
    let (list, tokens) = many(&token, 30, 60);
    let mut contents = observed(&wanted, &token, &list);
    contents.rotation_requested = true;
    let Step::Issue { previous, revoke } = step(&wanted, &Observed::Ours(contents), &tokens, terms(60))
    else {
        panic!("a rotation");
    };
    assert_eq!(previous.len(), KEPT);
    assert_eq!(previous[0], predecessor(token.id().as_str(), 60));
    assert_eq!(previous[1..], list[..KEPT - 1]);
    assert_eq!(revoke.len(), 31 - KEPT);
}

#[test]
fn a_request_beyond_the_bound_waits_and_nothing_else_does() {
    let (wanted, token) = (credential(), Token::generate());
    let (list, tokens) = many(&token, MOST, 2);
    let mut contents = observed(&wanted, &token, &list);
    contents.rotation_requested = true;
    let oldest = list[MOST - 1].replaced.as_second();
    let ours = Observed::Ours(contents.clone());
    assert_eq!(step(&wanted, &ours, &tokens, terms(1)), Step::Keep);
    let wait = Duration::from_secs(u64::try_from(oldest + 600 - 1).unwrap());
    assert_eq!(next_look(&wanted, &contents, &tokens, terms(1)), Some(wait));
    let Step::Issue { previous, revoke } = step(&wanted, &ours, &tokens, terms(oldest + 600)) else {
        panic!("a rotation");
    };
    assert_eq!((previous.len(), revoke), (MOST, vec![list[MOST - 1].id.clone()]));
    let moved = Credential {
        hosts: vec!["else".to_owned()],
        ..wanted.clone()
    };
    assert_eq!(step(&moved, &ours, &tokens, terms(1)), Step::Rewrite);
    let regular = Credential {
        rotate_every: Some("1m".parse().unwrap()),
        ..wanted
    };
    let Step::Issue { previous, revoke } = step(&regular, &ours, &tokens, terms(60)) else {
        panic!("a rotation");
    };
    assert_eq!((previous.len(), revoke.len()), (MOST + 1, 0));
}

#[test]
fn whatever_the_annotation_lists_the_present_token_is_kept() {
    let (wanted, token) = (credential(), Token::generate());
    let id = token.id().as_str();
    let mut contents = observed(
        &wanted,
        &token,
        &[predecessor(id, -2 * 24 * HOUR), predecessor("gone00000000", 0)],
    );
    let tokens = [info(id, true)];
    let ours = Observed::Ours(contents.clone());
    assert_eq!(step(&wanted, &ours, &tokens, terms(HOUR)), Step::Keep);
    contents.rotation_requested = true;
    assert_eq!(
        step(&wanted, &Observed::Ours(contents), &tokens, terms(HOUR)),
        issue(&[predecessor(id, HOUR)], &[])
    );
}

#[test]
fn a_change_of_grants_is_one_of_the_predecessors_too_as_long_as_they_live() {
    let (wanted, token) = (credential(), Token::generate());
    let (old, older, gone) = ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc");
    let previous = [predecessor(old, 0), predecessor(older, 0), predecessor(gone, 0)];
    let ours = Observed::Ours(observed(&wanted, &token, &previous));
    let wider = |text: &str| TokenInfo {
        grants: json!([{ "repositories": ["**"], "actions": ["pull", "push"] }]),
        ..info(text, false)
    };
    let present = info(token.id().as_str(), false);
    let tokens = [present.clone(), wider(old), wider(older)];
    let narrowed = Step::Regrant(ids(&[old, older]));
    assert_eq!(step(&wanted, &ours, &tokens, terms(HOUR)), narrowed);
    let tokens = [present.clone(), info(old, false), wider(older)];
    assert_eq!(
        step(&wanted, &ours, &tokens, terms(HOUR)),
        Step::Regrant(ids(&[older]))
    );
    let tokens = [present, info(old, false)];
    assert_eq!(step(&wanted, &ours, &tokens, terms(HOUR)), Step::Keep);
}

#[test]
fn a_change_of_grants_keeps_the_token_and_a_change_of_hosts_the_token_too() {
    let (wanted, token) = (credential(), Token::generate());
    let ours = Observed::Ours(observed(&wanted, &token, &[]));
    let tokens = [info(token.id().as_str(), false)];
    let mut more = wanted.clone();
    more.grants[0].actions.push(Action::Push);
    assert_eq!(step(&more, &ours, &tokens, terms(1)), Step::Record);
    let ends = Credential {
        expires_after: Some("48h".parse().unwrap()),
        ..wanted.clone()
    };
    assert_eq!(step(&ends, &ours, &tokens, terms(1)), Step::Record);
    let recorded = |second| {
        [TokenInfo {
            expires_at: Some(at(second).to_string()),
            ..info(token.id().as_str(), false)
        }]
    };
    for second in [48 * HOUR - 50, 48 * HOUR + 50] {
        assert_eq!(
            step(&ends, &ours, &recorded(second), terms(1)),
            Step::Keep,
            "the clocks differ"
        );
    }
    assert_eq!(step(&ends, &ours, &recorded(47 * HOUR), terms(1)), Step::Record);
    let hosts = Credential {
        hosts: vec!["else".to_owned()],
        ..wanted
    };
    assert_eq!(step(&hosts, &ours, &tokens, terms(1)), Step::Rewrite);
}

#[test]
fn a_token_is_replaced_before_it_ends() {
    let wanted = Credential {
        expires_after: Some("10h".parse().unwrap()),
        rotate_every: None,
        ..credential()
    };
    let token = Token::generate();
    let ours = Observed::Ours(observed(&wanted, &token, &[]));
    let tokens = [TokenInfo {
        expires_at: Some(at(10 * HOUR).to_string()),
        ..info(token.id().as_str(), true)
    }];
    assert_eq!(step(&wanted, &ours, &tokens, terms(8 * HOUR)), Step::Keep);
    assert_eq!(
        step(&wanted, &ours, &tokens, terms(9 * HOUR)),
        issue(&[predecessor(token.id().as_str(), 9 * HOUR)], &[])
    );
}

#[test]
fn only_old_tokens_of_the_same_maker_that_nobody_names_are_orphans() {
    let tokens = [
        info("named0000000", false),
        info("orphan000000", false),
        TokenInfo {
            created_by: "admin".to_owned(),
            ..info("manual000000", false)
        },
        TokenInfo {
            created_at: at(950).to_string(),
            ..info("young0000000", false)
        },
    ];
    let named = BTreeSet::from([("Secret apps/berth-acme".to_owned(), id("named0000000"))]);
    let found = orphans(&tokens, "uid", &named, at(1000), Duration::from_secs(120));
    assert_eq!(found, [&id("orphan000000")]);
    let elsewhere = BTreeSet::from([("Secret other/berth-acme".to_owned(), id("named0000000"))]);
    let found = orphans(&tokens, "uid", &elsewhere, at(1000), Duration::from_secs(120));
    assert_eq!(
        found,
        [&id("named0000000"), &id("orphan000000")],
        "another Secret cannot keep it alive"
    );
}

#[test]
fn the_next_look_is_when_the_next_step_is_due() {
    let (wanted, token) = (credential(), Token::generate());
    let id = token.id().as_str();
    let tokens = [info(id, false), info("previous0000", false)];
    let look = |contents: &Contents, now| next_look(&wanted, contents, &tokens, terms(now));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let plain = observed(&wanted, &token, &[]);
    assert_eq!(look(&plain, HOUR), seconds(23 * 3600));
    let overlapping = observed(&wanted, &token, &[predecessor("previous0000", 0)]);
    assert_eq!(look(&overlapping, 100), seconds(500));
    assert_eq!(look(&overlapping, 700), seconds(60));
    let over = [info(id, true), info("previous0000", false)];
    assert_eq!(next_look(&wanted, &overlapping, &over, terms(700)), seconds(1));
    assert_eq!(
        next_look(&wanted, &overlapping, &over[..1], terms(HOUR)),
        seconds(23 * 3600),
        "it is gone"
    );
}

#[test]
fn a_token_is_due_for_renewal_when_it_is_to_rotate_or_in_its_last_tenth() {
    let of = |rotate: Option<&str>, expires: Option<&str>| {
        let span = |text: &str| text.parse().unwrap();
        let wanted = Credential {
            rotate_every: rotate.map(span),
            expires_after: expires.map(span),
            ..credential()
        };
        renewal(&wanted, at(1000)).map(Timestamp::as_second)
    };
    assert_eq!(of(Some("24h"), None), Some(1000 + 24 * HOUR));
    assert_eq!(of(None, Some("10h")), Some(1000 + 9 * HOUR));
    assert_eq!(of(Some("24h"), Some("10h")), Some(1000 + 9 * HOUR));
    assert_eq!(of(Some("1h"), Some("10h")), Some(1000 + HOUR));
    assert_eq!(of(None, None), None);
}

#[test]
fn what_a_secret_says_of_its_age_defeats_neither_rotation_nor_expiry_nor_revocation() {
    let token = Token::generate();
    let present = token.id().as_str();
    let forged = |wanted: &Credential| {
        let owner = OwnerReference::default();
        let written = Written {
            tenant: "acme",
            owner: &owner,
            previous: &[predecessor("previous0000", 1_000_000 * HOUR)],
            issued: at(1_000_000 * HOUR),
            rotation_requested: false,
            accounts: &[],
            replaces: None,
        };
        secret::read(&secret::write(wanted, &token, written))
    };
    let wanted = credential();
    let ours = Observed::Ours(forged(&wanted));
    let tokens = [info(present, false)];
    assert_eq!(
        step(&wanted, &ours, &tokens, terms(24 * HOUR)),
        issue(&[predecessor(present, 24 * HOUR)], &[])
    );
    let revoking = Terms {
        revoke_before: Some(at(HOUR)),
        ..terms(2 * HOUR)
    };
    assert_eq!(step(&wanted, &ours, &tokens, revoking), issue(&[], &[present]));
    let expiring = Credential {
        rotate_every: None,
        expires_after: Some("10h".parse().unwrap()),
        ..wanted.clone()
    };
    let recorded = [TokenInfo {
        expires_at: Some(at(10 * HOUR).to_string()),
        ..info(present, false)
    }];
    let ours = Observed::Ours(forged(&expiring));
    assert_eq!(step(&expiring, &ours, &recorded, terms(HOUR)), Step::Keep);
    assert_eq!(
        step(&expiring, &ours, &recorded, terms(9 * HOUR)),
        issue(&[predecessor(present, 9 * HOUR)], &[])
    );
    let look = next_look(&expiring, &forged(&expiring), &recorded, terms(8 * HOUR));
    assert_eq!(look, Some(Duration::from_secs(3600)));
    // Nor does it keep a predecessor beyond the grace.
    let lasting = Credential {
        rotate_every: None,
        ..wanted
    };
    let ours = Observed::Ours(forged(&lasting));
    let both = [info(present, false), info("previous0000", true)];
    assert_eq!(
        step(&lasting, &ours, &both, terms(25 * HOUR)),
        Step::Retire(ids(&["previous0000"]))
    );
}

#[test]
fn a_secret_has_the_tokens_that_the_registry_s_records_give_to_it() {
    let (wanted, token, other) = (credential(), Token::generate(), Token::generate());
    let present = token.id().as_str();
    let foreign = |text: &str, creator: &str, description: &str| TokenInfo {
        created_by: creator.to_owned(),
        description: description.to_owned(),
        ..info(text, true)
    };
    let all = [
        info(present, true),
        info("previous0000", true),
        foreign("elsewhere000", "uid", "Secret other/berth-acme"),
        foreign("byhand000000", "admin", "Secret apps/berth-acme"),
        foreign(other.id().as_str(), "uid", "Secret apps/berth-ci"),
    ];
    let own = Own::of(&all, "uid");
    let own = own.of_secret("apps", "berth-acme");
    assert_eq!(own, &all[..2]);
    assert!(Own::of(&all, "uid").of_secret("apps", "none").is_empty());
    let named = ["previous0000", "elsewhere000", "byhand000000", "gone00000000"].map(|id| predecessor(id, 0));
    let mut contents = observed(&wanted, &token, &named);
    contents.revoke_requested = true;
    assert_eq!(
        step(&wanted, &Observed::Ours(contents.clone()), own, terms(2)),
        issue(&[], &[present, "previous0000"]),
        "nobody ends another's token by naming it"
    );
    contents.token = None;
    assert_eq!(
        step(&wanted, &Observed::Ours(contents), own, terms(2)),
        issue(&[], &[present, "previous0000"])
    );
    // Another Secret's token in this one is neither kept nor ended.
    let copied = Observed::Ours(observed(&wanted, &other, &[]));
    assert_eq!(step(&wanted, &copied, own, terms(2)), issue(&[], &[]));
}

#[test]
fn a_token_that_a_new_lifetime_would_have_ended_is_replaced_with_overlap() {
    let (wanted, token) = (
        Credential {
            rotate_every: None,
            ..credential()
        },
        Token::generate(),
    );
    let present = token.id().as_str();
    let ours = Observed::Ours(observed(&wanted, &token, &[]));
    let tokens = [info(present, true)];
    let ends = |life: &str| Credential {
        expires_after: Some(life.parse().unwrap()),
        ..wanted.clone()
    };
    let now = 2400 * HOUR;
    for life in ["2160h", "2500h"] {
        assert_eq!(
            step(&ends(life), &ours, &tokens, terms(now)),
            issue(&[predecessor(present, now)], &[]),
            "{life}"
        );
    }
    assert_eq!(step(&ends("4800h"), &ours, &tokens, terms(now)), Step::Record);
}

#[test]
fn a_revocation_waits_for_its_time() {
    let (wanted, token) = (
        Credential {
            rotate_every: None,
            ..credential()
        },
        Token::generate(),
    );
    let contents = observed(&wanted, &token, &[]);
    let tokens = [info(token.id().as_str(), true)];
    let at_noon = |now| Terms {
        revoke_before: Some(at(12 * HOUR)),
        ..terms(now)
    };
    let ours = Observed::Ours(contents.clone());
    assert_eq!(step(&wanted, &ours, &tokens, at_noon(11 * HOUR)), Step::Keep);
    assert_eq!(
        next_look(&wanted, &contents, &tokens, at_noon(11 * HOUR)),
        Some(Duration::from_secs(3600))
    );
    assert_eq!(
        step(&wanted, &ours, &tokens, at_noon(12 * HOUR)),
        issue(&[], &[token.id().as_str()])
    );
}
