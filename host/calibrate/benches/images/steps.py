"""Seconds of one picture with Python's onnxruntime, for the bench beside this file.

usage: steps.py PIPELINE_FOLDER STEPS ROUNDS
One thread; the text encoder twice, the denoiser STEPS times on a batch of two, the decoder once: what the executor runs, with
no more arithmetic between the graphs than guidance takes. Prints the median in seconds.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import onnxruntime as ort

folder, steps, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def session(name):
    return ort.InferenceSession(str(folder / name / "model.onnx"), options, providers=["CPUExecutionProvider"])


text, unet, decoder = session("text_encoder"), session("unet"), session("vae_decoder")
length = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())["model_max_length"]
channels = json.loads((folder / "unet" / "config.json").read_text())["in_channels"]
types = {i.name: i.type for i in unet.get_inputs()}
ids = np.ones((1, length), np.int64)
rng = np.random.default_rng(0)


def picture():
    states = np.concatenate([text.run(["last_hidden_state"], {"input_ids": ids})[0] for _ in range(2)])
    x = rng.standard_normal((1, channels, 8, 8), dtype=np.float32)
    for step in range(steps):
        t = np.array(999 - step, np.int64 if "int64" in types["timestep"] else np.float32)
        out = unet.run(None, {"sample": np.concatenate([x, x]), "timestep": t, "encoder_hidden_states": states})[0]
        x = 0.98 * x - 0.02 * (out[:1] + 3 * (out[1:] - out[:1]))
    return decoder.run(None, {"latent_sample": x})[0]


picture()
times = []
for _ in range(rounds):
    begun = time.perf_counter()
    picture()
    times.append(time.perf_counter() - begun)
print(statistics.median(times))
