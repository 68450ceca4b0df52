//! nineteen-gateway
