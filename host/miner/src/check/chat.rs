//! Chat: the whole reply, the stream, and whether the two agree.

use nineteen_domain::Exchange;
use nineteen_domain::ledger::ProbeClass;
use nineteen_wire::schema::Schema;
use serde_json::{Value, json};

use super::{CHAT, Probe, Report, Status, describe, header, parsed, schema};

const MAX_TOKENS: u32 = 24;

fn request(model: &str, temperature: f64, stream: bool) -> Value {
    let mut body = json!({
        "model": model,
        "messages": [
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": "Which colours does a rainbow have?"},
        ],
        "max_tokens": MAX_TOKENS, "temperature": temperature, "top_p": 0.95, "top_k": 40,
        "seed": 4_503_599_627_370_497_u64, "request_id": "00c0ffee00c0ffee",
        "stream": stream, "logprobs": true, "return_token_ids": true,
    });
    if let Some(body) = body.as_object_mut().filter(|_| stream) {
        body.insert("stream_options".into(), json!({"include_usage": true}));
    }
    body
}

/// What a reply said, whole or streamed.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    ids: Vec<u64>,
    logprobs: usize,
    finish: Vec<String>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    sampler: Option<String>,
}

impl Said {
    fn take(&mut self, value: &Value, text: &str) {
        if let Some(choice) = value.pointer("/choices/0") {
            self.text.push_str(choice.pointer(text).and_then(Value::as_str).unwrap_or(""));
            let list = |path: &str| choice.pointer(path).and_then(Value::as_array);
            self.ids.extend(list("/token_ids").into_iter().flatten().filter_map(Value::as_u64));
            self.logprobs += list("/logprobs/content").map_or(0, Vec::len);
            self.finish.extend(choice.get("finish_reason").and_then(Value::as_str).map(str::to_owned));
        }
        let usage = |key: &str| value.get("usage")?.get(key)?.as_u64();
        self.prompt_tokens = usage("prompt_tokens").or(self.prompt_tokens);
        self.completion_tokens = usage("completion_tokens").or(self.completion_tokens);
        self.total_tokens = usage("total_tokens").or(self.total_tokens);
        let sampler = value.pointer("/nineteen/sampler").and_then(Value::as_str);
        self.sampler = self.sampler.take().or_else(|| sampler.map(str::to_owned));
    }

    /// Lines that hold for whole and streamed replies alike.
    fn consistent(&self, prefix: &str, report: &mut Report) {
        let n = self.ids.len() as u64;
        report.hold(
            format!("{prefix}.usage"),
            self.completion_tokens == Some(n)
                && self.prompt_tokens.is_some_and(|p| p > 0 && self.total_tokens == Some(p + n)),
            Status::Fail,
            format!("{n} token ids; usage {:?} + {:?} = {:?}", self.prompt_tokens, self.completion_tokens, self.total_tokens),
            "completion_tokens counts the sampled tokens, a final end-of-sequence token included; total is the sum",
        );
        report.hold(
            format!("{prefix}.logprobs"),
            self.logprobs as u64 == n,
            Status::Fail,
            format!("{} log-probabilities for {n} tokens", self.logprobs),
            "one entry of logprobs.content for each token id",
        );
        report.hold(
            format!("{prefix}.length"),
            (1..=u64::from(MAX_TOKENS)).contains(&n),
            Status::Fail,
            format!("{n} of at most {MAX_TOKENS} tokens"),
            "max_tokens bounds the sampled tokens",
        );
        let right = match self.finish.as_slice() {
            [one] => one != "length" || n == u64::from(MAX_TOKENS),
            _ => false,
        };
        report.hold(
            format!("{prefix}.finish"),
            right,
            Status::Fail,
            format!("{:?} after {n} tokens", self.finish),
            "finish_reason comes exactly once: length after max_tokens tokens, else stop",
        );
    }
}

pub(super) async fn check(probe: &Probe, model: &str, report: &mut Report) {
    let prefix = "chat";
    let whole = whole(probe, model, report).await;
    let streamed = stream(probe, model, report).await;
    let (Some(whole), Some(streamed)) = (whole, streamed) else { return };
    report.hold(
        format!("{prefix}.greedy"),
        whole.ids == streamed.ids && whole.text == streamed.text,
        Status::Warn,
        if whole.ids == streamed.ids { "the same twice" } else { "two answers to one greedy request" },
        "at temperature 0 the largest logit wins; another answer each time costs quality",
    );
    let seeded = [seeded(probe, model).await, seeded(probe, model).await];
    let [Some(a), Some(b)] = seeded else {
        report.add(format!("{prefix}.seeded"), Status::Fail, "no reply", "serve temperature above 0 too");
        return;
    };
    if a.sampler.as_deref() == Some("unseeded") {
        let advice = "allowed; validators then judge by distribution, which tells less in the miner's favour";
        report.add(format!("{prefix}.seeded"), Status::Warn, "declared as unseeded", advice);
    } else {
        report.hold(
            format!("{prefix}.seeded"),
            a.ids == b.ids,
            Status::Fail,
            if a.ids == b.ids { "the same twice" } else { "two answers to one seed and request_id" },
            "draw as docs/protocol.md says, or declare {\"nineteen\": {\"sampler\": \"unseeded\"}}",
        );
    }
}

async fn seeded(probe: &Probe, model: &str) -> Option<Said> {
    let reply = probe.post(CHAT, &request(model, 0.9, false)).await;
    let mut said = Said::default();
    said.take(&parsed(&reply).filter(|_| reply.status == 200)?, "/message/content");
    Some(said)
}

