use nineteen_sdk::{Answer, Check, Chunk, Evidence, Task};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::TextGeneration;

const EOS: u32 = 2;
const WORDS: [&str; 6] = ["Lamps", " glow", " über", " 😀", " the", " quay"];

fn params() -> Params {
    nineteen_sdk::params::<TextGeneration>(r#"{"model":"m"}"#).unwrap()
}

fn request(stream: bool, temperature: f64, max_tokens: u32) -> Request {
    let body = Body {
        model: "m".into(),
        messages: vec![nineteen_sdk::openai::Message::new("user", "hi")],
        max_tokens,
        temperature,
        top_p: 1.0,
        top_k: 0,
        seed: 7,
        request_id: "00c0ffee00c0ffee".into(),
        stream,
        stream_options: None,
        logprobs: true,
        return_token_ids: true,
    };
    Request::json("/v1/chat/completions", serde_json::to_vec(&body).unwrap(), stream)
}

/// Ids 10 to 15 are the words, then the end of the sequence.
fn ids() -> Vec<u32> {
    (10..16).chain([EOS]).collect()
}

fn whole() -> Value {
    json!({
        "object": "chat.completion",
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": WORDS.concat()}, "finish_reason": "stop",
            "token_ids": ids(),
            "logprobs": {"content": ids().iter().map(|_| json!({"token": "x", "logprob": -0.5, "bytes": [1]})).collect::<Vec<_>>()},
        }],
        "usage": {"prompt_tokens": 31, "completion_tokens": 7, "total_tokens": 38},
    })
}

fn stream() -> Vec<String> {
    let mut events = vec![json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})];
    for (word, id) in WORDS.iter().zip(ids()) {
        events.push(json!({"choices": [{"index": 0, "delta": {"content": word}, "token_ids": [id], "finish_reason": null}]}));
    }
    events.push(json!({"choices": [{"index": 0, "delta": {}, "token_ids": [EOS], "finish_reason": "stop"}]}));
    events.push(
        json!({"choices": [], "usage": {"prompt_tokens": 31, "completion_tokens": 7, "total_tokens": 38}}),
    );
    events.iter().map(|e| format!("data: {e}\n\n")).chain(["data: [DONE]\n\n".to_owned()]).collect()
}

