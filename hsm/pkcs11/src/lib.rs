//! zixt-hsm-pkcs11
