//! The operator's status as Prometheus reads it (text format 0.0.4). Names begin with `nineteen_`; what a task's name may
//! hold needs no escaping.

use std::fmt::Write as _;

use nineteen_validator::report::ValidatorStatus;

/// One page of numbers.
pub(crate) fn text(status: &ValidatorStatus) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let mut gauge = |name: &str, help: &str, values: &[(String, f64)]| {
        let _ = writeln!(out, "# HELP nineteen_{name} {help}\n# TYPE nineteen_{name} gauge");
        for (labels, value) in values {
            let _ = writeln!(out, "nineteen_{name}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let counted = |n: usize| n as f64;
    gauge(
        "weights_taken",
        "Weights that the chain took, in all that are kept.",
        &one(counted(status.weights_taken)),
    );
    if let Some(period) = status.settled {
        #[expect(clippy::cast_precision_loss, reason = "a period's number is far below 2^53")]
        gauge("settled_period", "Number of the last settled period.", &one(period.0 as f64));
    }
    if let Some(s) = &status.schedule {
        gauge("in_flight", "Requests under way.", &one(counted(s.in_flight)));
        gauge("unjudged", "Answers that wait for a judgement.", &one(counted(s.unjudged)));
    }
    let by_task = |of: &dyn Fn(&nineteen_validator::ControlScore) -> Option<f64>| -> Vec<(String, f64)> {
        let all = status.control.iter();
        all.filter_map(|(task, c)| Some((format!("{{task=\"{task}\"}}"), of(c)?))).collect()
    };
    gauge(
        "control_judged",
        "Answers of the control miner that were judged.",
        &by_task(&|c| Some(counted(c.judged))),
    );
    gauge(
        "control_violations",
        "Answers of the control miner that were called a violation: false ones.",
        &by_task(&|c| Some(counted(c.violations))),
    );
    gauge(
        "control_accused",
        "Answers at which the sequential test accused the control miner: false accusations.",
        &by_task(&|c| Some(counted(c.accused))),
    );
    gauge("control_quality", "Mean quality of the control miner.", &by_task(&|c| Some(c.quality)));
    gauge(
        "control_evidence_nats",
        "Logarithm of the evidence against the control miner.",
        &by_task(&|c| c.evidence),
    );
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nineteen_domain::{PeriodId, TaskName};
    use nineteen_validator::ControlScore;

    use super::*;

    #[test]
    fn the_live_rate_of_false_accusations_is_there() {
        let control =
            ControlScore { judged: 40, violations: 0, quality: 0.5, accused: 1, evidence: Some(-0.25) };
        let status = ValidatorStatus {
            version: "0.1.0".into(),
            schedule: None,
            settled: Some(PeriodId(7)),
            weights_taken: 3,
            control: BTreeMap::from([(TaskName::new("chat").unwrap(), control)]),
            store: serde_json::Value::Null,
        };
        let page = text(&status);
        for line in [
            "nineteen_settled_period 7",
            "nineteen_control_judged{task=\"chat\"} 40",
            "nineteen_control_accused{task=\"chat\"} 1",
            "nineteen_control_evidence_nats{task=\"chat\"} -0.25",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} in\n{page}");
        }
        let names = page.lines().filter(|l| l.starts_with("# TYPE")).count();
        assert_eq!(names, page.lines().filter(|l| l.starts_with("# HELP")).count());
    }
}
