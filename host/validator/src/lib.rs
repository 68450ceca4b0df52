//! nineteen-validator
