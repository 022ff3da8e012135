//! Custom resources on a real API server, and what the operator makes of them.

mod caches;
mod chaos;
mod credentials;
mod declared;
mod definitions;
mod edge;
mod forged;
mod health;
mod helm;
mod keys;
mod leaders;
mod lifecycle;
mod mirrors;
mod node;
mod rights;
mod routes;
mod tenants;
mod unreadable;
mod watches;
mod webhooks;
