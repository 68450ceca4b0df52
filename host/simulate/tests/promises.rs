//! What the simulation promises, and what it has to say about the policies that ship.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use nineteen_domain::policy::Policy;
use nineteen_simulate::{Options, Report, SimulateError, What, run, strategies};

/// What play of another kind may earn above honesty: machines that are pooled wait less, whoever announces all it
/// can instead of nine tenths has a little more, and three seeds do not even out.
const MARGIN: f64 = 0.10;
const SEEDS: u32 = 3;

fn options(what: What) -> Options {
    Options {
        miners: 5,
        tasks: 2,
        days: 1.0,
        policies: vec![Policy::default_rules(), Policy::sn19_2025_01()],
        seed: 1,
        seeds: SEEDS,
        validators: 4,
        threads: 2,
        what,
        progress: None,
    }
}

fn only(names: &[&str]) -> What {
    What::Strategies { only: Some(names.iter().map(|n| (*n).to_owned()).collect()) }
}

/// The mean worth of a strategy under each of both policies.
fn worth(report: &Report, name: &str) -> [f64; 2] {
    let row = report.strategies.iter().find(|r| r.name == name).unwrap();
    [row.by_policy[0].of_honest.mean, row.by_policy[1].of_honest.mean]
}

#[test]
fn the_same_options_give_the_same_report_on_any_number_of_threads() {
    let of = |threads, seed| {
        let small = Options { days: 0.25, seeds: 1, threads, seed, ..options(What::All) };
        let mut json = serde_json::to_value(run(&small).unwrap()).unwrap();
        json.as_object_mut().unwrap().remove("timing").unwrap();
        json.to_string()
    };
    assert_eq!(of(1, 1), of(2, 1));
    assert_ne!(of(2, 1), of(2, 2));
}

#[test]
fn every_probe_that_left_is_counted_once() {
    // That each is also booked once is checked at every settlement: the run would have failed.
    for s in run(&options(What::Scale)).unwrap().scale {
        assert!(s.sent > 1_000 && s.judged > 100, "{s:?}");
        assert_eq!(s.sent, s.answered + s.rate_limited + s.failed);
        assert!(s.judged + s.unchecked <= s.answered);
        let shares: f64 = s.kinds.iter().map(|k| k.share).sum();
        assert!((shares - 1.0).abs() < 0.05, "{shares}: nobody earned anything in some period");
    }
}

#[test]
fn under_default_nothing_pays_better_than_honest_work() {
    let o = Options { policies: vec![Policy::default_rules()], ..options(only(&strategies::NAMES)) };
    let report = run(&o).unwrap();
    println!("{}", report.table());
    for row in report.strategies.iter().filter(|r| !r.reference) {
        let worth = &row.by_policy[0].of_honest;
        assert!(worth.mean <= 1.0 + MARGIN, "{} pays {} times honesty: {}", row.name, worth.mean, row.about);
    }
}

#[test]
fn under_sn19_announcing_ten_times_as_much_pays_and_under_default_it_costs() {
    let report = run(&options(only(&["over-10x", "sybils-full", "merge-2"]))).unwrap();
    let [default, sn19] = worth(&report, "over-10x");
    assert!(sn19 > 2.0 && default < 0.1, "{default} {sn19}");
    assert!(worth(&report, "merge-2")[1] > 1.5, "sharpness 4 pays for merging: {}", report.table());
}

#[test]
fn the_least_agreeing_validators_agree_better_under_default_than_under_sn19() {
    let o = Options { miners: 24, validators: 5, ..options(What::Agreement) };
    let report = run(&o).unwrap();
    println!("{}", report.table());
    let least = |policy: usize| {
        let of = &report.agreement[policy];
        assert_eq!(of.population, "honest");
        of.after.iter().find(|p| p.periods == 24).unwrap().cosine.min
    };
    assert!(least(0) > least(1), "{} {}", least(0), least(1));
}

#[test]
fn validators_come_to_agree() {
    let report = run(&Options { miners: 16, ..options(What::Agreement) }).unwrap();
    for a in report.agreement.iter().filter(|a| a.policy == "default") {
        let (first, last) = (&a.after[0], a.after.last().unwrap());
        assert!(last.cosine.median > first.cosine.median && last.cosine.median > 0.97, "{}", report.table());
    }
}

#[test]
fn the_page_stands_alone_and_says_what_it_was_made_with() {
    let o = Options { days: 0.1, seeds: 2, ..options(What::All) };
    let report = run(&o).unwrap();
    let html = report.html();
    for foreign in ["<script", "http://", "https://", "<link", "@import", "url(", "NaN"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert!(html.contains("seeds 1 to 2") && html.contains("prefers-color-scheme"));
    assert!(html.contains("<svg") && html.contains("over-10x"));
    assert!(report.table().contains("everyone-full"));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let refused = |o: &Options| run(o).unwrap_err();
    let unknown = refused(&options(only(&["be-nice"])));
    assert!(matches!(&unknown, SimulateError::Strategy { given } if given == "be-nice"));
    assert!(unknown.to_string().contains("over-10x"));
    let spoilt: [fn(&mut Options); 6] = [
        |o| o.miners = 0,
        |o| o.days = f64::NAN,
        |o| o.seeds = 0,
        |o| o.validators = 1,
        |o| o.threads = 0,
        |o| o.policies.clear(),
    ];
    for spoil in spoilt {
        let mut o = options(What::Scale);
        spoil(&mut o);
        assert_eq!(refused(&o).code(), "simulate.option");
    }
}
