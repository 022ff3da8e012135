//! Custom resources on a real API server, and what the operator makes of them.

mod credentials;
mod declared;
mod definitions;
mod leaders;
mod routes;
mod tenants;
