"""Texts a second of Python's onnxruntime, for the bench beside this file.

usage: embed.py MODEL_FOLDER TEXTS_JSON ROUNDS
One thread, batches of 32 texts sorted by length, mean pooling and normalisation included: what the executor does.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

folder, texts, rounds = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3])
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
names = {i.name for i in session.get_inputs()}
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(256)


def embed(texts):
    encoded = [tokenizer.encode(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i].ids))
    rows = [None] * len(texts)
    for start in range(0, len(order), 32):
        batch = order[start : start + 32]
        width = max(len(encoded[i].ids) for i in batch)
        ids = np.zeros((len(batch), width), np.int64)
        mask = np.zeros((len(batch), width), np.int64)
        for row, i in enumerate(batch):
            n = len(encoded[i].ids)
            ids[row, :n] = encoded[i].ids
            mask[row, :n] = 1
        feeds = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in names:
            feeds["token_type_ids"] = np.zeros_like(ids)
        hidden = session.run(None, feeds)[0]
        weights = mask[:, :, None].astype(np.float32)
        pooled = (hidden * weights).sum(1) / weights.sum(1)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        for row, i in enumerate(batch):
            rows[i] = pooled[row]
    return rows


embed(texts)
times = []
for _ in range(rounds):
    begun = time.perf_counter()
    embed(texts)
    times.append(time.perf_counter() - begun)
print(len(texts) / statistics.median(times))
