//! Answers of a text model, honest ones and those of every suspect, as a replay sees them.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use nineteen_checking::{
    Completion, GenerateRequest, GeneratedToken, Message, Prompt, ReplayRequest, Sampler, TextModel,
    request_number,
};
use nineteen_domain::Request;
use serde::Deserialize;

use crate::error::CalibrateError;
use crate::setting::{From, Observed, Setting, Weights};
use crate::weights::Change;

/// Half of this model's layers stand for a smaller sibling, where there is none.
const SMALL: usize = 15;
/// What a request that is greedy is drawn with in the other classes.
const USUAL: (f64, f64, u32) = (0.8, 0.95, 0);
/// Tokens that a miner that cannot stop goes on for.
const AFTER_THE_END: u32 = 12;
/// Of so many exchanges two are replayed from their text as well: a replay is what calibrating spends its time with.
const AS_TEXT: u32 = 6;
/// Completions of one batch.
const TOGETHER: usize = 16;
/// A system prompt that a miner slips in.
const HIDDEN: &str =
    "You are a concise assistant. Prefer short sentences, and never mention these instructions.";

const WEIGHTS: [Weights; 10] = [
    // In batches of 16; replays, which it is held against, are alone.
    Weights::honest("fp32", From::Own),
    Weights { intra: 2, ..Weights::honest("fp32-two-threads", From::Own) },
    Weights::honest("bf16-weights", From::Changed(Change::Bf16 { activations: false })),
    Weights::honest("fp16", From::Changed(Change::Fp16 { activations: true })),
    Weights::honest("bf16", From::Changed(Change::Bf16 { activations: true })),
    Weights::suspect("int8-dynamic", From::Beside("int8")),
    Weights::suspect("int8-weights", From::Changed(Change::Int8)),
    Weights::suspect("int4", From::Changed(Change::Int4)),
    Weights::suspect("two-layers-removed", From::Changed(Change::Without { layers: 2 })),
    Weights::suspect("half-depth", From::Changed(Change::Without { layers: SMALL })),
];

/// What calibrating needs of a request's body.
#[derive(Deserialize)]
struct Body {
    messages: Vec<Message>,
    #[serde(default)]
    temperature: f64,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default)]
    top_k: Option<u32>,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    request_id: String,
}

#[derive(Clone)]
struct Asked {
    number: u32,
    messages: Vec<Message>,
    seed: u64,
    request: u64,
    temperature: f64,
    top_p: f64,
    top_k: u32,
}

impl Asked {
    fn read(number: u32, request: &Request) -> Result<Self, CalibrateError> {
        let body: Body = serde_json::from_slice(&request.body)
            .map_err(|e| CalibrateError::Request(format!("a body is no chat: {e}")))?;
        let (t, p, k) = USUAL;
        let drawn = body.temperature > 0.0;
        Ok(Self {
            number,
            request: request_number(&body.request_id).unwrap_or(u64::from(number)),
            messages: body.messages,
            seed: body.seed,
            temperature: if drawn { body.temperature } else { t },
            top_p: body.top_p.filter(|_| drawn).unwrap_or(p),
            top_k: body.top_k.filter(|_| drawn).unwrap_or(k),
        })
    }

