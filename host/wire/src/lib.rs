//! nineteen-wire
