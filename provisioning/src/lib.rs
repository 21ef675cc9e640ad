//! Provisioning: how an appliance gets its keys and its network, and what its security officers work with.
//!
//! The network that can be made is the lab: one appliance, one enroller, three officers whose key files and passphrase
//! lie in one folder, and a genesis that says so. The first-boot ceremony of a production network does not exist yet;
//! nothing here pretends to be one. The officers' own tool, `zixt-officer`, is the same for both.

pub mod lab;
pub mod officer;
pub mod report;