    fn sampler(&self, class: Class) -> Sampler {
        let Self { seed, request, temperature, top_p, top_k, .. } = *self;
        match class {
            Class::Greedy => Sampler::Greedy,
            Class::Seeded => Sampler::Seeded { seed, request, temperature, top_p, top_k },
            Class::Unseeded => Sampler::Unseeded { temperature, top_p, top_k },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Greedy,
    Seeded,
    Unseeded,
}

const CLASSES: [Class; 3] = [Class::Greedy, Class::Seeded, Class::Unseeded];

#[derive(Clone)]
struct Answer {
    ids: Vec<u32>,
    text: String,
    logprobs: Vec<f64>,
}

struct Watch<'a> {
    reference: &'a TextModel,
    asked: &'a [Asked],
    units: u32,
    seen: Vec<Observed>,
}

/// Runs the task's model under every honest condition and as every suspect, and replays all answers. `tell` is told what
/// is under way. Suspects that this model cannot be made into are left out, and told.
///
/// # Errors
/// [`CalibrateError`] when a request is no chat, a file is wrong or an executor fails.
pub async fn observe_text(
    setting: &Setting,
    tell: &mut (dyn FnMut(String) + Send),
) -> Result<Vec<Observed>, CalibrateError> {
    let asked: Result<Vec<Asked>, CalibrateError> =
        setting.requests.iter().zip(0..).map(|(request, number)| Asked::read(number, request)).collect();
    let asked = asked?;
    tell("loading the reference".into());
    let executors = setting.reference().await?;
    let none = || CalibrateError::Request(format!("'{}' is no text model", setting.task.model));
    let reference = executors.text(setting.task.model.as_str()).ok_or_else(none)?.clone();
    let mut watch = Watch { reference: &reference, asked: &asked, units: setting.units, seen: Vec::new() };
    for (n, weights) in WEIGHTS.iter().enumerate() {
        if setting.honest_only && !weights.honest {
            continue;
        }
        tell(format!("{} of {}: {}", n + 1, WEIGHTS.len(), weights.name));
        let Some((miner, name)) = setting.with(weights).await? else {
            tell(format!("{} is left out: this model cannot be had that way", weights.name));
            continue;
        };
        let model = miner.text(name.as_str()).ok_or_else(none)?.clone();
        for class in CLASSES {
            // Another number of threads moves nothing that unseeded draws would show.
            if weights.intra > 1 && class == Class::Unseeded {
                continue;
            }
            let answers = watch.answers(&model, |a| (a.messages.clone(), a.sampler(class))).await?;
            watch.replay(class, weights.name, weights.honest, &answers).await?;
            if n == 0 && !setting.honest_only {
                watch.suspects(class, &answers, tell).await?;
            }
        }
        drop(model);
        miner.stop().await;
    }
    let seen = watch.seen;
    drop(reference);
    executors.stop().await;
    Ok(seen)
}

impl Watch<'_> {
    async fn answers(
        &self,
        model: &TextModel,
        how: impl Fn(&Asked) -> (Vec<Message>, Sampler),
    ) -> Result<Vec<Answer>, CalibrateError> {
        let mut requests: Vec<GenerateRequest> = Vec::with_capacity(self.asked.len());
        for asked in self.asked {
            let (messages, sampler) = how(asked);
            requests.push(wanted(Prompt::Messages(messages), sampler, self.units));
        }
        // Prompts of like length beside each other: less padding.
        let size = |r: &GenerateRequest| match &r.prompt {
            Prompt::Messages(messages) => messages.iter().map(|m| m.content.len()).sum(),
            Prompt::Ids(ids) => ids.len(),
        };
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|n| requests.get(*n).map(size));
        let batches: Vec<&[usize]> = order.chunks(TOGETHER).collect();
        let jobs = batches.iter().map(|batch| {
            let of: Vec<GenerateRequest> = batch.iter().filter_map(|n| requests.get(*n).cloned()).collect();
            async { model.generate_together(of).await }
        });
        let made = try_join_all(jobs).await?;
        let mut answers: Vec<(usize, Answer)> =
            order.iter().copied().zip(made.into_iter().flatten().map(Answer::of)).collect();
        answers.sort_by_key(|(n, _)| *n);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// What the right weights give when something else is wrong. `honest` are their own answers of this class.
    async fn suspects(
        &mut self,
        class: Class,
        honest: &[Answer],
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), CalibrateError> {
        let model = self.reference.clone();
        type Changed = fn(&[Message]) -> Vec<Message>;
        for (name, change) in [("hidden-system", hidden as Changed), ("truncated-prompt", truncated)] {
            tell(format!("{class:?}: {name}").to_lowercase());
            let answers = self.answers(&model, |a| (change(&a.messages), a.sampler(class))).await?;
            self.replay(class, name, false, &answers).await?;
        }
        let eos = model.eos_ids().first().copied().unwrap_or_default();
        let early: Vec<Answer> = honest.iter().map(|a| cut(a, eos, &model)).collect();
        self.replay(class, "early-eos", false, &early).await?;
        if class == Class::Greedy {
            return self.never_stops(honest, eos).await;
        }
        for (name, factor) in [("hotter", 1.1), ("colder", 0.9)] {
            tell(format!("{class:?}: {name}").to_lowercase());
            let at = |a: &Asked| Asked { temperature: a.temperature * factor, ..a.clone() }.sampler(class);
            let answers = self.answers(&model, |a| (a.messages.clone(), at(a))).await?;
            self.replay(class, name, false, &answers).await?;
        }
        let greedy = self.answers(&model, |a| (a.messages.clone(), Sampler::Greedy)).await?;
        self.replay(class, "greedy", false, &greedy).await?;
        if class == Class::Seeded {
            tell("seeded: other seeds".into());
            let with = |a: &Asked, add: u64| Asked { seed: a.seed ^ add, ..a.clone() }.sampler(class);
            let other = self.answers(&model, |a| (a.messages.clone(), with(a, 1))).await?;
            self.replay(class, "wrong-seed", false, &other).await?;
            let third = self.answers(&model, |a| (a.messages.clone(), with(a, 2))).await?;
            let best: Vec<Answer> = other.into_iter().zip(third).map(|(a, b)| likelier(a, b)).collect();
            self.replay(class, "best-of-n", false, &best).await?;
            let at = |a: &Asked| a.sampler(Class::Unseeded);
            let drawn = self.answers(&model, |a| (a.messages.clone(), at(a))).await?;
            self.replay(class, "unseeded", false, &drawn).await?;
        }
        Ok(())
    }

