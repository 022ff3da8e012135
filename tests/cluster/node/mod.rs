//! The chart on a real node: pods of the cluster pull from what Helm has installed in it.

mod alone;
mod apps;
mod builds;
mod caches;
mod containerd;
mod cutting;
mod edge;
mod gitops;
mod hosts;
mod images;
mod install;
mod large;
mod mirror;
mod providers;
mod pulls;
mod rotation;
