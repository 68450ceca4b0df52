//! nineteen-store
