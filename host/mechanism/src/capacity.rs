//! What an announced capacity is worth: the first step of a period.

/// Why an announced number is no capacity. The miner gets 0 for that task, and the fault is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CapacityFault {
    /// NaN or an infinity.
    #[error("the announced capacity is not a finite number: announce units per period")]
    NotFinite,
    /// Below zero.
    #[error("the announced capacity is negative: announce 0 for a task that is not served")]
    Negative,
}

impl CapacityFault {
    /// Stable code for logs, plans and catalogues.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotFinite => "mechanism.capacity.not-finite",
            Self::Negative => "mechanism.capacity.negative",
        }
    }
}

/// `clamp(announced, 0, cap)` in whole units per period (MECHANISM, step 1); the fraction of a unit is lost.
/// Above the cap is no fault.
///
/// # Errors
/// [`CapacityFault`]; the capacity is 0 then.
pub const fn clamp_capacity(announced: f64, cap: u64) -> Result<u64, CapacityFault> {
    if !announced.is_finite() {
        return Err(CapacityFault::NotFinite);
    }
    if announced < 0.0 {
        return Err(CapacityFault::Negative);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite and not negative; above u64::MAX the cast saturates, and the cap is below"
    )]
    let whole = announced as u64;
    Ok(if whole < cap { whole } else { cap })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_number_or_negative_is_a_fault() {
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(clamp_capacity(x, 60_000), Err(CapacityFault::NotFinite));
        }
        for x in [-1.0, -1e-300, f64::MIN] {
            assert_eq!(clamp_capacity(x, 60_000), Err(CapacityFault::Negative));
        }
    }

    #[test]
    fn a_boast_is_cut_to_the_cap_and_a_fraction_is_lost() {
        assert_eq!(clamp_capacity(1e300, 60_000), Ok(60_000));
        assert_eq!(clamp_capacity(1e300, u64::MAX), Ok(u64::MAX));
        assert_eq!(clamp_capacity(59_999.9, 60_000), Ok(59_999));
        assert_eq!(clamp_capacity(-0.0, 60_000), Ok(0));
        assert_eq!(clamp_capacity(5.0, 0), Ok(0));
    }

    proptest! {
        #[test]
        fn a_capacity_is_never_above_cap_or_announcement(x in any::<f64>(), cap in any::<u64>()) {
            if let Ok(c) = clamp_capacity(x, cap) {
                prop_assert!(c <= cap && crate::float(c) <= x);
            }
        }
    }
}
