"""Writes what was trained as it is served: ONNX in Hugging Face's layout for pipelines, one file and a manifest for the rest.

usage: export.py WORK OUT [NAME …]      names: world-scenes, world-portraits, world-clip, world-safety, world-faces, world-identity

Weights are stored in half precision with a cast behind them, so a file is half as large and computes in single precision.
"""
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn as nn
from onnx import TensorProto, helper, numpy_helper

import train

OPSET = 17
SMALL = 256  # values: what is smaller is not worth a cast
SOURCE = "tasks/models/world: train.py WORK COMMAND, then export.py WORK tasks/models/weights"


def halved(path):
    """Initializers of any size worth it in fp16, with a cast to fp32 that the runtime folds when it loads the graph."""
    model = onnx.load(path)
    graph, kept, casts = model.graph, [], []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and int(np.prod(tensor.dims)) >= SMALL:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            kept.append(numpy_helper.from_array(values, tensor.name + ".half"))
            casts.append(helper.make_node("Cast", [tensor.name + ".half"], [tensor.name], to=TensorProto.FLOAT))
        else:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    model.producer_name, model.producer_version = "nineteen", ""
    onnx.save(model, path)


def written(module, inputs, names, outputs, axes, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    module.eval()
    with torch.no_grad():
        torch.onnx.export(module, inputs, str(path), input_names=names, output_names=outputs, dynamic_axes=axes,
                          opset_version=OPSET, do_constant_folding=True, dynamo=False)
    halved(path)


class Text(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        out = self.model(input_ids=input_ids)
        return out.last_hidden_state, out.pooler_output


class Unet(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.model(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class Encode(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample):
        return torch.cat(self.model.moments(sample), 1)


class Decode(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, latent_sample):
        return self.model.decoder(latent_sample)


def pipeline(work, out, checkpoint, dimension=None):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    unet, projection, step = train.averaged(work, checkpoint, dimension)
    text = train.text_model(work)
    parts = train.load(work, "clip")["parts"]
    text.load_state_dict({k[5:]: v for k, v in parts.items() if k.startswith("text.")})
    text.config._attn_implementation = "eager"
    vae = train.finished(work, checkpoint)
    tokens = train.tokenizer(work)
    ids = torch.zeros(2, train.LENGTH, dtype=torch.long)
    written(Text(text), (ids,), ["input_ids"], ["last_hidden_state", "pooler_output"],
            {"input_ids": {0: "batch_size"}, "last_hidden_state": {0: "batch_size"}, "pooler_output": {0: "batch_size"}}, out / "text_encoder/model.onnx")
    latents, states = torch.randn(2, train.LATENTS, 8, 8), torch.randn(2, train.LENGTH, train.WIDTH)
    batch = {0: "batch_size", 2: "height", 3: "width"}
    written(Unet(unet), (latents, torch.tensor(7), states), ["sample", "timestep", "encoder_hidden_states"], ["out_sample"],
            {"sample": batch, "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"}, "out_sample": batch}, out / "unet/model.onnx")
    written(Decode(vae), (latents,), ["latent_sample"], ["sample"], {"latent_sample": batch, "sample": batch}, out / "vae_decoder/model.onnx")
    written(Encode(vae), (torch.randn(2, 3, 64, 64),), ["sample"], ["latent_parameters"], {"sample": batch, "latent_parameters": batch}, out / "vae_encoder/model.onnx")
    if projection:
        written(projection, (torch.randn(2, dimension),), ["image_embeds"], ["image_prompt_embeds"],
                {"image_embeds": {0: "batch_size"}, "image_prompt_embeds": {0: "batch_size"}}, out / "image_projection/model.onnx")
        (out / "image_projection/config.json").write_text(json.dumps(dict(image_embed_dim=dimension, num_image_text_embeds=train.TOKENS, cross_attention_dim=train.WIDTH), indent=2))
    factor = json.loads((work / "scale.json").read_text())["scaling_factor"]
    autoencoder = dict(_class_name="AutoencoderKL", block_out_channels=[32, 64, 64, 128], in_channels=3, out_channels=3, latent_channels=train.LATENTS,
                       sample_size=64, scaling_factor=factor, shift_factor=None, force_upcast=False)
    for folder in ("vae_decoder", "vae_encoder"):
        (out / folder / "config.json").write_text(json.dumps(autoencoder, indent=2))
    (out / "text_encoder/config.json").write_text(text.config.to_json_string())
    unet.save_config(out / "unet")
    tokens.save_pretrained(out / "tokenizer")
    (out / "tokenizer/added_tokens.json").unlink(missing_ok=True)
    (out / "scheduler").mkdir()
    from diffusers import DDIMScheduler
    DDIMScheduler(**train.SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
                  timestep_spacing="trailing").save_config(out / "scheduler")
    (out / "model_index.json").write_text(json.dumps(dict(
        _class_name="StableDiffusionPipeline", _diffusers_version="0.35.2", _name_or_path=out.name, feature_extractor=[None, None],
        image_encoder=[None, None], requires_safety_checker=False, safety_checker=[None, None], scheduler=["diffusers", "DDIMScheduler"],
        text_encoder=["transformers", "CLIPTextModel"], tokenizer=["transformers", "CLIPTokenizer"], unet=["diffusers", "UNet2DConditionModel"],
        vae=["diffusers", "AutoencoderKL"]), indent=2) + "\n")
    manifest(out, f'kind = "diffusion"\nprecision = "fp32"\nnote = "{step} steps of training; weights stored in half precision"\n')


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(out, head, tables=""):
    files = {p.relative_to(out).as_posix(): p for p in sorted(out.rglob("*")) if p.is_file() and p.name != "model.toml"}
    digests = {name: sha256(path) for name, path in files.items()}
    # The host tells models apart by their source, so what was made is part of it.
    made = hashlib.sha256("".join(f"{n} {d}\n" for n, d in digests.items()).encode()).hexdigest()
    lines = [f'name = "{out.name}"', 'licence = "MIT"', f'source = "{SOURCE}; files sha256:{made}"', head.rstrip(), ""]
    lines += [tables.rstrip(), ""] if tables else []
    lines.append("[files]")
    lines += [f'"{name}" = {{ bytes = {path.stat().st_size}, sha256 = "{digests[name]}" }}' for name, path in files.items()]
    (out / "model.toml").write_text("\n".join(lines) + "\n")


INPUT = """[input]
name = "pixel_values"
width = 64
height = 64
layout = "nchw"
order = "rgb"
scale = 255.0
mean = [0.5, 0.5, 0.5]
deviation = [0.5, 0.5, 0.5]
"""


def vision(out, module, outputs, tables):
    shutil.rmtree(out, ignore_errors=True)
    axes = {name: {0: "batch_size"} for name in ["pixel_values", *outputs]}
    written(module, (torch.randn(2, 3, 64, 64),), ["pixel_values"], outputs, axes, out / "model.onnx")
    manifest(out, 'kind = "vision"\nprecision = "fp32"\n', INPUT + "\n" + tables)


def clip(work, out):
    tower = train.Tower()
    parts = train.load(work, "clip")["parts"]
    tower.load_state_dict({k[6:]: v for k, v in parts.items() if k.startswith("tower.")})
    vision(out, tower, ["image_embeds"], f'[output]\nwhat = "vector"\nname = "image_embeds"\ndimension = {train.WIDTH}\nnormalise = true\n')


def safety(work, out):
    model = train.Safety()
    model.load_state_dict(train.load(work, "safety")["model"])
    vision(out, model, ["probabilities"], '[output]\nwhat = "classes"\nname = "probabilities"\nclasses = ["safe", "forbidden"]\n')


def found(work, out):
    model = train.Detector()
    model.load_state_dict(train.load(work, "faces")["model"])
    vision(out, model, ["scores", "boxes", "landmarks"], '[output]\nwhat = "faces"\nscores = "scores"\nboxes = "boxes"\nlandmarks = "landmarks"\n')


def identity(work, out):
    tower = train.identity_tower(work)
    template = ", ".join(f"[{x}, {y}]" for x, y in train.TEMPLATE)
    vision(out, tower, ["embedding"], f'[output]\nwhat = "vector"\nname = "embedding"\ndimension = 96\nnormalise = true\n\n[align]\ntemplate = [{template}]\n')


ALL = {
    "world-scenes": lambda work, out: pipeline(work, out, "unet"),
    "world-portraits": lambda work, out: pipeline(work, out, "likeness", 96),
    "world-clip": clip,
    "world-safety": safety,
    "world-faces": found,
    "world-identity": identity,
}


def main():
    if len(sys.argv) < 3 or any(n not in ALL for n in sys.argv[3:]):
        sys.exit(__doc__)
    work, out = Path(sys.argv[1]), Path(sys.argv[2])
    for name in sys.argv[3:] or ALL:
        ALL[name](work, out / name)
        print(name, sum(p.stat().st_size for p in (out / name).rglob("*") if p.is_file()) // 1024, "kB", flush=True)


if __name__ == "__main__":
    main()
