//! zixt-hsm-protocol
