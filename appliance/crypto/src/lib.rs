//! zixt-crypto
