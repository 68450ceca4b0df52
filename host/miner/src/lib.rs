//! nineteen-miner
