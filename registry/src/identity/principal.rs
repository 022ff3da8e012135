//! Who asks, and what they may do.

use std::sync::Arc;

use crate::domain::RepositoryName;
use crate::domain::grant::{Action, Actions, Grants};

/// Who a request is by.
#[derive(Debug, Clone)]
pub struct Principal {
    /// As logs, the audit trail and upload sessions call them: `token:ci`, `sa:build:default`, `anonymous`.
    pub label: String,
    /// The user name that came with the credential; it decides nothing.
    pub user: String,
    /// What they may do in private repositories.
    pub rights: Rights,
    /// The credential behind, for what is issued on its strength.
    pub credential: Credential,
}

/// What somebody may do.
#[derive(Debug, Clone)]
pub enum Rights {
    /// Anything: the installation is open.
    All,
    /// Nothing of their own.
    None,
    /// What was granted.
    Granted(Arc<Grants>),
    /// What an access or confined token names, as far as it is still granted.
    Scoped {
        /// What the credential behind it is granted.
        granted: Arc<Grants>,
        /// What the token names.
        access: Arc<[Access]>,
        /// What any token of the same login can name, if that is a confined token.
        within: Option<Arc<[Access]>>,
    },
}

/// What an access or confined token names.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Access {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The repository's own name, or `catalog`.
    pub name: String,
    /// What may be done with it.
    pub actions: Vec<Action>,
}

/// What a principal was recognised by.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum Credential {
    /// Nothing.
    Anonymous,
    /// A token of this id.
    Token {
        /// Its public part.
        id: String,
    },
    /// A foreign issuer's token that matched a rule.
    Trust {
        /// The rule's id.
        rule: String,
        /// Whom the issuer names.
        subject: String,
        /// Until when, in seconds since 1970.
        until: i64,
    },
}

impl Principal {
    /// Whoever shows no credential.
    pub fn anonymous(rights: Rights) -> Self {
        Self {
            label: "anonymous".to_owned(),
            user: String::new(),
            rights,
            credential: Credential::Anonymous,
        }
    }

    /// Whether they showed a credential.
    pub fn is_known(&self) -> bool {
        self.credential != Credential::Anonymous
    }
}

impl Rights {
    /// What may be done with a private repository.
    pub fn on(&self, name: &RepositoryName) -> Actions {
        match self {
            Self::All => Actions::all(),
            Self::None => Actions::none(),
            Self::Granted(grants) => grants.actions_on(name),
            Self::Scoped { granted, access, .. } => named(access, name).intersect(granted.actions_on(name)),
        }
    }

    /// What a fresh token of the same login could do, where the present one is narrower.
    pub fn beyond(&self, name: &RepositoryName) -> Actions {
        match self {
            Self::Scoped { granted, within, .. } => {
                let granted = granted.actions_on(name);
                match within {
                    Some(within) => named(within, name).intersect(granted),
                    None => granted,
                }
            }
            Self::All | Self::None | Self::Granted(_) => self.on(name),
        }
    }

    /// What the credential behind is granted, whatever a token of it names.
    pub fn behind(&self, name: &RepositoryName) -> Actions {
        match self {
            Self::Scoped { granted, .. } => granted.actions_on(name),
            Self::All | Self::None | Self::Granted(_) => self.on(name),
        }
    }

    /// Whether a fresh token of the same login could do this with every repository, whatever its name.
    pub fn reaches_all(&self, action: Action) -> bool {
        match self {
            Self::All => true,
            Self::None | Self::Scoped { within: Some(_), .. } => false,
            Self::Granted(granted)
            | Self::Scoped {
                granted,
                within: None,
                ..
            } => granted.covers_all(action),
        }
    }

    /// What a confined token confines to.
    pub fn within(&self) -> Option<&Arc<[Access]>> {
        match self {
            Self::Scoped { within, .. } => within.as_ref(),
            Self::All | Self::None | Self::Granted(_) => None,
        }
    }

    /// Whether they are those of a token that names what it is for, and not all that was granted.
    pub fn are_scoped(&self) -> bool {
        match self {
            Self::Scoped { .. } => true,
            Self::All | Self::None | Self::Granted(_) => false,
        }
    }

    /// Whether the list of repositories may be asked for.
    pub fn catalog(&self) -> bool {
        match self {
            Self::All | Self::Granted(_) => true,
            Self::None => false,
            Self::Scoped { access, .. } => access.iter().any(|access| access.kind == "registry"),
        }
    }

    /// What was granted, for lists that are filtered by it; `None` for everything.
    pub fn grants(&self) -> Option<&Grants> {
        match self {
            Self::All => None,
            Self::None => Some(Grants::none()),
            Self::Granted(granted) | Self::Scoped { granted, .. } => Some(granted),
        }
    }
}

/// What is named for a repository.
fn named(access: &[Access], name: &RepositoryName) -> Actions {
    let named = access
        .iter()
        .filter(|access| access.kind == "repository" && access.name == name.as_str());
    let mut actions: Actions = named.flat_map(|access| access.actions.iter().copied()).collect();
    actions.imply();
    actions
}
