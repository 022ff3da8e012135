//! Retention: which tags of a repository stay, by what rules, and when that is looked at.
//!
//! `rules` decides and `schedule` tells the times; both are pure and take the time from their caller. `version`
//! reads tags as semantic versions. A tag goes only if some policy covers its repository and no rule keeps it, or if
//! the repository is ephemeral and the tag's lifetime is over; an immutable tag never goes.

pub mod explain;
pub mod rules;
pub mod run;
pub mod schedule;
pub mod version;
pub mod walk;
