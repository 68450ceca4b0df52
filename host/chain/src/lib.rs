//! nineteen-chain
