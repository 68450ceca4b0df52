//! End to end: one file per promise made in the README.
