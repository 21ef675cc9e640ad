//! Nothing that the appliance says is believed before it is checked here.

use thiserror::Error;

/// Placeholder until the checks land.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The appliance is of another network.
    #[error("the appliance is of another network")]
    OtherGenesis,
}

impl TrustError {
    /// What to do, for people.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        "Stop, and tell an administrator."
    }
}
