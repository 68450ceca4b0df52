//! What a plugin does wrong costs that call alone: a typed error that names task, call and budget, and the
//! host keeps serving. `corpus` is the table of hostile components; `budgets` looks at each budget closely;
//! `mutation` damages every one of them, `fuzz` does so for an hour and keeps what is new.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly, like tests"
)]

mod budgets;
#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod fuzz;
mod mutation;

use std::time::{Duration, Instant};

use common::{House, exchange, request};
use corpus::{Must, all};
use nineteen_domain::Outcome;

/// Longer than any budget of the corpus, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn every_hostile_component_costs_itself_alone_and_says_what_it_did() {
    let house = House::new();
    let cases = all();
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let begun = Instant::now();
        let found = outcome(&house, &case).await;
        if found != case.must {
            wrong.push(format!("{}: must be {:?}, and is {found:?}", case.name, case.must));
        }
        assert!(begun.elapsed() < PATIENCE, "{} took {:?}", case.name, begun.elapsed());
        house.still_serves().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What became of it. What loads and scores does so twice here and once on another host, to the same bits.
async fn outcome(house: &House, case: &corpus::Case) -> Must {
    let plugin = match house.try_load(case.bytes.clone(), &case.manifest).await {
        Ok(plugin) => plugin,
        Err(refused) => return Must::Refused(refused.code()),
    };
    let call = case.call;
    let asked = plugin.clone();
    let failed = tokio::task::spawn_blocking(move || corpus::provoke(&asked, call)).await.unwrap();
    if let Err(failed) = failed {
        assert!(failed.is_guest_fault(), "{}: {failed}", case.name);
        return Must::Fail(failed.code());
    }
    let judge = async |plugin: &std::sync::Arc<nineteen_sandbox::Plugin>| {
        let judged = plugin.judge(request(), exchange(), std::sync::Arc::new(common::Echo::default())).await;
        match judged.result {
            Ok(Outcome::Scored(v)) => Ok((v.quality.to_bits(), v.units, judged.fuel)),
            Ok(other) => panic!("{}: {other:?}", case.name),
            Err(failed) => {
                assert!(failed.is_guest_fault(), "{}: {failed}", case.name);
                Err(failed.code())
            }
        }
    };
    let first = judge(&plugin).await;
    assert_eq!(first, judge(&plugin).await, "{}", case.name);
    let elsewhere = House::new();
    let again = elsewhere.try_load(case.bytes.clone(), &case.manifest).await.unwrap();
    assert_eq!(first, judge(&again).await, "{}: another host", case.name);
    match first {
        Ok(_) => Must::Score,
        Err(code) => Must::Fail(code),
    }
}