fn exchange(pieces: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Exchange {
    let chunks: Vec<Chunk> =
        pieces.into_iter().zip(1..).map(|(data, i)| Chunk { at_us: i * 1000, data: data.into() }).collect();
    let ended_us = chunks.len() as u64 * 1000;
    Exchange { status: 200, headers: vec![], chunks, ended_us, ending: Ending::Complete }
}

fn json_exchange(reply: &Value) -> Exchange {
    exchange([reply.to_string()])
}

/// What an executor would answer to this check, with these margins.
fn replay(check: &Check, change: impl FnOnce(&mut Value)) -> Evidence {
    let asked: Value = serde_json::from_str(&check.params).unwrap();
    let retokenised = asked.get("completion_text").is_some();
    let ids: Vec<u32> =
        if retokenised { ids() } else { serde_json::from_value(asked["completion_ids"].clone()).unwrap() };
    let word = |id: &u32| (*id as usize).checked_sub(10).and_then(|i| WORDS.get(i)).copied().unwrap_or("");
    let text: String = ids.iter().map(word).collect();
    let ends: Vec<usize> = (1..=ids.len()).map(|n| ids[..n].iter().map(|id| word(id).len()).sum()).collect();
    let all = |x: f64| vec![x; ids.len()];
    let unseeded = asked["sampler"]["class"] == "unseeded";
    let mut answer = json!({
        "version": 1, "model": "m", "precision": "fp32", "provider": "cpu",
        "prompt_tokens": 31, "retokenised": retokenised, "eos_ids": [EOS], "ids": ids, "text": text,
        "text_ends": ends, "margin": if unseeded { vec![] } else { all(0.0) }, "rank": vec![0; ids.len()],
        "logprob": all(-0.5), "entropy": all(0.5), "varentropy": all(0.25), "p_eos": all(0.01),
        "in_support": vec![true; ids.len()], "top": vec![Value::Array(vec![]); ids.len()],
    });
    change(&mut answer);
    Evidence::Answered(Answer { params: answer.to_string(), blobs: vec![] })
}

fn judged_with(
    request: &Request,
    exchange: &Exchange,
    change: impl FnOnce(&mut Value),
) -> Result<Verdict, Stop> {
    let p = params();
    match TextGeneration::score(&p, &mut Cx::default(), request, exchange) {
        Err(Stop::Need(checks)) => {
            assert_eq!(checks.len(), 1);
            assert_eq!((checks[0].kind.as_str(), checks[0].model.as_deref()), ("text.replay", Some("m")));
            let evidence = replay(&checks[0], change);
            TextGeneration::score(&p, &mut Cx::new(vec![(checks[0].clone(), evidence)]), request, exchange)
        }
        other => other,
    }
}

fn judged(request: &Request, exchange: &Exchange) -> Result<Verdict, Stop> {
    judged_with(request, exchange, |_| {})
}

fn violation(request: &Request, exchange: &Exchange) -> String {
    match judged(request, exchange) {
        Err(Stop::Violation(why)) => why.split(':').next().unwrap_or_default().to_owned(),
        other => panic!("no violation: {other:?}"),
    }
}

fn changed(change: impl FnOnce(&mut Value)) -> Exchange {
    let mut reply = whole();
    change(&mut reply);
    json_exchange(&reply)
}

fn reason(verdict: &Verdict, code: &str) -> Option<f64> {
    verdict.reasons.iter().find(|(c, _)| c == code).map(|(_, n)| *n)
}

#[test]
fn an_honest_reply_earns_everything_whole_or_streamed() {
    let one = judged(&request(false, 0.7, 64), &json_exchange(&whole())).unwrap();
    assert_eq!((one.quality, one.units, one.units_by_chunk), (1.0, 7, vec![7]));
    let many = judged(&request(true, 0.7, 64), &exchange(stream())).unwrap();
    assert_eq!((many.quality, many.units), (1.0, 7));
    assert_eq!(many.units_by_chunk, [0, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
    assert_eq!(one.fingerprints, many.fingerprints);
    assert_eq!(reason(&many, "tokens"), Some(7.0));
    assert_eq!(reason(&many, "retokenised"), Some(0.0));
}

#[test]
fn a_calibration_turns_margins_into_suspicions() {
    let file = r#"{"version":1,"classes":{
        "seeded":{"statistic":"margin","edges":[0.1],"design_effect":1.0,"suspects":{"int8":{"lambda":[-0.5,3.0]}}},
        "unseeded":{"statistic":"surprise","edges":[1.0],"design_effect":2.0,"suspects":{"hotter":{"lambda":[-0.1,1.0]}}}}}"#;
    let suspicions = |exchange: &Exchange, margins: &[f64], inside: bool| {
        let p = params();
        let request = request(false, 0.7, 64);
        let first = TextGeneration::score(&p, &mut Cx::default(), &request, exchange);
        let Err(Stop::Need(checks)) = first else { panic!("{first:?}") };
        let evidence = replay(&checks[0], |answer| {
            if !margins.is_empty() {
                answer["margin"] = json!(margins);
            }
            answer["in_support"][6] = json!(inside);
        });
        let mut cx =
            Cx::new(vec![(checks[0].clone(), evidence)]).with_asset("calibration.json", file.as_bytes());
        TextGeneration::score(&p, &mut cx, &request, exchange).unwrap().suspicions
    };
    let honest = json_exchange(&whole());
    assert_eq!(suspicions(&honest, &[0.0; 7], true), [("int8".to_owned(), -3.5)]);
    let two_off = [0.0, 0.2, 0.0, 0.3, 0.0, 0.0, 0.0];
    assert_eq!(suspicions(&honest, &two_off, true), [("int8".to_owned(), 3.5)]);
    // Outside the support counts as far off, however small its margin.
    assert_eq!(suspicions(&honest, &[0.0; 7], false), [("int8".to_owned(), 0.0)]);
    let unseeded = changed(|reply| reply["nineteen"] = json!({"sampler": "unseeded"}));
    let said = suspicions(&unseeded, &[], true);
    assert!(said.len() == 1 && said[0].0 == "hotter" && (said[0].1 + 0.35).abs() < 1e-12, "{said:?}");
    // A class without a table accuses nobody.
    let text_alone = changed(|reply| {
        reply["choices"][0].as_object_mut().unwrap().remove("token_ids");
        reply["choices"][0].as_object_mut().unwrap().remove("logprobs");
    });
    assert!(suspicions(&text_alone, &[0.0; 7], true).is_empty());
    assert!(judged(&request(false, 0.7, 64), &honest).unwrap().suspicions.is_empty());
}

#[test]
fn margins_cost_in_proportion_and_a_wrong_model_everything() {
    let with = |margin: f64| {
        judged_with(&request(false, 0.7, 64), &json_exchange(&whole()), |a| {
            a["margin"] = json!(vec![margin; 7])
        })
        .unwrap()
        .quality
    };
    assert!((with(0.05) - 0.5).abs() < 1e-9);
    assert!((with(0.001) - 0.99).abs() < 1e-9);
    assert_eq!(with(3.0), 0.0);
    let outside =
        judged_with(&request(false, 0.7, 64), &json_exchange(&whole()), |a| a["margin"][0] = Value::Null);
    assert_eq!(
        reason(&outside.unwrap(), "margin.max"),
        Some(1.0),
        "outside the support: the clipped penalty"
    );
}

#[test]
fn a_reply_without_ids_is_tokenised_again_and_marked() {
    let reply = changed(|r| {
        r["choices"][0].as_object_mut().unwrap().remove("token_ids");
        r["choices"][0].as_object_mut().unwrap().remove("logprobs");
    });
    let verdict = judged(&request(false, 0.0, 64), &reply).unwrap();
    assert_eq!((verdict.units, reason(&verdict, "retokenised")), (7, Some(1.0)));
}

#[test]
fn an_unseeded_draw_earns_at_most_its_cap() {
    let reply = changed(|r| r["nineteen"] = json!({"sampler": "unseeded"}));
    let asked = request(false, 0.7, 64);
    assert_eq!(judged(&asked, &reply).unwrap().quality, 0.5);
    let strange = judged_with(&asked, &reply, |a| a["logprob"] = json!(vec![-9.0; 7])).unwrap();
    assert_eq!(strange.quality, 0.0, "{:?}", strange.reasons);
    let greedy_passed_off = judged_with(&asked, &reply, |a| a["logprob"] = json!(vec![-0.0; 7])).unwrap();
    assert!(greedy_passed_off.quality < 0.5 && reason(&greedy_passed_off, "z").unwrap() < -2.0);
    let outside = judged_with(&asked, &reply, |a| a["in_support"][3] = json!(false)).unwrap();
    assert_eq!(outside.quality, 0.0);
}

#[test]
fn a_sampler_that_the_request_excludes_is_a_violation() {
    let claims = |sampler: &str| changed(|r| r["nineteen"] = json!({"sampler": sampler}));
    assert_eq!(violation(&request(false, 0.7, 64), &claims("greedy")), "sampler.greedy");
    assert_eq!(violation(&request(false, 0.7, 64), &claims("best")), "sampler.unknown");
    assert_eq!(judged(&request(false, 0.0, 64), &claims("greedy")).unwrap().quality, 1.0);
    let strict =
        Params { samplers: crate::params::Samplers { unseeded: 0.0, ..Default::default() }, ..params() };
    let refused = score(&strict, &mut Cx::default(), &request(false, 0.7, 64), &claims("unseeded"));
    assert!(matches!(refused, Err(Stop::Violation(why)) if why.starts_with("sampler.refused")));
}

#[test]
fn what_the_reply_says_about_itself_is_held_against_it() {
    let asked = request(false, 0.7, 64);
    let cases: [(&str, Exchange); 14] = [
        ("text.other", changed(|r| r["choices"][0]["message"]["content"] = json!("Lamps glow"))),
        (
            "usage.completion",
            changed(|r| {
                r["usage"] = json!({"prompt_tokens": 31, "completion_tokens": 9, "total_tokens": 40});
            }),
        ),
        ("usage.total", changed(|r| r["usage"]["total_tokens"] = json!(99))),
        (
            "usage.prompt",
            changed(|r| {
                r["usage"] = json!({"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37});
            }),
        ),
        ("finish.length", changed(|r| r["choices"][0]["finish_reason"] = json!("length"))),
        ("finish.unknown", changed(|r| r["choices"][0]["finish_reason"] = json!("tool_calls"))),
        (
            "logprobs.count",
            changed(|r| {
                r["choices"][0]["logprobs"]["content"].as_array_mut().unwrap().pop();
            }),
        ),
        (
            "reply.incomplete",
            changed(|r| {
                r.as_object_mut().unwrap().remove("usage");
            }),
        ),
        (
            "reply.choices",
            changed(|r| {
                let choice = r["choices"][0].clone();
                r["choices"].as_array_mut().unwrap().push(choice);
            }),
        ),
        ("reply.error", json_exchange(&json!({"error": {"message": "busy"}}))),
        ("reply.malformed", exchange(["<html>"])),
        ("reply.malformed", exchange([vec![0xff, 0xfe]])),
        ("reply.status", Exchange { status: 500, ..json_exchange(&whole()) }),
        ("reply.incomplete", Exchange { ending: Ending::Disconnected, ..json_exchange(&whole()) }),
    ];
    for (code, exchange) in cases {
        assert_eq!(violation(&asked, &exchange), code, "{exchange:?}");
    }
    assert_eq!(violation(&request(false, 0.7, 6), &json_exchange(&whole())), "tokens.too_many");
}

/// A reply of these ids, with text and usage that agree.
fn of_ids(ids: &[u32], finish: &str) -> Exchange {
    let text: String =
        ids.iter().filter_map(|id| WORDS.get((*id as usize).wrapping_sub(10))).copied().collect();
    changed(|r| {
        r["choices"][0].as_object_mut().unwrap().remove("logprobs");
        r["choices"][0]["token_ids"] = json!(ids);
        r["choices"][0]["message"]["content"] = json!(text);
        r["choices"][0]["finish_reason"] = json!(finish);
        let n = ids.len();
        r["usage"] = json!({"prompt_tokens": 31, "completion_tokens": n, "total_tokens": 31 + n});
    })
}

#[test]
fn an_end_that_is_no_end_is_a_violation() {
    let asked = request(false, 0.7, 64);
    assert_eq!(violation(&asked, &of_ids(&[10, 11], "stop")), "finish.stop");
    assert_eq!(violation(&asked, &of_ids(&[10, 11], "length")), "finish.early");
    assert_eq!(violation(&asked, &of_ids(&[10, EOS, 11], "length")), "tokens.after_eos");
    assert_eq!(judged(&request(false, 0.7, 2), &of_ids(&[10, 11], "length")).unwrap().units, 2);
    assert_eq!(judged(&asked, &of_ids(&[EOS], "stop")).unwrap().units, 1);
}

#[test]
fn an_invalid_check_is_the_replys_fault_and_any_other_failure_ours() {
    let (asked, reply) = (request(false, 0.7, 64), json_exchange(&whole()));
    let with = |why: &str| {
        let Err(Stop::Need(checks)) = judged_need(&asked, &reply) else { panic!("no check") };
        let evidence = vec![(checks[0].clone(), Evidence::Unavailable(why.to_owned()))];
        score(&params(), &mut Cx::new(evidence), &asked, &reply).unwrap_err()
    };
    assert!(
        matches!(with("invalid: id 99999 is outside the vocabulary"), Stop::Violation(w) if w.starts_with("tokens.invalid"))
    );
    assert!(matches!(with("the executor is busy"), Stop::Unavailable(_)));
    // A prompt that may have filled the context by itself is not the miner's fault.
    let small = Params { context_tokens: 128, ..params() };
    let Err(Stop::Need(checks)) = score(&small, &mut Cx::default(), &asked, &reply) else {
        panic!("no check")
    };
    let evidence = vec![(checks[0].clone(), Evidence::Unavailable("invalid: more than the context".into()))];
    let stop = score(&small, &mut Cx::new(evidence), &asked, &reply).unwrap_err();
    assert!(matches!(stop, Stop::Inconclusive(_)), "{stop:?}");
}

fn judged_need(request: &Request, exchange: &Exchange) -> Result<Verdict, Stop> {
    score(&params(), &mut Cx::default(), request, exchange)
}

#[test]
fn a_stream_that_goes_on_after_its_end_is_a_violation() {
    let asked = request(true, 0.7, 64);
    let mut after_done = stream();
    after_done.push("data: {\"choices\":[]}\n\n".to_owned());
    assert_eq!(violation(&asked, &exchange(after_done)), "stream.after_done");
    let mut no_done = stream();
    no_done.pop();
    assert_eq!(violation(&asked, &exchange(no_done)), "stream.done");
    let mut more = stream();
    more.insert(8, more[1].clone());
    more.swap(8, 9);
    let late = more.len() - 2;
    more.insert(
        late,
        format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": "more"}}]})),
    );
    assert_eq!(violation(&asked, &exchange(more)), "stream.after_finish");
}

#[test]
fn tokens_count_as_delivered_when_their_text_is_there_not_when_their_ids_are() {
    // All ids in the first event, the text drips afterwards: nothing was delivered early.
    let mut events = vec![json!({"choices": [{"index": 0, "delta": {"content": ""}, "token_ids": ids()}]})];
    events.extend(WORDS.iter().map(|w| json!({"choices": [{"index": 0, "delta": {"content": w}}]})));
    events.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 31, "completion_tokens": 7, "total_tokens": 38}}));
    let pieces: Vec<String> =
        events.iter().map(|e| format!("data: {e}\n\n")).chain(["data: [DONE]\n\n".to_owned()]).collect();
    let verdict = judged(&request(true, 0.7, 64), &exchange(pieces)).unwrap();
    assert_eq!(verdict.units_by_chunk[0], 0);
    assert_eq!(verdict.units_by_chunk.iter().sum::<u64>(), 7);
}

