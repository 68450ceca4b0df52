//! nineteen-checking
