#!/usr/bin/env python3
"""Holds the models against what PyTorch and transformers computed, in Python's own ONNX Runtime.

usage: verify.py --models DIR [--fixtures DIR] [--speed]

The Rust executors are held against the same files by their own tests; this says whether the recipe is to blame.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer


def session(folder):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


class Chat:
    def __init__(self, folder):
        self.session = session(folder)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "config.json").read_text())
        self.layers, self.kv, self.head = (config[k] for k in ("num_hidden_layers", "num_key_value_heads", "head_dim"))
        self.template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]

    def render(self, messages):
        import jinja2

        env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        return env.from_string(self.template).render(messages=messages, add_generation_prompt=True)

    def run(self, ids, past=None, keep=0):
        done = 0 if past is None else past[0].shape[2]
        feed = dict(
            input_ids=np.array([ids], np.int64),
            attention_mask=np.ones((1, done + len(ids)), np.int64),
            position_ids=np.arange(done, done + len(ids), dtype=np.int64)[None],
            num_logits_to_keep=np.array(keep, np.int64),
        )
        empty = np.zeros((1, self.kv, 0, self.head), np.float32)
        for n in range(self.layers):
            feed[f"past_key_values.{n}.key"] = past[2 * n] if past else empty
            feed[f"past_key_values.{n}.value"] = past[2 * n + 1] if past else empty
        logits, *present = self.session.run(None, feed)
        return logits[0], present

    def greedy(self, ids, count):
        out, past = [], None
        for _ in range(count):
            logits, past = self.run(ids if past is None else out[-1:], past, 1)
            out.append(int(logits[-1].argmax()))
        return out


def check_chat(folder, fixture):
    chat, worst = Chat(folder), dict(logprob=0.0, entropy=0.0)
    for case in fixture["cases"]:
        assert chat.render(case["messages"]) == case["rendered"], "rendering"
        ids = chat.tokenizer.encode(case["rendered"], add_special_tokens=False).ids
        assert ids == case["prompt_ids"], "prompt ids"
        assert chat.greedy(ids, len(case["greedy"])) == case["greedy"], "greedy tokens"
        assert chat.tokenizer.decode(case["greedy"], skip_special_tokens=False) == case["greedy_text"], "text"
        n = len(case["greedy"])
        logits = chat.run(ids + case["greedy"][:-1], keep=n)[0].astype(np.float64)
        assert logits.shape[0] == n, "rows"
        logp = logits - logits.max(1, keepdims=True)
        logp -= np.log(np.exp(logp).sum(1, keepdims=True))
        entropy = -(np.exp(logp) * logp).sum(1)
        for t, want in enumerate(case["tokens"]):
            worst["logprob"] = max(worst["logprob"], abs(logp[t, want["id"]] - want["logprob"]))
            worst["entropy"] = max(worst["entropy"], abs(entropy[t] - want["entropy"]))
            assert int((logp[t] > logp[t, want["id"]]).sum()) == want["rank"], "rank"
            assert [i for i, _ in want["top5"]] == np.argsort(-logp[t], kind="stable")[:5].tolist(), "top 5"
    assert worst["logprob"] <= 2e-3 and worst["entropy"] <= 5e-3, worst
    return chat, worst


def check_embedding(folder, fixture):
    s, tokenizer = session(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    component, cosine = 0.0, 1.0
    for row in fixture["rows"]:
        ids = tokenizer.encode(row["text"]).ids
        assert ids == row["ids"], row["text"]
        x = np.array([ids], np.int64)
        y = s.run(None, dict(input_ids=x, attention_mask=np.ones_like(x), token_type_ids=np.zeros_like(x)))[0][0]
        v = y.mean(0)
        v /= np.linalg.norm(v)
        want = np.array(row["embedding"])
        component = max(component, np.abs(v - want).max())
        cosine = min(cosine, float(v @ want / np.linalg.norm(v) / np.linalg.norm(want)))
    assert component <= 2e-5 and cosine >= 0.999999, (component, cosine)
    return component, cosine


def speed(chat):
    """Replay of 128 tokens behind 64 of prompt, against generating them: one thread, best of three."""
    prompt = list(range(1000, 1064))
    generate, replay = [], []
    for _ in range(3):
        begun = time.perf_counter()
        out = chat.greedy(prompt, 128)
        generate.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        chat.run(prompt + out[:-1], keep=128)
        replay.append(time.perf_counter() - begun)
    return min(generate), min(replay)


def int8_margins(chat, folder, fixture):
    """What the int8 model's greedy answers cost under the fp32 model, in nats a token."""
    other, margins = Chat(folder), []
    for case in fixture["cases"]:
        out = other.greedy(case["prompt_ids"], 48)
        logits = chat.run(case["prompt_ids"] + out[:-1], keep=48)[0]
        margins += [float(row.max() - row[y]) for row, y in zip(logits, out)]
    return margins


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--fixtures", type=Path, default=Path(__file__).resolve().parents[2] / "tests" / "fixtures")
    parser.add_argument("--speed", action="store_true")
    args = parser.parse_args()
    read = lambda name: json.loads((args.fixtures / name).read_text())
    component, cosine = check_embedding(args.models / "all-minilm-l6-v2", read("minilm.json"))
    print(f"all-minilm-l6-v2: ids exact, components within {component:.1e}, cosine at least {cosine:.9f}")
    fixture = read("smollm2.json")
    chat, worst = check_chat(args.models / "smollm2-135m-instruct", fixture)
    print(f"smollm2-135m-instruct: rendering, ids, greedy, ranks exact; log-probability within {worst['logprob']:.1e}, "
          f"entropy within {worst['entropy']:.1e}")
    if args.speed:
        generate, replay = speed(chat)
        print(f"128 tokens behind 64: generated in {generate:.2f} s, replayed in {replay:.3f} s: {generate / replay:.1f} x")
        margins = int8_margins(chat, args.models / "smollm2-135m-instruct-int8", fixture)
        print(f"int8 under fp32: mean margin {np.mean(margins):.4f} nats, {np.mean(np.array(margins) > 1e-3):.1%} above 0.001")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        print(f"verify.py: differs from the reference: {error}", file=sys.stderr)
        sys.exit(1)
