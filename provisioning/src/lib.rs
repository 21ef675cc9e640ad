//! Provisioning: how an appliance gets its keys and its network.
//!
//! What exists is the lab: one appliance, one enroller, three officers whose keys lie in plain files, and a genesis
//! that says so. The M-of-N ceremony of a production network comes with the first-boot work; nothing here pretends to
//! be one.

pub mod lab;
pub mod report;
