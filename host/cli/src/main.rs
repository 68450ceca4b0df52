//! nineteen
fn main() {}
