"""SmolLM2-135M-Instruct with dynamically quantised int8 weights: what a miner that cheats would serve.

All 121 matrices are int8, the head too (it is untied for that, because the quantiser would transpose the embedding
with it). Tests and the demo's int8 miner use it. No task may name it.
"""

import logging

import smollm2
from onnx_graph import save

NAME = "smollm2-135m-instruct-int8"
WHEEL = smollm2.WHEEL


def make(sources, folder, tell):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    m, tensor = smollm2.load(sources)
    original = sources.temporary / "fp32"
    original.mkdir()
    graph = smollm2.build(m, tensor, tell, tied=False)
    tell("writing the fp32 graph")
    save(graph, original, external=True)
    del graph
    tell("quantising")
    logging.getLogger().setLevel(logging.ERROR)  # it advises a pre-processing that changes nothing here
    quantize_dynamic(
        str(original / "model.onnx"),
        str(folder / "model.onnx"),
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
    )
    smollm2.write_texts(m, folder)
    return dict(
        kind="text", precision="int8-dynamic", eos_ids=[m.eos], context=m.context,
        note="a cheat's model, for tests and the demo; no task may name it",
    )
