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

fn info(id: &str, used: bool) -> TokenInfo {
    TokenInfo {
        id: id.to_owned(),
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

fn predecessor(id: &str, replaced: i64) -> Predecessor {
    Predecessor {
        id: id.to_owned(),
        replaced: at(replaced),
    }
}

fn issue(previous: &[Predecessor], revoke: &[&str]) -> Step {
    Step::Issue {
        previous: previous.to_vec(),
        revoke: revoke.iter().map(|id| (*id).to_owned()).collect(),
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
    let retire = Step::Retire(vec!["previous0000".to_owned()]);
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
        Step::Retire(vec!["previous0000".to_owned()])
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
    let retire = |ids: &[&str]| Step::Retire(ids.iter().map(|id| (*id).to_owned()).collect());
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
    let ids = list.iter().map(|predecessor| predecessor.id.as_str());
    let tokens = ids
        .chain([token.id().as_str()])
        .map(|id| info(id, false))
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
    let named = BTreeSet::from(["named0000000".to_owned()]);
    let found = orphans(&tokens, "uid", &named, at(1000), Duration::from_secs(120));
    assert_eq!(found, ["orphan000000"]);
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
