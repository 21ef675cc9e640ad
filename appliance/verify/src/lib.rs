//! zixt-verify