#[test]
fn claimed_tokens_come_from_the_bytes_and_never_exceed_what_was_allowed() {
    let count = |request: &Request, exchange: &Exchange| TextGeneration::count(&params(), request, exchange);
    assert_eq!(count(&request(false, 0.7, 64), &json_exchange(&whole())), Some(7));
    assert_eq!(count(&request(false, 0.7, 5), &json_exchange(&whole())), Some(5));
    assert_eq!(count(&request(true, 0.7, 64), &exchange(stream())), Some(7));
    let broken_off = Exchange { ending: Ending::Disconnected, ..exchange(stream()[..4].to_vec()) };
    assert_eq!(count(&request(true, 0.7, 64), &broken_off), Some(3));
    let mut inside = stream()[..4].to_vec();
    inside.push("data: {\"choices\":[{\"ind".to_owned());
    let inside = Exchange { ending: Ending::Disconnected, ..exchange(inside) };
    assert_eq!(count(&request(true, 0.7, 64), &inside), Some(3));
    assert_eq!(count(&request(false, 0.7, 64), &exchange(["<html>"])), None);
    let no_ids = changed(|r| {
        r["choices"][0].as_object_mut().unwrap().remove("token_ids");
    });
    assert_eq!(count(&request(false, 0.7, 64), &no_ids), Some(7));
}

