//! The client against an appliance in memory: real MLS, real ledger, real signatures, and every lie that a test wants.

mod appliance;
mod evidence;
mod offline;
mod people;
mod talk;
mod trust;
