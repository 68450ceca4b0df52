//! `default`: the rules that keep Subnet 19's promises and close its holes (MECHANISM, `default`).
//!
//! One idea: a miner's effective volume `E = Q·π·f·P·c·L` is a function of what that miner did and of nothing
//! else. Only the last step, its share of the task, looks at the others. Each factor has a module of its own;
//! time enters all of them in one way, as an age in periods of wall-clock time.
//!
//! Not for what a period's requests say about it: that is [`period_score`](crate::period_score), and rows
//! carry it.

mod beta;
mod credit;
mod quality;
mod reliability;
mod speed;

use nineteen_domain::policy::DefaultScoring;

use crate::samples::counted;
use crate::settlement::{At, MinerTaskInput, Standing};
use crate::share::share;
use crate::{float, unit, within};

/// Standings of one task, in the order of `inputs`, all of which are of that task.
pub(crate) fn task(
    rules: &DefaultScoring,
    task_weight: f64,
    inputs: &[&MinerTaskInput],
    at: At,
) -> Vec<Standing> {
    let mut standings: Vec<Standing> =
        inputs.iter().map(|input| standing(rules, task_weight, input, at)).collect();
    share(rules.sharpness, &mut standings);
    standings
}

/// One miner's chain of numbers up to its effective volume.
fn standing(rules: &DefaultScoring, task_weight: f64, input: &MinerTaskInput, at: At) -> Standing {
    let samples = counted(&input.samples, |s| is_kept(rules, age(s.at_us, at)));
    let reliability = reliability::reliability(rules, &input.rows, input.expected_asked, at);
    let quality = quality::quality(rules, &samples, at);
    let speed = speed::speed(rules, input.speed.as_ref(), &samples);
    let credit = credit::credit(rules, input.capacity, &input.rows, at);
    let honesty = unit(input.honesty);
    let effective_volume = quality.quality
        * honesty
        * speed.factor
        * reliability.normalised_period_score
        * float(input.capacity)
        * credit.factor;
    Standing {
        miner: input.miner,
        uid: input.uid,
        task: input.task.clone(),
        task_weight,
        capacity: input.capacity,
        reliability,
        quality,
        speed,
        credit,
        honesty,
        effective_volume,
        volume_share: 0.0,
        share: 0.0,
    }
}

/// Age in periods, at least 0: what seems to come from the future (a clock was set back) is new.
fn age(of_us: u64, at: At) -> f64 {
    float(at.now_us.saturating_sub(of_us)) / float(at.period_us.max(1))
}

/// Whether something of this age is looked at.
const fn is_kept(rules: &DefaultScoring, age: f64) -> bool {
    age <= within(rules.horizon, 0.0, f64::MAX)
}

/// `0.5^(age/half_life)`, in [0, 1]. A half-life that is no number above 0 leaves only what is new.
fn aged(age: f64, half_life: f64) -> f64 {
    if age <= 0.0 {
        1.0
    } else if half_life > 0.0 {
        0.5_f64.powf(age / half_life)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At { now_us: 10_000, period_us: 100 };

    #[test]
    fn ages_are_counted_in_periods_and_the_future_is_new() {
        assert_eq!(age(10_000, AT), 0.0);
        assert_eq!(age(9_950, AT), 0.5);
        assert_eq!(age(u64::MAX, AT), 0.0);
        assert_eq!(age(0, At { period_us: 0, ..AT }), 10_000.0);
    }

    #[test]
    fn a_half_life_halves_and_a_senseless_one_forgets() {
        assert_eq!([aged(0.0, 4.0), aged(4.0, 4.0), aged(8.0, 4.0)], [1.0, 0.5, 0.25]);
        for senseless in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!([aged(0.0, senseless), aged(1e-9, senseless)], [1.0, 0.0]);
        }
        assert_eq!(aged(1e300, f64::INFINITY), 1.0);
        assert_eq!(aged(f64::MAX, f64::MIN_POSITIVE), 0.0);
    }
}
