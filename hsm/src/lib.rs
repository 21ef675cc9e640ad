//! Custody of the appliance's private keys: `zixt-hsmd`, the daemon, and `zixt-hsm`, its admin tool.
//!
//! The modules are named after the path of a request: [`socket`] reads it, [`caller`] says who asks, [`policy`] whether
//! they may, [`service`] what the state allows, [`backend`] holds the key, [`protector`] wraps the [`root`] that it is
//! sealed by, [`vote_guard`] prevents a second vote, and [`state`] is what stays.

pub mod backend;
pub mod caller;
pub mod config;
pub mod daemon;
pub mod harden;
pub mod lab;
pub mod logging;
pub mod policy;
pub mod protector;
pub mod root;
pub mod sandbox;
pub mod service;
pub mod socket;
pub mod state;
pub mod vote_guard;
