//! What a credential may do: globs over repositories, and actions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::glob::RepositoryGlob;
use super::name::RepositoryName;

/// Something that can be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read everything.
    Pull,
    /// Upload, tag, and see what is there.
    Push,
    /// Delete tags, manifests and blobs.
    Delete,
    /// See what is there: lists, and HEAD of manifests and blobs.
    Metadata,
}

impl Action {
    /// All, in the order in which they are written.
    pub const ALL: [Self; 4] = [Self::Pull, Self::Push, Self::Delete, Self::Metadata];

    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Metadata => "metadata",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Pull => 1,
            Self::Push => 2,
            Self::Delete => 4,
            Self::Metadata => 8,
        }
    }
}

/// A set of actions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Action>", into = "Vec<Action>")]
pub struct Actions(u8);

impl Actions {
    /// Every action.
    pub fn all() -> Self {
        Action::ALL.into_iter().collect()
    }

    /// No action.
    pub fn none() -> Self {
        Self(0)
    }

    /// Whether it is in the set.
    pub fn contains(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds one.
    pub fn insert(&mut self, action: Action) {
        self.0 |= action.bit();
    }

    /// What is in both.
    pub fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds what the actions imply: who may pull or push may see what is there.
    pub fn imply(&mut self) {
        if self.contains(Action::Pull) || self.contains(Action::Push) {
            self.insert(Action::Metadata);
        }
    }

    /// The actions in their written order.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL
            .into_iter()
            .filter(move |action| self.contains(*action))
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        let mut set = Self::none();
        actions.into_iter().for_each(|action| set.insert(action));
        set
    }
}

impl From<Vec<Action>> for Actions {
    fn from(actions: Vec<Action>) -> Self {
        actions.into_iter().collect()
    }
}

impl From<Actions> for Vec<Action> {
    fn from(actions: Actions) -> Self {
        actions.iter().collect()
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, action) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            f.write_str(action.text())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// Actions on the repositories that match a glob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Any of these.
    pub repositories: Vec<RepositoryGlob>,
    /// All of these.
    pub actions: Actions,
}

/// Everything that a credential is granted: the union of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grants(pub Vec<Grant>);

impl Grants {
    /// Everything.
    pub fn all() -> Self {
        Self(vec![Grant {
            repositories: vec![RepositoryGlob::everything()],
            actions: Actions::all(),
        }])
    }

    /// Nothing.
    pub fn none() -> &'static Self {
        static NONE: Grants = Grants(Vec::new());
        &NONE
    }

    /// What may be done with a repository, implied actions included.
    pub fn actions_on(&self, name: &RepositoryName) -> Actions {
        let covers = |grant: &&Grant| grant.repositories.iter().any(|glob| glob.matches(name.as_str()));
        let mut actions = self
            .0
            .iter()
            .filter(covers)
            .fold(Actions::none(), |sum, grant| sum.union(grant.actions));
        actions.imply();
        actions
    }

    /// Globs of the repositories that may be seen.
    pub fn visible(&self) -> impl Iterator<Item = &RepositoryGlob> {
        let sees = |grant: &&Grant| {
            let mut actions = grant.actions;
            actions.imply();
            actions.contains(Action::Metadata)
        };
        self.0.iter().filter(sees).flat_map(|grant| &grant.repositories)
    }

    /// Whether an action is granted on every repository by one glob.
    pub fn covers_all(&self, action: Action) -> bool {
        self.0.iter().any(|grant| {
            grant.actions.contains(action) && grant.repositories.iter().any(RepositoryGlob::is_everything)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grants_are_read_and_written_as_documented() {
        let text = r#"[{"repositories":["team-a/**"],"actions":["pull","push"]}]"#;
        let grants: Grants = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&grants).unwrap(), text);
        let on = |name: &str| grants.actions_on(&name.parse().unwrap()).to_string();
        assert_eq!(on("team-a/x"), "pull,push,metadata");
        assert_eq!(on("team-b/x"), "");
        assert!(serde_json::from_str::<Grants>(r#"[{"repositories":["A"],"actions":["pull"]}]"#).is_err());
        assert!(serde_json::from_str::<Grants>(r#"[{"repositories":["a"],"actions":["admin"]}]"#).is_err());
    }

    fn any_grants() -> impl Strategy<Value = Vec<(Vec<String>, Vec<Action>)>> {
        let glob = prop_oneof!["\\*\\*", "[ab]", "[ab]/\\*\\*", "\\*/[ab]", "\\*\\*/[ab]"];
        let action = prop::sample::select(&Action::ALL[..]);
        prop::collection::vec(
            (
                prop::collection::vec(glob, 1..3),
                prop::collection::vec(action, 1..4),
            ),
            0..4,
        )
    }

    proptest! {
        #[test]
        fn an_action_is_allowed_if_and_only_if_some_grant_gives_it(
            raw in any_grants(),
            name in "[ab](/[ab]){0,2}",
        ) {
            let grants = Grants(raw.iter().map(|(globs, actions)| Grant {
                repositories: globs.iter().map(|glob| glob.parse().unwrap()).collect(),
                actions: actions.iter().copied().collect(),
            }).collect());
            let name: RepositoryName = name.parse().unwrap();
            let allowed = grants.actions_on(&name);
            for action in Action::ALL {
                let given = |wanted: Action| raw.iter().any(|(globs, actions)| {
                    actions.contains(&wanted)
                        && globs.iter().any(|glob| glob.parse::<RepositoryGlob>().unwrap().matches(name.as_str()))
                });
                let expected = given(action)
                    || action == Action::Metadata && (given(Action::Pull) || given(Action::Push));
                prop_assert_eq!(allowed.contains(action), expected);
            }
            let seen = grants.visible().any(|glob| glob.matches(name.as_str()));
            prop_assert_eq!(seen, allowed.contains(Action::Metadata));
        }
    }
}
