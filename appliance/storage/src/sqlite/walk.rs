//! Reading everything, for fsck.
