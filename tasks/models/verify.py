#!/usr/bin/env python3
"""Holds the models against what PyTorch and transformers computed, in Python's own ONNX Runtime.

usage: verify.py --models DIR [--fixtures DIR] [--speed]

Exit code 1: a model differs. Exit code 2: it could not be tried.

The Rust executors are held against the same files by their own tests; this says whether the recipe is to blame.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
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


def check_shapes(chat, fixture):
    """What the fixtures do not ask: batches with padding on either side, a cache in pieces, rows kept or all."""
    cases = sorted(fixture["cases"], key=lambda case: len(case["prompt_ids"]))[:3]
    rows = [case["prompt_ids"] for case in cases]
    alone = [chat.run(ids)[0] for ids in rows]
    longest, worst = max(map(len, rows)), 0.0
    empty = np.zeros((len(rows), chat.kv, 0, chat.head), np.float32)
    for side in ("left", "right"):
        ids, mask = np.full((len(rows), longest), 2, np.int64), np.zeros((len(rows), longest), np.int64)
        for r, row in enumerate(rows):
            at = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
            ids[r, at], mask[r, at] = row, 1
        feed = dict(input_ids=ids, attention_mask=mask, num_logits_to_keep=np.array(0, np.int64))
        feed["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)
        feed |= {f"past_key_values.{n}.{part}": empty for n in range(chat.layers) for part in ("key", "value")}
        logits, *present = chat.session.run(None, feed)
        assert np.isfinite(logits).all() and logits.shape[:2] == ids.shape, f"{side} padding"
        for r, row in enumerate(rows):
            worst = max(worst, np.abs(logits[r][mask[r] == 1] - alone[r]).max())
        # One more token for every row, behind a cache that has the padding in it.
        step = np.array([[case["greedy"][0]] for case in cases], np.int64)
        feed = dict(input_ids=step, attention_mask=np.concatenate([mask, np.ones_like(step)], 1),
                    position_ids=mask.sum(1, keepdims=True), num_logits_to_keep=np.array(1, np.int64))
        for n in range(chat.layers):
            feed[f"past_key_values.{n}.key"], feed[f"past_key_values.{n}.value"] = present[2 * n : 2 * n + 2]
        logits = chat.session.run(None, feed)[0]
        for r, case in enumerate(cases):
            want = chat.run(case["prompt_ids"] + case["greedy"][:1], keep=1)[0]
            worst = max(worst, np.abs(logits[r] - want).max())
    row = rows[-1]
    half = len(row) // 2
    _, past = chat.run(row[:half], keep=1)
    second = chat.run(row[half:], past)[0]
    worst = max(worst, np.abs(second - alone[-1][half:]).max(), np.abs(chat.run(row, keep=5)[0] - alone[-1][-5:]).max())
    assert worst <= 2e-3, f"padding, pieces or rows move a logit by {worst}"
    return worst


def check_embedding(folder, fixture):
    s, tokenizer = session(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    component, cosine, alone = 0.0, 1.0, []
    for row in fixture["rows"]:
        ids = tokenizer.encode(row["text"]).ids
        assert ids == row["ids"], row["text"]
        x = np.array([ids], np.int64)
        y = s.run(None, dict(input_ids=x, attention_mask=np.ones_like(x), token_type_ids=np.zeros_like(x)))[0][0]
        alone.append(y)
        v = y.mean(0)
        v /= np.linalg.norm(v)
        want = np.array(row["embedding"])
        component = max(component, np.abs(v - want).max())
        cosine = min(cosine, float(v @ want / np.linalg.norm(v) / np.linalg.norm(want)))
    # All rows as one batch, padded: what is beside a text must not move it.
    lengths = [len(row["ids"]) for row in fixture["rows"]]
    x = np.array([row["ids"] + [0] * (max(lengths) - n) for row, n in zip(fixture["rows"], lengths)], np.int64)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    batch = s.run(None, dict(input_ids=x, attention_mask=mask, token_type_ids=np.zeros_like(x)))[0]
    moved = max(np.abs(batch[r, : len(y)] - y).max() for r, y in enumerate(alone))
    assert moved <= 1e-4, f"a batch moves a state by {moved}"
    assert component <= 2e-5 and cosine >= 0.999999, (component, cosine)
    return component, cosine


def speed(chat):
    """Replay of 128 tokens behind 64 of prompt, against generating them.

    One thread, its processor time, best of three: the clock would count what else the machine does.
    """
    prompt = list(range(1000, 1064))
    generate, replay = [], []
    for _ in range(3):
        begun = time.process_time()
        out = chat.greedy(prompt, 128)
        generate.append(time.process_time() - begun)
        begun = time.process_time()
        chat.run(prompt + out[:-1], keep=128)
        replay.append(time.process_time() - begun)
    return min(generate), min(replay)


def rounded(folder, how, out):
    """A copy of a model with its weights rounded to fp16 or bf16, kept as fp32: what half precision alone costs."""
    model = onnx.load(str(folder / "model.onnx"))
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype != np.float32 or weights.size < 1000:
            continue
        if how == "fp16":
            near = weights.astype(np.float16).astype(np.float32)
        else:
            bits = weights.view(np.uint32)
            near = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(near, tensor.name))
    onnx.save(model, str(out / "model.onnx"), save_as_external_data=True, location="weights")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, out / name)
    return out


def margins(chat, folder, fixture):
    """What the greedy answers of the model in this folder cost under the fp32 model, in nats a token."""
    other, found = Chat(folder), []
    for case in fixture["cases"]:
        out = other.greedy(case["prompt_ids"], 48)
        logits = chat.run(case["prompt_ids"] + out[:-1], keep=48)[0]
        found += [float(row.max() - row[y]) for row, y in zip(logits, out)]
    return np.array(found)


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
    worst = check_shapes(chat, fixture)
    print(f"padding left and right, caches in pieces, rows kept: logits within {worst:.1e}")
    if args.speed:
        generate, replay = speed(chat)
        print(f"128 tokens behind 64: generated in {generate:.2f} s, replayed in {replay:.3f} s: {generate / replay:.1f} x")
        fp32 = args.models / "smollm2-135m-instruct"
        with tempfile.TemporaryDirectory() as made:
            others = {how: Path(made) / how for how in ("fp16", "bf16")}
            for how, out in others.items():
                out.mkdir()
                rounded(fp32, how, out)
            others["int8"] = args.models / "smollm2-135m-instruct-int8"
            for how, folder in others.items():
                cost = margins(chat, folder, fixture)
                print(f"{how} under fp32: mean margin {cost.mean():.5f} nats, worst {cost.max():.3f}, "
                      f"{np.mean(cost > 1e-3):.1%} above 0.001")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        print(f"verify.py: differs from the reference: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        print(f"verify.py: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