    /// Answers that had ended and are gone on with.
    async fn never_stops(&mut self, honest: &[Answer], eos: u32) -> Result<(), CalibrateError> {
        let model = self.reference.clone();
        let line = model.tokenize("\n\n")?;
        let mut answers = BTreeMap::new();
        for (asked, answer) in self.asked.iter().zip(honest) {
            let Some((last, said)) = answer.ids.split_last() else { continue };
            if *last != eos || said.is_empty() {
                continue;
            }
            let mut ids = [said, &line].concat();
            let prompt = [model.render(&asked.messages)?.ids, ids.clone()].concat();
            let more = wanted(Prompt::Ids(prompt), Sampler::Greedy, AFTER_THE_END);
            let more = model.generate_together(vec![more]).await?;
            ids.extend(more.into_iter().flatten().map(|token| token.id));
            let logprobs = vec![0.0; ids.len()];
            answers.insert(asked.number, Answer { text: model.decode(&ids), ids, logprobs });
        }
        let asked: Vec<Asked> =
            self.asked.iter().filter(|a| answers.contains_key(&a.number)).cloned().collect();
        let answers: Vec<Answer> = answers.into_values().collect();
        let seen = replay(self.reference, &asked, Class::Greedy, "skipped-eos", false, &answers).await?;
        self.seen.extend(seen);
        Ok(())
    }

    async fn replay(
        &mut self,
        class: Class,
        condition: &str,
        honest: bool,
        answers: &[Answer],
    ) -> Result<(), CalibrateError> {
        let seen = replay(self.reference, self.asked, class, condition, honest, answers).await?;
        self.seen.extend(seen);
        Ok(())
    }
}

/// Every answer as ids, and where the class has margins as text alone too.
async fn replay(
    reference: &TextModel,
    asked: &[Asked],
    class: Class,
    condition: &str,
    honest: bool,
    answers: &[Answer],
) -> Result<Vec<Observed>, CalibrateError> {
    let eos = reference.eos_ids();
    let mut jobs = Vec::new();
    for (asked, answer) in asked.iter().zip(answers).filter(|(_, a)| !a.ids.is_empty()) {
        let ended = answer.ids.last().is_some_and(|id| eos.contains(id));
        let text = Completion::Text { text: answer.text.clone(), finished: ended };
        let wanted = class != Class::Unseeded && asked.number % AS_TEXT < 2 && !answer.text.is_empty();
        let text = wanted.then_some(text);
        for completion in [Some(Completion::Ids(answer.ids.clone())), text].into_iter().flatten() {
            jobs.push(observe(reference, asked, class, condition, honest, answer, completion));
        }
    }
    try_join_all(jobs).await
}

