//! The appliance's server: `zixtd`, and `zixt-admin` for whoever administers it.
//!
//! Reading order is the path of a message: [`http`] parses and renders, [`app`] decides, [`sequencer`] orders, has
//! consensus certify and commits, [`push`] tells the recipients. `http` never sees the store, and no private key is
//! ever in this process: the custody daemon signs.

pub mod access;
pub mod app;
pub mod audit;
pub mod config;
pub mod custody;
pub mod daemon;
mod decisions;
mod directories;
pub mod fsck;
pub mod health;
pub mod http;
pub mod logging;
mod names;
mod problem;
mod push;
mod room;
mod sequencer;
#[cfg(test)]
mod testing;
pub mod view;
pub mod web;
