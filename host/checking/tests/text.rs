//! The text executor against what PyTorch and transformers computed for the same weights, and against itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

mod common;

use common::{ALL, CHAT, INT8, fixture, generate, start, user};
use nineteen_checking::{
    CheckingError, Completion, Finish, GenerateRequest, Message, Prompt, Replay, ReplayRequest, Sampler,
    TextModel,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    rendered: String,
    prompt_ids: Vec<u32>,
    greedy: Vec<u32>,
    greedy_text: String,
    tokens: Vec<Token>,
}

#[derive(Deserialize)]
struct Token {
    logprob: f64,
    rank: u32,
    entropy: f64,
    top5: Vec<(u32, f64)>,
}

fn cases() -> Vec<Case> {
    serde_json::from_value(fixture("smollm2.json")["cases"].clone()).unwrap()
}

fn chat() -> TextModel {
    ALL.text(CHAT).unwrap()
}

fn seeded(seed: u64) -> Sampler {
    Sampler::Seeded { seed, request: 0x00c0_ffee_00c0_ffee, temperature: 0.7, top_p: 0.95, top_k: 50 }
}

async fn replay(model: &TextModel, messages: Vec<Message>, ids: Vec<u32>, sampler: Sampler) -> Replay {
    let request = ReplayRequest {
        prompt: Prompt::Messages(messages),
        completion: Completion::Ids(ids),
        sampler,
        top: 5,
    };
    model.replay(request).await.unwrap()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[tokio::test]
async fn chats_render_to_the_references_text_and_ids() {
    for case in cases() {
        let rendered = chat().render(&case.messages).unwrap();
        assert_eq!(rendered.text, case.rendered);
        assert_eq!(rendered.ids, case.prompt_ids);
    }
}

#[tokio::test]
async fn completions_of_one_batch_are_those_that_each_would_have_been() {
    let cases = cases();
    let want = |case: &Case, sampler| GenerateRequest {
        prompt: Prompt::Messages(case.messages.clone()),
        max_tokens: 24,
        sampler,
        logprobs: true,
        stop: Vec::new(),
    };
    // Prompts of different lengths, so that most are padded; both samplers in one batch.
    let requests = cases.iter().map(|c| want(c, Sampler::Greedy)).chain([want(&cases[0], seeded(7))]);
    let together = chat().generate_together(requests.collect()).await.unwrap();
    assert_eq!(together.len(), cases.len() + 1);
    for (case, made) in cases.iter().zip(&together) {
        let ids: Vec<u32> = made.iter().map(|t| t.id).collect();
        let n = ids.len().min(case.greedy.len());
        assert!(n > 0 && ids[..n] == case.greedy[..n], "{ids:?} is not {:?}", case.greedy);
        assert!(made.iter().all(|t| t.logprob.is_some_and(|l| l <= 0.0)));
    }
    let (alone, _) = generate(&chat(), cases[0].messages.clone(), 24, seeded(7)).await;
    let seeded: Vec<u32> = together[cases.len()].iter().map(|t| t.id).collect();
    assert_eq!(seeded, alone.iter().map(|t| t.id).collect::<Vec<_>>());

    let many = vec![want(&cases[0], Sampler::Greedy); nineteen_checking::MOST_TOGETHER + 1];
    assert_eq!(chat().generate_together(many).await.unwrap_err().code(), "checking.parameters");
    assert!(chat().generate_together(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn greedy_tokens_and_their_text_are_the_references() {
    for case in cases() {
        let n = case.greedy.len();
        let (tokens, end) = generate(&chat(), case.messages, 48, Sampler::Greedy).await;
        let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
        assert_eq!(ids, case.greedy);
        let text: String = tokens.iter().map(|t| t.text.as_str()).collect();
        assert_eq!(text, case.greedy_text.replace("<|im_end|>", ""));
        let bytes: Vec<u8> = tokens.iter().flat_map(|t| t.bytes.clone()).collect();
        assert_eq!(String::from_utf8_lossy(&bytes), case.greedy_text);
        for (token, want) in tokens.iter().zip(&case.tokens) {
            assert!((token.logprob.unwrap() - want.logprob).abs() < 2e-3);
        }
        assert_eq!((end.completion_tokens as usize, end.prompt_tokens as usize), (n, case.prompt_ids.len()));
        assert_eq!(end.finish, if case.greedy.last() == Some(&2) { Finish::Stop } else { Finish::Length });
    }
}

#[tokio::test]
async fn one_prefill_gives_the_references_numbers_for_every_token() {
    for case in cases() {
        let r = replay(&chat(), case.messages, case.greedy.clone(), Sampler::Greedy).await;
        assert_eq!((r.prompt_tokens as usize, r.retokenised), (case.prompt_ids.len(), false));
        assert_eq!(r.text, case.greedy_text.replace("<|im_end|>", ""));
        assert_eq!(r.text_ends.last().map(|e| *e as usize), Some(r.text.len()));
        for (t, want) in case.tokens.iter().enumerate() {
            assert!((r.logprob[t] - want.logprob).abs() < 2e-3, "{} {}", r.logprob[t], want.logprob);
            assert!((r.entropy[t] - want.entropy).abs() < 5e-3, "{} {}", r.entropy[t], want.entropy);
            assert_eq!(r.rank[t], want.rank);
            assert_eq!(r.margin[t], 0.0);
            let ids = |top: &[(u32, f64)]| top.iter().map(|(id, _)| *id).collect::<Vec<_>>();
            assert_eq!(ids(&r.top[t]), ids(&want.top5));
            for (have, want) in r.top[t].iter().zip(&want.top5) {
                assert!((have.1 - want.1).abs() < 2e-3);
            }
            assert!(r.varentropy[t] >= 0.0 && (0.0..=1.0).contains(&r.p_eos[t]) && r.in_support[t]);
        }
    }
}

#[tokio::test]
async fn a_seeded_answer_replays_with_margin_nought_and_a_wrong_seed_does_not() {
    let messages = user("Tell me about the history of bread.");
    let (tokens, _) = generate(&chat(), messages.clone(), 64, seeded(42)).await;
    let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
    let honest = replay(&chat(), messages.clone(), ids.clone(), seeded(42)).await;
    assert!(honest.margin.iter().all(|m| (0.0..=1e-3).contains(m)), "{:?}", honest.margin);
    assert!(honest.in_support.iter().all(|s| *s));
    let wrong = replay(&chat(), messages.clone(), ids.clone(), seeded(43)).await;
    assert!(mean(&wrong.margin) > 0.3, "{}", mean(&wrong.margin));
    let greedy = replay(&chat(), messages.clone(), ids.clone(), Sampler::Greedy).await;
    assert!(mean(&greedy.margin) > 0.1, "{}", mean(&greedy.margin));
    let (again, _) = generate(&chat(), messages, 64, seeded(42)).await;
    assert_eq!(again.iter().map(|t| t.id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn everything_in_the_support_is_drawn_alike_by_both_sides() {
    let messages = user("Write one sentence about the sea.");
    let open = Sampler::Seeded { seed: 9, request: 1, temperature: 1.0, top_p: 1.0, top_k: 0 };
    let nucleus = Sampler::Seeded { seed: 9, request: 2, temperature: 1.3, top_p: 0.9, top_k: 0 };
    for sampler in [open, nucleus] {
        let (tokens, _) = generate(&chat(), messages.clone(), 24, sampler).await;
        let ids = tokens.iter().map(|t| t.id).collect();
        let r = replay(&chat(), messages.clone(), ids, sampler).await;
        assert!(r.margin.iter().all(|m| (0.0..=1e-3).contains(m)), "{:?}", r.margin);
    }
}

#[tokio::test]
async fn quantised_weights_show_in_the_margins_of_a_seeded_answer() {
    let messages = user("Explain how a sailing boat moves against the wind.");
    let (tokens, _) = generate(&ALL.text(INT8).unwrap(), messages.clone(), 96, seeded(5)).await;
    let ids = tokens.iter().map(|t| t.id).collect();
    let r = replay(&chat(), messages, ids, seeded(5)).await;
    assert!(mean(&r.margin) > 1e-2, "{}", mean(&r.margin));
    assert_eq!((r.precision.as_str(), r.provider.name()), ("fp32", "cpu"));
}

#[tokio::test]
async fn an_unseeded_answer_has_no_margin_and_tempered_numbers() {
    let messages = user("Name a colour.");
    let sampler = Sampler::Unseeded { temperature: 0.8, top_p: 0.9, top_k: 40 };
    let (tokens, _) = generate(&chat(), messages.clone(), 24, sampler).await;
    let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
    let r = replay(&chat(), messages.clone(), ids.clone(), sampler).await;
    assert!(r.margin.is_empty() && r.in_support.iter().all(|s| *s));
    let plain = replay(&chat(), messages, ids, Sampler::Greedy).await;
    // A tempered and truncated distribution is sharper than the plain one, and sums to 1 over its support.
    assert!(mean(&r.entropy) < mean(&plain.entropy));
    assert!(r.top.iter().all(|top| top.iter().map(|(_, l)| l.exp()).sum::<f64>() < 1.0 + 1e-9));
}

#[tokio::test]
async fn text_without_ids_is_tokenised_behind_its_prompt() {
    let case = cases().swap_remove(0);
    let by_ids = replay(&chat(), case.messages.clone(), case.greedy.clone(), Sampler::Greedy).await;
    let request = |finished| ReplayRequest {
        prompt: Prompt::Messages(case.messages.clone()),
        completion: Completion::Text { text: by_ids.text.clone(), finished },
        sampler: Sampler::Greedy,
        top: 0,
    };
    let r = chat().replay(request(false)).await.unwrap();
    assert!(r.retokenised);
    assert_eq!(r.text, by_ids.text);
    assert_eq!(r.ids, case.greedy);
    assert_eq!(r.margin, by_ids.margin);
    let finished = chat().replay(request(true)).await.unwrap();
    assert_eq!(finished.ids.len(), r.ids.len() + 1);
    assert_eq!(finished.ids.last(), Some(&2));
}

#[tokio::test]
async fn a_long_completion_in_several_passes_says_what_one_pass_says() {
    let text = "The tide comes in, the tide goes out, and nobody on the pier looks up. ".repeat(40);
    let ids: Vec<u32> = chat().tokenize(&text).unwrap().into_iter().take(600).collect();
    assert_eq!(ids.len(), 600);
    let long = replay(&chat(), user("Go on."), ids.clone(), Sampler::Greedy).await;
    let short = replay(&chat(), user("Go on."), ids[..200].to_vec(), Sampler::Greedy).await;
    assert_eq!(long.logprob.len(), 600);
    for (long, short) in long.logprob.iter().zip(&short.logprob) {
        assert!((long - short).abs() < 1e-3);
    }
    // The same sentence for the fortieth time is no surprise any more: later passes see the earlier ones.
    assert!(mean(&long.logprob[300..]) > mean(&long.logprob[..30]) + 1.0);
}

#[tokio::test]
async fn a_single_altered_token_stands_out_where_it_is() {
    let case = cases().swap_remove(0);
    let mut ids = case.greedy.clone();
    ids[10] = 1234;
    let r = replay(&chat(), case.messages, ids, Sampler::Greedy).await;
    assert!(r.margin[10] > 2.0 && r.rank[10] > 10, "{} {}", r.margin[10], r.rank[10]);
    assert!(r.margin[..10].iter().all(|m| *m == 0.0));
}

#[tokio::test]
async fn what_cannot_be_this_models_is_invalid_and_a_bad_question_is_not() {
    let ask = |ids: Vec<u32>, prompt: Prompt| async move {
        let request =
            ReplayRequest { prompt, completion: Completion::Ids(ids), sampler: Sampler::Greedy, top: 0 };
        chat().replay(request).await.unwrap_err()
    };
    let hi = || Prompt::Messages(user("Hi"));
    for ids in [vec![], vec![1, 49_152], vec![u32::MAX], vec![5; 8_192]] {
        let err = ask(ids, hi()).await;
        assert!(err.to_string().starts_with("invalid: "), "{err}");
    }
    assert_eq!(ask(vec![1], Prompt::Ids(vec![1; 8_192])).await.code(), "checking.too-long");
    assert_eq!(ask(vec![1], Prompt::Ids(vec![])).await.code(), "checking.parameters");
    assert_eq!(ask(vec![1], Prompt::Ids(vec![99_999])).await.code(), "checking.parameters");
}

#[tokio::test]
async fn a_receiver_that_goes_away_cancels_between_two_tokens() {
    let (tokens, mut out) = tokio::sync::mpsc::channel(1);
    let request = GenerateRequest {
        prompt: Prompt::Messages(user("Count to a thousand.")),
        max_tokens: 2_000,
        sampler: Sampler::Greedy,
        logprobs: false,
        stop: Vec::new(),
    };
    let model = chat();
    let (end, ()) = tokio::join!(model.generate(request, tokens), async move {
        for _ in 0..3 {
            assert!(out.recv().await.unwrap().logprob.is_none());
        }
        drop(out);
    });
    let end = end.unwrap();
    assert_eq!(end.finish, Finish::Cancelled);
    assert!((3..=6).contains(&end.completion_tokens), "{end:?}");
}

#[tokio::test]
async fn a_stop_string_ends_a_completion_and_is_not_part_of_it() {
    let (tokens, mut out) = tokio::sync::mpsc::channel(64);
    let request = GenerateRequest {
        prompt: Prompt::Messages(user("What is gravity?")),
        max_tokens: 48,
        sampler: Sampler::Greedy,
        logprobs: false,
        stop: vec!["concept".into()],
    };
    let end = chat().generate(request, tokens).await.unwrap();
    let mut text = String::new();
    while let Some(token) = out.recv().await {
        text += &token.text;
    }
    assert_eq!((end.finish, text.as_str()), (Finish::Stop, "Gravity is a fundamental "));
}

#[tokio::test]
async fn stopping_ends_generations_and_handles_say_so_afterwards() {
    let executors = start(&[INT8]);
    let model = executors.text(INT8).unwrap();
    let (tokens, mut out) = tokio::sync::mpsc::channel(4_000);
    let request = GenerateRequest {
        prompt: Prompt::Messages(user("Count to a thousand.")),
        max_tokens: 4_000,
        sampler: Sampler::Greedy,
        logprobs: false,
        stop: Vec::new(),
    };
    let under_way = model.clone();
    let (end, ()) = tokio::join!(under_way.generate(request.clone(), tokens), async {
        out.recv().await.unwrap();
        executors.stop().await;
    });
    assert_eq!(end.unwrap().finish, Finish::Cancelled);
    let (tokens, _out) = tokio::sync::mpsc::channel(1);
    assert_eq!(model.generate(request, tokens).await, Err(CheckingError::Stopped));
}
