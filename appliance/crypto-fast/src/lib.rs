//! zixt-crypto-fast
