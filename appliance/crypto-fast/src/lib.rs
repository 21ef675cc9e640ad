//! The backend of servers and clients, over aws-lc, and the TLS configurations.
//!
//! [`AwsLc`] does what [`zixt_crypto::Reference`] does, three to nine times faster; tests hold the two to the same
//! bytes. [`tls`] has the only TLS that the product's own links speak, [`pkix`] the one for servers that are not ours.

mod backend;
pub mod pkix;
pub mod tls;

pub use backend::AwsLc;
