//! nineteen-mechanism
