//! zixt-consensus
