//! zixt-client
