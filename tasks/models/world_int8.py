"""A pipeline whose denoiser has dynamically quantised int8 matrices: what a miner that cheats would serve.

Tests and the demo's int8 miner use it. No task may name it.
"""

import logging
import shutil

ENDING = "-int8"
GRAPH = "unet/model.onnx"


def widened(model):
    """Weights that are stored in half precision, as the single precision they are computed in."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    halves = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    casts = [n for n in graph.node if n.op_type == "Cast" and n.input[0] in halves]
    for cast in casts:
        values = numpy_helper.to_array(halves[cast.input[0]]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, cast.output[0]))
        graph.node.remove(cast)
    for name in {cast.input[0] for cast in casts}:
        graph.initializer.remove(halves[name])
    return model


def derive(source, files, folder, temporary, tell):
    """Writes these files of `source` with an int8 denoiser to `folder`, which is empty."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name != GRAPH:
            shutil.copyfile(source / name, folder / name)
    tell("quantising")
    logging.getLogger().setLevel(logging.ERROR)  # it advises a pre-processing that changes nothing here
    wide = temporary / "fp32.onnx"
    onnx.save(widened(onnx.load(source / GRAPH)), wide)
    quantize_dynamic(str(wide), str(folder / GRAPH), op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
