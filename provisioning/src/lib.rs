//! zixt-provisioning
