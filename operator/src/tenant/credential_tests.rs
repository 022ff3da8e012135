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
fn observed(wanted: &Credential, token: &Token, previous: Option<&str>) -> Contents {
    let owner = OwnerReference::default();
    let written = Written {
        tenant: "acme",
        owner: &owner,
        previous: previous.map(str::to_owned),
        issued: at(0),
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

fn issue(previous: Option<&str>, revoke: &[&str]) -> Step {
    Step::Issue {
        previous: previous.map(str::to_owned),
        revoke: revoke.iter().map(|id| (*id).to_owned()).collect(),
    }
}

#[test]
fn a_secret_that_is_absent_is_made_and_one_of_others_is_left_alone() {
    assert_eq!(
        step(&credential(), &Observed::Absent, &[], terms(0)),
        issue(None, &[])
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
    let ours = Observed::Ours(observed(&wanted, &token, None));
    let tokens = [info(id, false)];
    assert_eq!(step(&wanted, &ours, &tokens, terms(23 * HOUR)), Step::Keep);
    assert_eq!(
        step(&wanted, &ours, &tokens, terms(24 * HOUR)),
        issue(Some(id), &[])
    );
    assert_eq!(
        step(&wanted, &ours, &[], terms(0)),
        issue(None, &[]),
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
    let ours = Observed::Ours(observed(&wanted, &token, Some("previous0000")));
    let (unused, used) = (
        [info(id, false), info("previous0000", true)],
        [info(id, true), info("previous0000", true)],
    );
    let retire = Step::Retire("previous0000".to_owned());
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
    let mut contents = observed(&wanted, &token, Some("previous0000"));
    let tokens = [info(id, true), info("previous0000", true)];
    let all = issue(None, &[id, "previous0000"]);
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
fn a_second_rotation_within_the_overlap_ends_the_token_before_the_last() {
    let (wanted, token) = (credential(), Token::generate());
    let id = token.id().as_str();
    let mut contents = observed(&wanted, &token, Some("previous0000"));
    contents.rotation_requested = true;
    let tokens = [info(id, true), info("previous0000", true)];
    assert_eq!(
        step(&wanted, &Observed::Ours(contents), &tokens, terms(2)),
        issue(Some(id), &["previous0000"])
    );
}

#[test]
fn a_change_of_grants_keeps_the_token_and_a_change_of_hosts_the_token_too() {
    let (wanted, token) = (credential(), Token::generate());
    let ours = Observed::Ours(observed(&wanted, &token, None));
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
    let ours = Observed::Ours(observed(&wanted, &token, None));
    let tokens = [TokenInfo {
        expires_at: Some(at(10 * HOUR).to_string()),
        ..info(token.id().as_str(), true)
    }];
    assert_eq!(step(&wanted, &ours, &tokens, terms(8 * HOUR)), Step::Keep);
    assert_eq!(
        step(&wanted, &ours, &tokens, terms(9 * HOUR)),
        issue(Some(token.id().as_str()), &[])
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
    let named = ["named0000000".to_owned()];
    let found = orphans(&tokens, "uid", &named, at(1000), Duration::from_secs(120));
    assert_eq!(found, ["orphan000000"]);
}

#[test]
fn the_next_look_is_when_the_next_step_is_due() {
    let (wanted, token) = (credential(), Token::generate());
    let plain = observed(&wanted, &token, None);
    assert_eq!(
        next_look(&wanted, &plain, terms(HOUR)),
        Some(Duration::from_secs(23 * 3600))
    );
    let overlapping = observed(&wanted, &token, Some("previous0000"));
    assert_eq!(
        next_look(&wanted, &overlapping, terms(100)),
        Some(Duration::from_secs(500))
    );
    assert_eq!(
        next_look(&wanted, &overlapping, terms(700)),
        Some(Duration::from_secs(60))
    );
}
