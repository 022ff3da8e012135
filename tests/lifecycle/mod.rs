//! Stage `lifecycle`: what becomes of content as time passes, and whether the stores still fit together.
//!
//! What it is: servers whose content ages within seconds ([`retention`], [`collection`]), the doors to all of it ([`api`]), and
//! stores that are damaged and checked behind their backs ([`fsck`]), and servers that are killed at each step of
//! collection ([`steps`]) and at their tenant's quota ([`quota`]). What it may use: the
//! harness. What must hold: what an acknowledged push stored stays until it is let go, and nothing else does.

mod api;
mod collection;
mod fsck;
mod place;
mod quota;
mod retention;
mod steps;
