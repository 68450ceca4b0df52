//! nineteen-sandbox
