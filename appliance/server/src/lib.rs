//! zixt-server