async fn whole(probe: &Probe, model: &str, report: &mut Report) -> Option<Said> {
    let prefix = "chat.whole";
    let reply = probe.post(CHAT, &request(model, 0.0, false)).await;
    let answered = ProbeClass::of(&reply) == ProbeClass::Answered;
    let advice = "POST /v1/chat/completions with this model has to give 200";
    if !report.hold(format!("{prefix}.answers"), answered, Status::Fail, describe(&reply), advice) {
        return None;
    }
    let value = parsed(&reply);
    schema(report, format!("{prefix}.schema"), Schema::ChatReply, value.as_ref());
    let mut said = Said::default();
    said.take(&value?, "/message/content");
    said.consistent(prefix, report);
    Some(said)
}

/// The `data` of the events, and whether all of the text was events.
fn events(body: &str) -> (Vec<String>, bool) {
    let text = body.replace("\r\n", "\n").replace('\r', "\n");
    let whole = text.ends_with("\n\n");
    let events = text
        .split("\n\n")
        .filter_map(|event| {
            let data: Vec<&str> = event
                .lines()
                .filter_map(|l| l.strip_prefix("data:"))
                .map(|l| l.strip_prefix(' ').unwrap_or(l))
                .collect();
            (!data.is_empty()).then(|| data.join("\n"))
        })
        .collect();
    (events, whole)
}

async fn stream(probe: &Probe, model: &str, report: &mut Report) -> Option<Said> {
    let prefix = "chat.stream";
    let reply = probe.post(CHAT, &request(model, 0.0, true)).await;
    let answered = ProbeClass::of(&reply) == ProbeClass::Answered;
    let advice = "with stream: true the reply is 200 and a stream of events that ends by itself";
    if !report.hold(format!("{prefix}.answers"), answered, Status::Fail, describe(&reply), advice) {
        return None;
    }
    media_type(&reply, prefix, report);
    let body = reply.body();
    let (events, whole) = events(&String::from_utf8_lossy(&body));
    let done = events.last().is_some_and(|e| e == "[DONE]")
        && events.iter().filter(|e| *e == "[DONE]").count() == 1
        && whole;
    let advice = "the last event is `data: [DONE]`, once, followed by a blank line; without it the reply counts as cut off";
    report.hold(format!("{prefix}.done"), done, Status::Fail, format!("{} events", events.len()), advice);
    let values: Vec<Option<Value>> =
        events.iter().filter(|e| *e != "[DONE]").map(|e| serde_json::from_str(e).ok()).collect();
    let wrong: Vec<String> = values
        .iter()
        .enumerate()
        .filter_map(|(i, v)| {
            let found = v.as_ref().map_or(Err(vec!["not JSON".into()]), |v| Schema::ChatChunk.check(v));
            Some(format!("event {i}: {}", found.err()?.join("; ")))
        })
        .take(3)
        .collect();
    let seen = if wrong.is_empty() { Schema::ChatChunk.file().to_owned() } else { wrong.join("; ") };
    let advice = "see docs/schemas/chat-chunk.json";
    report.hold(format!("{prefix}.schema"), wrong.is_empty(), Status::Fail, seen, advice);
    let values: Vec<Value> = values.into_iter().flatten().collect();
    order(&values, prefix, report);
    let mut said = Said::default();
    values.iter().for_each(|v| said.take(v, "/delta/content"));
    said.consistent(prefix, report);
    report.hold(
        format!("{prefix}.pieces"),
        reply.chunks.len() > 1,
        Status::Warn,
        format!("{} reads from the socket", reply.chunks.len()),
        "the stream came in one piece: send each event as it is made, set TCP_NODELAY, and let no proxy buffer it; speed is measured from arrival",
    );
    Some(said)
}

fn media_type(reply: &Exchange, prefix: &str, report: &mut Report) {
    let found = header(reply, "content-type").unwrap_or("none");
    let right = found.to_ascii_lowercase().starts_with("text/event-stream");
    report.hold(format!("{prefix}.type"), right, Status::Fail, found, "content-type is text/event-stream");
}

/// Content, then the reason of the end, then usage without choices.
fn order(values: &[Value], prefix: &str, report: &mut Report) {
    let choices = |v: &Value| v.get("choices").and_then(Value::as_array).map_or(0, Vec::len);
    let is_usage = |v: &Value| choices(v) == 0 && v.get("usage").is_some_and(Value::is_object);
    let usage_last = values.last().is_some_and(is_usage);
    let last_choice = values.iter().rposition(|v| choices(v) > 0);
    let finish =
        values.iter().position(|v| v.pointer("/choices/0/finish_reason").is_some_and(Value::is_string));
    report.hold(
        format!("{prefix}.order"),
        usage_last && finish.is_some() && finish == last_choice,
        Status::Fail,
        format!("{} events; finish at {finish:?}, last choice at {last_choice:?}, usage last: {usage_last}", values.len()),
        "finish_reason on the last event with a choice, then one event with usage and no choices, then [DONE]",
    );
}

#[cfg(test)]
mod tests {
    use super::events;

    #[test]
    fn events_are_read_in_every_line_ending() {
        for nl in ["\n", "\r\n", "\r"] {
            let text = format!(": hi{nl}{nl}data: a{nl}data:b{nl}{nl}data: [DONE]{nl}{nl}");
            assert_eq!(events(&text), (vec!["a\nb".to_owned(), "[DONE]".to_owned()], true));
        }
        assert!(!events("data: a\n").1);
    }
}
