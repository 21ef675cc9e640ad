//! zixt-hsm
