//! The schedule from outside: its promises over a made-up clock, and properties over random events.

// The attribute tells clippy what these modules are.
#[cfg(test)]
mod promises;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod windows;
