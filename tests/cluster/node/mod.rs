//! The chart on a real node: pods of the cluster pull from what Helm has installed in it.

mod pulls;