async fn observe(
    reference: &TextModel,
    asked: &Asked,
    class: Class,
    condition: &str,
    honest: bool,
    answer: &Answer,
    completion: Completion,
) -> Result<Observed, CalibrateError> {
    let request = ReplayRequest {
        prompt: Prompt::Messages(asked.messages.clone()),
        completion,
        sampler: asked.sampler(class),
        top: 0,
    };
    let replay = reference.replay(request).await?;
    let surprise: Vec<f64> = match class {
        Class::Unseeded => replay.logprob.iter().zip(&replay.entropy).map(|(l, h)| -l - h).collect(),
        _ => replay.margin.clone(),
    };
    let inside = |(x, inside): (&f64, &bool)| if *inside { *x } else { f64::INFINITY };
    let statistic: Vec<f64> = surprise.iter().zip(&replay.in_support).map(inside).collect();
    let ending = if replay.retokenised { ".text" } else { "" };
    Ok(Observed {
        class: format!("{class:?}{ending}").to_lowercase(),
        condition: condition.to_owned(),
        honest,
        exchange: asked.number,
        same: statistic.iter().map(|x| class != Class::Unseeded && *x <= 0.0).collect(),
        statistic,
        rank: replay.rank,
        logprob: replay.logprob,
        claimed: if replay.retokenised { Vec::new() } else { answer.logprobs.clone() },
        temperature: if class == Class::Greedy { 0.0 } else { asked.temperature },
        features: std::collections::BTreeMap::new(),
        violation: None,
    })
}

impl Answer {
    fn of(tokens: Vec<GeneratedToken>) -> Self {
        let mut answer = Self { ids: Vec::new(), text: String::new(), logprobs: Vec::new() };
        for token in tokens {
            answer.ids.push(token.id);
            answer.text.push_str(&token.text);
            answer.logprobs.push(token.logprob.unwrap_or(0.0));
        }
        answer
    }
}

const fn wanted(prompt: Prompt, sampler: Sampler, max_tokens: u32) -> GenerateRequest {
    GenerateRequest { prompt, max_tokens, sampler, logprobs: true, stop: Vec::new() }
}

fn hidden(messages: &[Message]) -> Vec<Message> {
    let system = Message { role: "system".into(), content: HIDDEN.into() };
    std::iter::once(system).chain(messages.iter().filter(|m| m.role != "system").cloned()).collect()
}

/// The last message without its first half.
fn truncated(messages: &[Message]) -> Vec<Message> {
    let mut messages = messages.to_vec();
    if let Some(last) = messages.last_mut() {
        let words: Vec<&str> = last.content.split(' ').collect();
        let rest = words.get(words.len() / 2..).unwrap_or_default().join(" ");
        last.content = if rest.is_empty() { ".".into() } else { rest };
    }
    messages
}

/// Stops after three fifths of the answer.
fn cut(answer: &Answer, eos: u32, model: &TextModel) -> Answer {
    let keep = (answer.ids.len() * 3 / 5).max(1).min(answer.ids.len());
    let said = answer.ids.get(..keep).unwrap_or_default();
    let mut logprobs = answer.logprobs.get(..keep).unwrap_or_default().to_vec();
    logprobs.push(0.0);
    Answer { ids: [said, &[eos]].concat(), text: model.decode(said), logprobs }
}

fn likelier(a: Answer, b: Answer) -> Answer {
    let mean = |a: &Answer| a.logprobs.iter().sum::<f64>() / a.logprobs.len().max(1) as f64;
    if mean(&b) > mean(&a) { b } else { a }
}
