//! Custom resources on a real API server, and what the operator makes of them.

mod chaos;
mod credentials;
mod declared;
mod definitions;
mod edge;
mod health;
mod helm;
mod keys;
mod leaders;
mod lifecycle;
mod node;
mod rights;
mod routes;
mod tenants;
