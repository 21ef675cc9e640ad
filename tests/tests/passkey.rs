//! Passkeys in a real browser.
