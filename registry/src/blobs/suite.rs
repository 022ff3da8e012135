//! The store's behaviour.
