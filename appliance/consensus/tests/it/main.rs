//! One and several validators in one process, on simulated disks, custody daemons and networks.

mod harness;

mod crash;
mod several;
mod single;
