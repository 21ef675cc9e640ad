//! Revoked devices.