#[test]
fn the_task_describes_itself_and_its_schema_knows_every_parameter() {
    let description = TextGeneration::describe(&params()).unwrap();
    let value = serde_json::to_value(&description).unwrap();
    assert_eq!(value["checks"], json!({"text.replay": ["m"]}));
    assert_eq!(value["params_schema"]["required"], json!(["model"]));
    // Every default of the schema is accepted, so it names no parameter that does not exist.
    let mut all = serde_json::Map::new();
    for (name, property) in value["params_schema"]["properties"].as_object().unwrap() {
        if let Some(default) = property.get("default") {
            all.insert(name.clone(), default.clone());
        } else if let Some(inner) = property.get("properties") {
            let inner =
                inner.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v["default"].clone())).collect();
            all.insert(name.clone(), Value::Object(inner));
        }
    }
    all.insert("model".into(), json!("m"));
    let from_schema = nineteen_sdk::params::<TextGeneration>(&Value::Object(all).to_string()).unwrap();
    assert_eq!(format!("{from_schema:?}"), format!("{:?}", params()), "schema and code have other defaults");
}

#[test]
fn a_parameter_with_a_typing_error_or_out_of_range_is_refused_in_words() {
    let refused = |json: &str| nineteen_sdk::params::<TextGeneration>(json).unwrap_err();
    assert!(refused(r#"{"model":"m","detla":1}"#).contains("detla"));
    assert!(refused(r#"{"model":"m","samplers":{"gready":1}}"#).contains("gready"));
    assert!(refused(r#"{"model":"m","delta":0}"#).contains("delta must be above 0"));
    assert!(refused(r#"{"model":"m","z_free":9}"#).contains("z_free"));
    assert!(refused("{}").contains("model"));
}

proptest! {
    #[test]
    fn a_stream_split_at_any_byte_is_judged_alike(cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12)) {
        let bytes = stream().concat().into_bytes();
        let asked = request(true, 0.7, 64);
        let whole = judged(&asked, &exchange([bytes.clone()])).unwrap();
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let split = exchange(at.windows(2).map(|w| bytes[w[0]..w[1]].to_vec()));
        let verdict = judged(&asked, &split).unwrap();
        prop_assert_eq!(verdict.units_by_chunk.len(), split.chunks.len());
        prop_assert_eq!(verdict.units_by_chunk.iter().sum::<u64>(), verdict.units);
        prop_assert_eq!(Verdict { units_by_chunk: vec![], ..verdict }, Verdict { units_by_chunk: vec![], ..whole });
        let counted = TextGeneration::count(&params(), &asked, &split);
        prop_assert_eq!(counted, Some(7));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..6),
        stream in any::<bool>(),
    ) {
        let exchange = exchange(pieces);
        let asked = request(stream, 0.7, 64);
        let _ = TextGeneration::count(&params(), &asked, &exchange);
        prop_assert!(matches!(judged(&asked, &exchange), Err(Stop::Violation(_))));
    }

    #[test]
    fn a_reply_with_a_few_bytes_changed_never_panics(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = stream().concat().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(verdict) = judged(&request(true, 0.7, 64), &exchange([bytes])) {
            prop_assert!((0.0..=1.0).contains(&verdict.quality));
        }
    }

    #[test]
    fn any_evidence_gives_a_quality_within_0_and_1(numbers in proptest::collection::vec(any::<f64>(), 7), unseeded in any::<bool>()) {
        let reply = changed(|r| if unseeded { r["nineteen"] = json!({"sampler": "unseeded"}) });
        let verdict = judged_with(&request(false, 0.7, 64), &reply, |a| {
            for field in ["logprob", "entropy", "varentropy"] {
                a[field] = json!(numbers);
            }
            if !unseeded {
                a["margin"] = json!(numbers);
            }
        }).unwrap();
        prop_assert!((0.0..=1.0).contains(&verdict.quality));
        prop_assert!(verdict.reasons.iter().all(|(_, n)| n.is_finite()));
    }
}

#[test]
fn the_seed_is_not_needed_to_judge() {
    // `score` has no randomness: twice the same evidence, twice the same bits.
    let once = || judged(&request(true, 0.7, 64), &exchange(stream())).unwrap();
    assert_eq!(format!("{:?}", once()), format!("{:?}", once()));
}
