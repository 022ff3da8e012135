//! Stage `lifecycle`: what becomes of content as time passes, and whether the stores still fit together.
//!
//! What it is: servers whose content ages within seconds ([`retention`], [`collection`]), the doors to all of it ([`api`]), and
//! stores that are damaged and checked behind their backs ([`fsck`]), and a server that is killed at each step of
//! collection ([`steps`]). What it may use: the
//! harness. What must hold: what an acknowledged push stored stays until it is let go, and nothing else does.

mod api;
mod collection;
mod fsck;
mod place;
mod retention;
mod steps;
