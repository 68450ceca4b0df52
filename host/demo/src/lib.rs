//! nineteen-demo
