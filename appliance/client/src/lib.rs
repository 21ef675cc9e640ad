//! The client as a library: everything that a face (command line, terminal, later a web page) needs.
//!
//! [`Client`] is the whole of it. Reading order of the rest: [`connection`] reaches the appliance, [`trust`] believes
//! nothing that it says, the engine moves conversations and the outbox, [`store`] keeps it all.

mod access;
mod client;
pub mod connection;
mod engine;
mod enrol;
mod error;
mod evidence;
mod live;
mod model;
mod records;
mod shared;
pub mod store;
pub mod trust;
mod views;

pub use access::Deed;
pub use client::Client;
pub use error::{Advice, ClientError};
pub use model::{
    Alarm, ClientEvent, ContactView, DeviceView, KeyChangeView, Mark, MessageKind, MessageView, Profile,
    SyncReport, ThreadSummary,
};
pub use zixt_api::Invitation;
pub use zixt_crypto::password::Params as PassphraseCost;
