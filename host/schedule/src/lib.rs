//! nineteen-schedule
