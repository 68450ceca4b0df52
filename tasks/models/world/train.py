"""Trains the models of the drawn worlds; every command goes on where it was stopped.

usage: train.py WORK data|tokenizer|clip|vae|latents|unet|avatar|identity|polish|likeness|faces|safety [--samples N] [--threads N]
"""
import argparse
import json
import math
import os
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import faces
import scenes

HERE = Path(__file__).resolve().parent
LENGTH = 24
WIDTH = 128
LATENTS = 8
SCENES, PEOPLE, LOOKS = 60_000, 6_000, 6


def save(work, name, state):
    part = work / f".{name}.part"
    torch.save(state, part)
    os.replace(part, work / f"{name}.pt")


def load(work, name):
    path = work / f"{name}.pt"
    return torch.load(path, map_location="cpu", weights_only=False) if path.exists() else None


# ---- data

def scene_block(seed):
    rng = np.random.default_rng((19, seed))
    made = [scenes.scene(rng) for _ in range(500)]
    return np.stack([scenes.draw(s) for s in made]), made


def face_block(seed):
    rng = np.random.default_rng((23, seed))
    pictures, whos, hows, marks = [], [], [], []
    for _ in range(50):
        who = faces.identity(rng)
        for _ in range(LOOKS):
            how = faces.nuisance(rng)
            picture, points = faces.draw(who, how)
            pictures.append(picture), whos.append(who), hows.append(how), marks.append(points)
    return np.stack(pictures), whos, hows, np.stack(marks)


def data(work, _):
    with Pool(2) as pool:
        if not (work / "scenes.json").exists():
            blocks = pool.map(scene_block, range(SCENES // 500))
            np.save(work / "scenes.npy", np.concatenate([b[0] for b in blocks]))
            (work / "scenes.json").write_text(json.dumps([s for b in blocks for s in b[1]]))
        if not (work / "faces.json").exists():
            blocks = pool.map(face_block, range(PEOPLE // 50), chunksize=1)
            np.save(work / "faces.npy", np.concatenate([b[0] for b in blocks]))
            np.save(work / "marks.npy", np.concatenate([b[3] for b in blocks]))
            (work / "faces.json").write_text(json.dumps([[b[1], b[2]] for b in blocks]))


def world(work):
    pictures = np.load(work / "scenes.npy", mmap_mode="r")
    return pictures, json.loads((work / "scenes.json").read_text())


def people(work):
    blocks = json.loads((work / "faces.json").read_text())
    whos = [w for b in blocks for w in b[0]]
    hows = [h for b in blocks for h in b[1]]
    return np.load(work / "faces.npy", mmap_mode="r"), whos, hows, np.load(work / "marks.npy")


def pixels(batch):
    return torch.from_numpy(np.ascontiguousarray(batch)).float().permute(0, 3, 1, 2) / 127.5 - 1


# ---- tokenizer: CLIP's byte pairs over the words that the worlds' captions use

def captions_of_everything():
    rng = np.random.default_rng(0)
    for _ in range(4000):
        yield scenes.caption(scenes.scene(rng, .1), rng)[0]
        yield faces.caption(faces.nuisance(rng), rng)[0]


def tokenizer(work, _=None):
    from transformers import CLIPTokenizer
    from transformers.models.clip.tokenization_clip import bytes_to_unicode
    folder = work / "tokenizer"
    if not folder.exists():
        import re
        words = sorted({w for c in captions_of_everything() for w in re.findall(r"[a-z]+", c)} | {
            "and", "the", "photograph", "picture", "drawing", "with", "of", "background", "blurry", "ugly", "low", "quality", "text", "two"})
        letters = list(bytes_to_unicode().values())
        merges = []
        # One word after the other: what the merges so far make of it, joined from the left.
        def pieces(word):
            parts = list(word[:-1]) + [word[-1] + "</w>"]
            for a, b in merges:
                i = 0
                while i < len(parts) - 1:
                    if parts[i] == a and parts[i + 1] == b:
                        parts[i:i + 2] = [a + b]
                    i += 1
            return parts
        for _ in range(64):
            unfinished = [w for w in words if len(pieces(w)) > 1]
            if not unfinished:
                break
            for w in unfinished:
                parts = pieces(w)
                while len(parts) > 1:
                    merges.append((parts[-2], parts[-1]))
                    parts = pieces(w)
        vocabulary = letters + [x + "</w>" for x in letters] + ["".join(m) for m in merges]
        vocabulary = list(dict.fromkeys(vocabulary)) + ["<|startoftext|>", "<|endoftext|>"]
        tmp = work / "tok"
        tmp.mkdir(exist_ok=True)
        (tmp / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocabulary)}, ensure_ascii=False))
        (tmp / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
        made = CLIPTokenizer(str(tmp / "vocab.json"), str(tmp / "merges.txt"), model_max_length=LENGTH)
        wrong = [w for w in words if len(made(w).input_ids) != 3]
        print("vocabulary", len(vocabulary), "merges", len(merges), "words in pieces:", wrong)
        made.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


class Words:
    """Captions to ids; the worlds' captions repeat, so they are kept."""

    def __init__(self, work):
        self.tokenizer, self.known = tokenizer(work), {}

    def __call__(self, texts):
        new = [t for t in set(texts) if t not in self.known]
        if new:
            ids = self.tokenizer(new, padding="max_length", max_length=LENGTH, truncation=True).input_ids
            self.known.update(zip(new, ids))
        return torch.tensor([self.known[t] for t in texts])


# ---- text and image encoders

def text_model(work):
    from transformers import CLIPTextConfig, CLIPTextModel
    t = tokenizer(work)
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(t), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_attention_heads=4, num_hidden_layers=3,
        max_position_embeddings=LENGTH, projection_dim=WIDTH, bos_token_id=t.bos_token_id, eos_token_id=t.eos_token_id,
        pad_token_id=t.eos_token_id))


class Tower(nn.Module):
    """Pictures to vectors of length 1."""

    def __init__(self, dimension=WIDTH, widths=(16, 32, 64, 96)):
        super().__init__()
        layers, before = [], 3
        for w in widths:
            layers += [nn.Conv2d(before, w, 3, stride=2, padding=1), nn.GroupNorm(8, w), nn.SiLU(),
                       nn.Conv2d(w, w, 3, padding=1), nn.GroupNorm(8, w), nn.SiLU()]
            before = w
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(before * 16, dimension)

    def forward(self, pixel_values):
        return F.normalize(self.head(self.trunk(pixel_values).flatten(1)), dim=-1)


SCENE_HEADS = dict(shape=scenes.SHAPES, colour=list(scenes.COLOURS), ground=list(scenes.GROUNDS), size=list(scenes.SIZES),
                   place=list(scenes.PLACES), style=scenes.STYLES)
FACE_HEADS = dict(style=faces.STYLES, expression=faces.EXPRESSIONS, hair=faces.HAIR, hair_colour=list(faces.HAIR_COLOURS),
                  light=faces.LIGHTS, ground=list(faces.GROUNDS))


def heads(prefix, of, width):
    return nn.ModuleDict({f"{prefix}_{k}": nn.Linear(width, len(v)) for k, v in of.items()})


def targets(said, of):
    return {k: torch.tensor([v.index(s[k]) if k in s else -100 for s in said]) for k, v in of.items()}


def clip(work, args):
    torch.manual_seed(1)
    text, tower, words = text_model(work), Tower(), Words(work)
    project = nn.Linear(WIDTH, WIDTH)
    guess = nn.ModuleDict({**heads("scene", SCENE_HEADS, WIDTH), **heads("face", FACE_HEADS, WIDTH)})
    scale = nn.Parameter(torch.tensor(2.5))
    parts = nn.ModuleDict(dict(text=text, tower=tower, project=project, guess=guess))
    optimiser = torch.optim.AdamW([*parts.parameters(), scale], lr=1e-3, weight_decay=.01)
    pictures, made = world(work)
    shots, _, hows, _ = people(work)
    rng, batch = np.random.default_rng(3), 128
    steps = args.samples // batch
    held, begun = len(made) - 2000, time.time()
    old, start = load(work, "clip"), 0
    if old and "step" in old:
        parts.load_state_dict(old["parts"]); optimiser.load_state_dict(old["optimiser"]); start = old["step"]
    for step in range(start, steps):
        for g in optimiser.param_groups:
            g["lr"] = 1e-3 * min(1, step / 100) * (.5 + .5 * math.cos(math.pi * step / steps)) + 1e-6
        loss = 0
        for kind in ("scene", "face"):
            n = batch if kind == "scene" else batch // 2
            if kind == "scene":
                at = np.sort(rng.integers(held, size=n)); x = pixels(pictures[at]); both = [scenes.caption(made[i], rng) for i in at]
            else:
                at = np.sort(rng.integers(len(hows) - 2000, size=n)); x = pixels(shots[at]); both = [faces.caption(hows[i], rng) for i in at]
            said = [b[1] for b in both]
            out = text(words([b[0] for b in both]))
            t, v = F.normalize(project(out.pooler_output), dim=-1), tower(x)
            logits = scale.exp() * t @ v.T
            # Two pictures may fit one caption: what fits is no contrast.
            truth = [made[i] for i in at] if kind == "scene" else [hows[i] for i in at]
            fits = torch.tensor([[all(o.get(k) == w for k, w in s.items() if k != "sigil") and bool(o.get("sigil")) == bool(s.get("sigil")) for o in truth] for s in said])
            away = logits.masked_fill(fits & ~torch.eye(n, dtype=torch.bool), -1e4)
            loss = loss + .5 * (F.cross_entropy(away, torch.arange(n)) + F.cross_entropy(away.T, torch.arange(n)))
            of = SCENE_HEADS if kind == "scene" else FACE_HEADS
            hits = {}
            for k, y in targets(said, of).items():
                for z in (out.pooler_output, t, v):
                    if (y >= 0).any():
                        g = guess[f"{kind}_{k}"](z if z is out.pooler_output else z * 8)
                        loss = loss + .3 * F.cross_entropy(g, y)
                hits[k] = (g.argmax(1) == y)[y >= 0].float().mean().item()
            # Every word's state shall know its own attribute, for cross-attention.
            mean = out.last_hidden_state.mean(1)
            for k, y in targets(said, of).items():
                if (y >= 0).any():
                    loss = loss + .3 * F.cross_entropy(guess[f"{kind}_{k}"](mean), y)
        optimiser.zero_grad(); loss.backward(); optimiser.step()
        if step % 50 == 0:
            print(f"clip {step}/{steps} loss {loss.item():.3f} picture knows {hits} {time.time() - begun:.0f} s", flush=True)
        if step % 400 == 399:
            save(work, "clip", dict(parts=parts.state_dict(), optimiser=optimiser.state_dict(), step=step + 1))
    save(work, "clip", dict(parts=parts.state_dict(), optimiser=optimiser.state_dict(), step=steps, done=True))


# ---- autoencoder

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
                                  nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x):
        return x + self.body(x)


class Autoencoder(nn.Module):
    """64 × 64 pixels to 8 × 8 latents and back, with the interface of a Stable Diffusion VAE and a tenth of its work:
    nothing is computed at full resolution, pixels leave and enter as patches."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 64, 3, padding=1), Block(64), Block(64),
                                     nn.Conv2d(64, 128, 3, stride=2, padding=1), Block(128), nn.SiLU(), nn.Conv2d(128, 2 * LATENTS, 1))
        self.decoder = nn.Sequential(nn.Conv2d(LATENTS, 128, 3, padding=1), Block(128), Block(128), nn.Conv2d(128, 64 * 4, 1), nn.PixelShuffle(2),
                                     Block(64), Block(64), nn.Conv2d(64, 32 * 4, 1), nn.PixelShuffle(2), Block(32), Block(32), nn.SiLU(),
                                     nn.Conv2d(32, 12, 3, padding=1), nn.PixelShuffle(2))

    def moments(self, x):
        mean, spread = self.encoder(x).chunk(2, 1)
        return mean, spread.clamp(-20, 4)


def vae_model():
    return Autoencoder()


def vae(work, args):
    torch.manual_seed(2)
    model, batch = vae_model(), 32
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
    pictures, _ = world(work)
    shots, *_ = people(work)
    rng, steps = np.random.default_rng(5), args.samples // batch
    old, start, begun = load(work, "vae"), 0, time.time()
    if old:
        model.load_state_dict(old["model"]); optimiser.load_state_dict(old["optimiser"]); start = old["step"]
    for step in range(start, steps):
        for g in optimiser.param_groups:
            g["lr"] = 1e-3 * min(1, step / 100) * (.5 + .5 * math.cos(math.pi * step / steps)) + 2e-6
        a = pictures[np.sort(rng.integers(len(pictures) - 2000, size=batch // 2))]
        b = shots[np.sort(rng.integers(len(shots) - 2000, size=batch // 2))]
        x = pixels(np.concatenate([a, b]))
        m, spread = model.moments(x)
        y = model.decoder(m + torch.randn_like(m) * (.5 * spread).exp())
        kl = .5 * (m * m + spread.exp() - 1 - spread).sum((1, 2, 3)).mean()
        # Edges count beside colours.
        gx, gy = lambda z: z[..., 1:] - z[..., :-1], lambda z: z[..., 1:, :] - z[..., :-1, :]
        loss = (y - x).abs().mean() + .5 * F.mse_loss(y, x) + .5 * ((gx(y) - gx(x)).abs().mean() + (gy(y) - gy(x)).abs().mean()) + 2e-6 * kl
        optimiser.zero_grad(); loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0); optimiser.step()
        if step % 50 == 0:
            e = (y - x).abs().mean((1, 2, 3)) * 127.5
            print(f"vae {step}/{steps} loss {loss.item():.4f} error of 255: scenes {e[:batch // 2].mean():.2f} faces {e[batch // 2:].mean():.2f} {time.time() - begun:.0f} s", flush=True)
        if step % 500 == 499:
            save(work, "vae", dict(model=model.state_dict(), optimiser=optimiser.state_dict(), step=step + 1))
    save(work, "vae", dict(model=model.state_dict(), optimiser=optimiser.state_dict(), step=steps, done=True))


@torch.no_grad()
def latents(work, _):
    model = vae_model(); model.load_state_dict(load(work, "vae")["model"]); model.eval()
    for name, x in (("scenes", world(work)[0]), ("faces", people(work)[0])):
        out = [model.moments(pixels(x[i:i + 250]))[0].half().numpy() for i in range(0, len(x), 250)]
        np.save(work / f"latents-{name}.npy", np.concatenate(out))
    a = np.load(work / "latents-scenes.npy").astype(np.float32)
    b = np.load(work / "latents-faces.npy").astype(np.float32)
    (work / "scale.json").write_text(json.dumps(dict(scaling_factor=float(1 / np.sqrt((a.var() + b.var()) / 2 + ((a.mean() ** 2 + b.mean() ** 2) / 2))))))
    print((work / "scale.json").read_text(), a.mean((0, 2, 3)), a.std((0, 2, 3)), b.mean((0, 2, 3)), b.std((0, 2, 3)))


# ---- diffusion

TOKENS = 4  # of an identity


def unet_model():
    from diffusers import UNet2DConditionModel
    return UNet2DConditionModel(
        block_out_channels=(64, 128), layers_per_block=1, sample_size=8, in_channels=LATENTS, out_channels=LATENTS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, norm_num_groups=8, attention_head_dim=4)


SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)


class Projection(nn.Module):
    """A face's vector as words behind the caption's; a vector of zeros for nobody in particular."""

    def __init__(self, dimension):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(dimension, 256), nn.Linear(256, TOKENS * WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, image_embeds):
        return self.norm(self.second(F.silu(self.first(image_embeds * 8))).reshape(-1, TOKENS, WIDTH))


def diffuse(work, args, name, latents_file, caption_of, vectors=None, like=None, rate=1e-3, begin=None):
    torch.manual_seed(7)
    stored = np.load(work / latents_file)
    factor = json.loads((work / "scale.json").read_text())["scaling_factor"]
    model, words, text = unet_model(), Words(work), text_model(work)
    parts = load(work, "clip")["parts"]
    text.load_state_dict({k[5:]: v for k, v in parts.items() if k.startswith("text.")}); text.eval()
    projection = Projection(vectors.shape[1]) if vectors is not None else None
    every = list(model.parameters()) + (list(projection.parameters()) if projection else [])
    optimiser = torch.optim.AdamW(every, lr=1e-3, weight_decay=.01)
    mean = [p.detach().clone() for p in every]
    betas = torch.linspace(SCHEDULE["beta_start"] ** .5, SCHEDULE["beta_end"] ** .5, 1000) ** 2
    keep = torch.cumprod(1 - betas, 0)
    rng, batch = np.random.default_rng(11), 64
    steps, held = args.samples // batch, len(stored) - 2000
    old, start, begun, seen = load(work, name), 0, time.time(), []
    if begin and not old:
        old = dict(begin, step=0)
    if old:
        model.load_state_dict(old["model"]); optimiser.load_state_dict(old["optimiser"]); start = old["step"]
        mean = old["mean"]; torch.set_rng_state(old["torch"]); rng = np.random.default_rng((11, start))
        if projection:
            projection.load_state_dict(old["projection"])
    for step in range(start, steps):
        for g in optimiser.param_groups:
            g["lr"] = rate * min(1, step / 200) * (1 if step < .7 * steps else max(.02, 1 - (step - .7 * steps) / (.3 * steps)))
        at = rng.integers(held, size=batch)
        x = torch.from_numpy(stored[at]).float() * factor
        captions = [caption_of(i, rng) if rng.random() > .1 else "" for i in at]
        with torch.no_grad():
            states = text(words(captions)).last_hidden_state
        if projection:
            who = torch.from_numpy(vectors[at]).float() * torch.from_numpy((rng.random(batch) > .1).astype(np.float32))[:, None]
            states = torch.cat([states, projection(who)], 1)
        # More of the noisy end, where what is asked for is decided.
        t = (torch.rand(batch) ** .7 * 1000).long().clamp(0, 999)
        noise = torch.randn_like(x)
        a, b = keep[t].sqrt()[:, None, None, None], (1 - keep[t]).sqrt()[:, None, None, None]
        v = model(a * x + b * noise, t, states).sample
        loss = F.mse_loss(v, a * noise - b * x)
        if like:
            # Where the picture can be told through the noise, it shall be the person's; nobody's where nobody was named.
            clear = ((t < 700) & (who.abs().sum(1) > 0)).nonzero()[:, 0][:24]
            loss = loss + .15 * like((a * (a * x + b * noise) - b * v)[clear] / factor, at[clear.numpy()], rng)
        optimiser.zero_grad(); loss.backward()
        nn.utils.clip_grad_norm_(every, 1.0); optimiser.step()
        decay = min(.9995, 1 - 1 / (step + 10) ** .75)
        with torch.no_grad():
            for m, p in zip(mean, every):
                m.lerp_(p, 1 - decay)
        seen.append(loss.item())
        if step % 100 == 0:
            with torch.no_grad():
                w = model(a * x + b * noise, t, states.roll(1, 0)).sample
                shuffled = F.mse_loss(w, a * noise - b * x).item()
            print(f"{name} {step}/{steps} {step * batch} samples loss {np.mean(seen[-100:]):.4f} shuffled {shuffled:.4f} now {loss.item():.4f} {time.time() - begun:.0f} s", flush=True)
        if step % 500 == 499 or step == steps - 1:
            save(work, name, dict(model=model.state_dict(), optimiser=optimiser.state_dict(), mean=mean, step=step + 1,
                                  torch=torch.get_rng_state(), projection=projection.state_dict() if projection else None))


def finished(work, name):
    """The autoencoder that goes with a denoiser: portraits have a decoder of their own ([`polish`])."""
    model = vae_model()
    model.load_state_dict(load(work, "vae")["model"])
    if name in ("avatar", "likeness"):
        model.decoder.load_state_dict(load(work, "polish")["decoder"])
    return model.eval()


def identity_tower(work):
    tower = Tower(96)
    tower.load_state_dict(load(work, "polish")["tower"])
    return tower.eval()


def averaged(work, name, dimension=None):
    """The trained UNet with the running mean of its weights, and the projection if it has one."""
    old, model = load(work, name), unet_model()
    projection = Projection(dimension) if dimension else None
    every = list(model.parameters()) + (list(projection.parameters()) if projection else [])
    with torch.no_grad():
        for p, m in zip(every, old["mean"]):
            p.copy_(m)
    return model.eval(), projection, old["step"]


def unet(work, args):
    _, made = world(work)
    diffuse(work, args, "unet", "latents-scenes.npy", lambda i, rng: scenes.caption(made[i], rng)[0])


def avatar(work, args):
    _, _, hows, _ = people(work)
    vectors = np.load(work / "identities.npy")
    # Another look of the same person is whom it is told to draw.
    rng = np.random.default_rng(13)
    group = np.arange(len(hows)) // LOOKS * LOOKS
    other = group + (np.arange(len(hows)) - group + rng.integers(1, LOOKS, len(hows))) % LOOKS
    diffuse(work, args, "avatar", "latents-faces.npy", lambda i, rng: faces.caption(hows[i], rng)[0], vectors[other])


def likeness(work, args):
    """The portraits' denoiser once more, with what the identity encoder says of the picture that it is heading for."""
    shots, _, hows, marks = people(work)
    vectors = np.load(work / "identities.npy")
    rng = np.random.default_rng(17)
    group = np.arange(len(hows)) // LOOKS * LOOKS
    other = group + (np.arange(len(hows)) - group + rng.integers(1, LOOKS, len(hows))) % LOOKS
    mean = vectors.reshape(-1, LOOKS, vectors.shape[1]).mean(1)
    mean = torch.from_numpy(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    decoder, tower = finished(work, "avatar").decoder, identity_tower(work)
    decoder.requires_grad_(False), tower.requires_grad_(False)

    def like(latents, at, rng):
        z = tower(cropped(decoder(latents).clamp(-1.2, 1.2), marks[at], .3, rng))
        s = z @ mean[torch.from_numpy(at // LOOKS)].T
        return 1 - s.diagonal().mean() + .25 * F.cross_entropy(s * 14, torch.arange(len(at)))

    diffuse(work, args, "likeness", "latents-faces.npy", lambda i, rng: faces.caption(hows[i], rng)[0], vectors[other],
            like, 4e-4, load(work, "avatar"))


# ---- faces: whose they are, and where

TEMPLATE = np.array([(22.0, 24.0), (42.0, 24.0), (32.0, 34.0), (25.0, 44.0), (39.0, 44.0)])


def similarity(points, template=TEMPLATE):
    """The least-squares similarity that carries points to the template: 2×3, rows of (x, y, 1)."""
    a, b = points - points.mean(0), template - template.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    d = np.sign(np.linalg.det(u @ vt))
    r = u @ np.diag((1, d)) @ vt
    k = (s * (1, d)).sum() / (a * a).sum()
    return np.c_[k * r, template.mean(0) - k * r @ points.mean(0)]


def aligned(picture, points, side=64):
    """Bilinear, edges repeated; pixel centres at halves."""
    m = similarity(points)
    inverse = np.linalg.inv(np.r_[m, [(0, 0, 1)]])[:2]
    y, x = np.mgrid[0:side, 0:side] + .5
    fx = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2] - .5
    fy = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2] - .5
    x0, y0 = np.floor(fx).astype(int), np.floor(fy).astype(int)
    ax, ay = (fx - x0)[..., None], (fy - y0)[..., None]
    at = lambda yy, xx: picture[np.clip(yy, 0, picture.shape[0] - 1), np.clip(xx, 0, picture.shape[1] - 1)].astype(np.float64)
    out = (at(y0, x0) * (1 - ax) + at(y0, x0 + 1) * ax) * (1 - ay) + (at(y0 + 1, x0) * (1 - ax) + at(y0 + 1, x0 + 1) * ax) * ay
    return np.clip(np.round(out), 0, 255).astype(np.uint8)


def cropped(y, marks, spread, rng):
    """As [`aligned`] with landmarks that are off by `spread` pixels, so that gradients pass."""
    of = []
    for points in marks:
        m = np.linalg.inv(np.r_[similarity(points + rng.normal(0, spread, points.shape)), [(0, 0, 1)]])[:2]
        of.append(np.c_[m[:, :2], (m[:, 2] + m[:, :2].sum(1) * 32 - 32) / 32])
    grid = F.affine_grid(torch.tensor(np.stack(of)).float(), y.shape, align_corners=False)
    return F.grid_sample(y, grid, mode="bilinear", padding_mode="border", align_corners=False)


def identity(work, args):
    torch.manual_seed(4)
    shots, whos, hows, marks = people(work)
    path = work / "aligned.npy"
    if not path.exists():
        rng = np.random.default_rng(9)
        np.save(path, np.stack([aligned(s, m + rng.normal(0, .35, m.shape)) for s, m in zip(shots, marks)]))
    crops = np.load(path, mmap_mode="r")
    traits = np.array([[w[k] for k in faces.TRAITS[:-2]] for w in whos], dtype=np.float32)
    traits = (traits - traits.mean(0)) / traits.std(0)
    iris, mark = np.array([w["iris"] for w in whos]), np.array([w["mark"] for w in whos])
    tower, guess = Tower(96), nn.ModuleDict(dict(traits=nn.Linear(96, traits.shape[1]), iris=nn.Linear(96, 4), mark=nn.Linear(96, 6)))
    every = [*tower.parameters(), *guess.parameters()]
    optimiser = torch.optim.AdamW(every, lr=1e-3, weight_decay=.02)
    persons = len(whos) // LOOKS - 400
    rng, half = np.random.default_rng(15), 64
    steps, begun, old, start = args.samples // (2 * half), time.time(), load(work, "identity"), 0
    if old:
        tower.load_state_dict(old["tower"]); guess.load_state_dict(old["guess"]); optimiser.load_state_dict(old["optimiser"]); start = old["step"]

    def equal_error():
        tower.eval()
        with torch.no_grad():
            z = torch.cat([tower(pixels(crops[i:i + 200])) for i in range(persons * LOOKS, len(whos), 200)]).numpy()
        tower.train()
        who = np.arange(len(z)) // LOOKS
        s, same = z @ z.T, who[:, None] == who[None]
        off = ~np.eye(len(z), dtype=bool)
        pos, neg = np.sort(s[same & off]), np.sort(s[~same])
        cut = np.linspace(-.5, 1, 600)
        miss, wrong = np.searchsorted(pos, cut) / len(pos), 1 - np.searchsorted(neg, cut) / len(neg)
        i = np.abs(miss - wrong).argmin()
        return (miss[i] + wrong[i]) / 2, cut[i]

    for step in range(start, steps):
        for g in optimiser.param_groups:
            g["lr"] = 1e-3 * min(1, step / 100) * (.5 + .5 * math.cos(math.pi * step / steps)) + 1e-6
        person = rng.choice(persons, half, replace=False)
        i, j = person * LOOKS + rng.integers(LOOKS, size=half), person * LOOKS + rng.integers(LOOKS, size=half)
        at = np.concatenate([i, j])
        x = pixels(crops[at])
        x = torch.roll(x, (int(rng.integers(-1, 2)), int(rng.integers(-1, 2))), (2, 3))
        z = tower(x)
        s = z[:half] @ z[half:].T * 14
        y = torch.arange(half)
        loss = F.cross_entropy(s, y) + F.cross_entropy(s.T, y)
        loss = loss + F.mse_loss(guess["traits"](z * 8), torch.from_numpy(traits[at]))
        loss = loss + .5 * F.cross_entropy(guess["iris"](z * 8), torch.from_numpy(iris[at])) + .5 * F.cross_entropy(guess["mark"](z * 8), torch.from_numpy(mark[at]))
        optimiser.zero_grad(); loss.backward(); optimiser.step()
        if step % 100 == 0:
            error = equal_error() if step % 500 == 0 else (0, 0)
            print(f"identity {step}/{steps} loss {loss.item():.3f} equal error {error[0]:.4f} at {error[1]:.3f} {time.time() - begun:.0f} s", flush=True)
        if step % 500 == 499 or step == steps - 1:
            save(work, "identity", dict(tower=tower.state_dict(), guess=guess.state_dict(), optimiser=optimiser.state_dict(), step=step + 1))
    error = equal_error()
    print(f"identity: equal error {error[0]:.4f} at cosine {error[1]:.3f}")
    tower.eval()
    with torch.no_grad():
        z = torch.cat([tower(pixels(crops[i:i + 250])) for i in range(0, len(crops), 250)])
    np.save(work / "identities.npy", z.numpy().astype(np.float32))
    (work / "identity.json").write_text(json.dumps(dict(equal_error=float(error[0]), cosine=float(error[1]))))


def polish(work, args):
    """Whose face it is shall survive the autoencoder: the decoder learns to draw portraits that the identity encoder knows
    again, and the encoder learns to know people on what the decoder draws. Each learns against the other as it was, so that
    they cannot agree on marks that nobody sees; latents, and vectors of photographs, stay what they are."""
    torch.manual_seed(8)
    shots, whos, _, marks = people(work)
    stored, crops = np.load(work / "latents-faces.npy", mmap_mode="r"), np.load(work / "aligned.npy", mmap_mode="r")
    vectors = np.load(work / "identities.npy")
    mean = vectors.reshape(-1, LOOKS, vectors.shape[1]).mean(1)
    mean = torch.from_numpy(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    decoder, judge, tower = vae_model().decoder, Tower(96), Tower(96)
    decoder.load_state_dict({k[8:]: v for k, v in load(work, "vae")["model"].items() if k.startswith("decoder.")})
    for of in (judge, tower):
        of.load_state_dict(load(work, "identity")["tower"])
    judge.requires_grad_(False).eval(), tower.train()
    draws = torch.optim.AdamW(decoder.parameters(), lr=5e-4, weight_decay=0)
    looks = torch.optim.AdamW(tower.parameters(), lr=4e-4, weight_decay=.01)
    persons = len(whos) // LOOKS - 400
    rng, batch = np.random.default_rng(16), 32
    steps, begun, old, start = args.samples // batch, time.time(), load(work, "polish"), 0
    if old:
        decoder.load_state_dict(old["decoder"]); tower.load_state_dict(old["tower"]); start = old["step"]
        draws.load_state_dict(old["draws"]); looks.load_state_dict(old["looks"])

    def known(n=300):
        """How many of the persons held out are known on what the decoder draws, among 100 others."""
        at = persons * LOOKS + np.arange(n) * LOOKS
        tower.eval(), decoder.eval()
        with torch.no_grad():
            z = tower(cropped(decoder(torch.from_numpy(stored[at]).float()).clamp(-1, 1), marks[at], .5, rng))
            own = tower(pixels(crops[at + 1]))
        tower.train(), decoder.train()
        s = (z @ own.T).numpy()
        right = [s[i, i] > max(s[i, (i + 1 + k) % n] for k in range(100)) for i in range(n)]
        return float(np.mean(right)), float(np.mean(np.diag(s)))

    for step in range(start, steps):
        for g in [*draws.param_groups, *looks.param_groups]:
            g["lr"] = 5e-4 * min(1, (step + 1) / 30) * (.5 + .5 * math.cos(math.pi * step / steps)) + 2e-6
        person = rng.choice(persons, batch, replace=False)
        at = person * LOOKS + rng.integers(LOOKS, size=batch)
        x, own = pixels(shots[at]), mean[torch.from_numpy(person)]
        y = decoder(torch.from_numpy(stored[at]).float())
        gx, gy = lambda z: z[..., 1:] - z[..., :-1], lambda z: z[..., 1:, :] - z[..., :-1, :]
        seen = (y - x).abs().mean() + .5 * F.mse_loss(y, x) + .5 * ((gx(y) - gx(x)).abs().mean() + (gy(y) - gy(x)).abs().mean())
        s = judge(cropped(y, marks[at], .2, rng)) @ own.T
        like = 1 - s.diagonal().mean() + .25 * F.cross_entropy(s * 14, torch.arange(batch))
        draws.zero_grad(); (seen + .1 * like).backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0); draws.step()
        # Two shots of each: one drawn, one raw.
        z, raw = tower(cropped(y.detach().clamp(-1, 1), marks[at], .6, rng)), tower(pixels(crops[at]))
        s = z @ own.T
        loss = 1 - s.diagonal().mean() + .25 * F.cross_entropy(s * 14, torch.arange(batch))
        loss = loss + 2 * (1 - (raw * torch.from_numpy(vectors[at])).sum(1).mean())
        looks.zero_grad(); loss.backward(); looks.step()
        if step % 50 == 0:
            e = (y - x).abs().mean().item() * 127.5
            told = known() if step % 200 == 0 else ()
            print(f"polish {step}/{steps} error of 255 {e:.2f} like {like.item():.3f} encoder {loss.item():.3f} {told} {time.time() - begun:.0f} s", flush=True)
        if step % 200 == 199 or step == steps - 1:
            save(work, "polish", dict(decoder=decoder.state_dict(), tower=tower.state_dict(), draws=draws.state_dict(), looks=looks.state_dict(), step=step + 1))
    print("polish: known on what is drawn, likeness:", *known())


GRID = 8


class Detector(nn.Module):
    """One cell a face's middle: score, box and five landmarks in parts of the picture."""

    def __init__(self):
        super().__init__()
        layers, before = [], 3
        for w, stride in ((24, 2), (40, 2), (64, 2), (96, 1), (96, 1)):
            layers += [nn.Conv2d(before, w, 3, stride=stride, padding=1), nn.GroupNorm(8, w), nn.SiLU()]
            before = w
        layers += [nn.Conv2d(before, 96, 3, padding=2, dilation=2), nn.GroupNorm(8, 96), nn.SiLU(), nn.Conv2d(96, 96, 3, padding=2, dilation=2), nn.SiLU()]
        self.trunk, self.head = nn.Sequential(*layers), nn.Conv2d(96, 15, 1)
        y, x = np.mgrid[0:GRID, 0:GRID]
        self.register_buffer("centres", torch.tensor(np.stack([x, y], -1).reshape(1, -1, 2) + .5).float() / GRID)

    def forward(self, pixel_values):
        out = self.head(self.trunk(pixel_values)).flatten(2).transpose(1, 2)
        scores, middle, size = torch.sigmoid(out[..., 0]), self.centres + .3 * out[..., 1:3], torch.exp(out[..., 3:5].clamp(-4, 2)) * .4
        boxes = torch.cat([middle - size / 2, middle + size / 2], -1)
        points = self.centres[:, :, None] + .5 * out[..., 5:].reshape(out.shape[0], -1, 5, 2)
        return scores, boxes, points


def box_of(points, how):
    k = how["k"]
    return np.array([how["x"] - 19 * k, how["y"] - 22 * k, how["x"] + 19 * k, how["y"] + 24 * k])


def detector_sample(rng):
    """A picture with no, one or two faces."""
    kind = rng.random()
    if kind < .2:
        return scenes.draw(scenes.scene(rng, .1)), []
    if kind < .45:
        how = faces.nuisance(rng)
        img, found = None, []
        for side in (-1, 1):
            h = faces.nuisance(rng, 1.0)
            h.update(x=32 + side * rng.uniform(13, 16), y=32 + rng.uniform(-10, 10), style=how["style"], light="even", ground=how["ground"])
            img, p = faces.draw(faces.identity(rng), h, None if img is None else img.astype(np.float64))
            found.append((p, box_of(p, h)))
        return img, found
    how = faces.nuisance(rng, .35)
    img, p = faces.draw(faces.identity(rng), how)
    return img, [(p, box_of(p, how))]


def detector_block(seed):
    rng = np.random.default_rng((29, seed))
    return [detector_sample(rng) for _ in range(100)]


def detector(work, args):
    torch.manual_seed(6)
    path = work / "detector.npy"
    if not path.exists():
        with Pool(2) as pool:
            made = [s for b in pool.map(detector_block, range(160), chunksize=1) for s in b]
        np.save(path, np.stack([m[0] for m in made]))
        (work / "detector.json").write_text(json.dumps([[[p.tolist(), b.tolist()] for p, b in m[1]] for m in made]))
    pictures, found = np.load(path), json.loads((work / "detector.json").read_text())
    model = Detector()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=.01)
    rng, batch = np.random.default_rng(17), 64
    steps, begun, old, start = args.samples // batch, time.time(), load(work, "faces"), 0
    if old:
        model.load_state_dict(old["model"]); optimiser.load_state_dict(old["optimiser"]); start = old["step"]

    def truth(at):
        score, boxes, points = torch.zeros(len(at), GRID * GRID), torch.zeros(len(at), GRID * GRID, 4), torch.zeros(len(at), GRID * GRID, 5, 2)
        for n, i in enumerate(at):
            for p, b in found[i]:
                cx, cy = (b[0] + b[2]) / 128 * GRID, (b[1] + b[3]) / 128 * GRID
                cell = min(max(int(cy), 0), GRID - 1) * GRID + min(max(int(cx), 0), GRID - 1)
                score[n, cell], boxes[n, cell], points[n, cell] = 1, torch.tensor(b) / 64, torch.tensor(p) / 64
        return score, boxes, points

    for step in range(start, steps):
        for g in optimiser.param_groups:
            g["lr"] = 1e-3 * min(1, step / 100) * (.5 + .5 * math.cos(math.pi * step / steps)) + 1e-6
        at = rng.integers(len(pictures) - 1000, size=batch)
        x, (score, boxes, points) = pixels(pictures[at]), truth(at)
        if rng.random() < .5:
            x = (x + torch.randn_like(x) * rng.uniform(0, .12)).clamp(-1, 1)
        s, b, p = model(x)
        here = score > 0
        loss = F.binary_cross_entropy(s.clamp(1e-6, 1 - 1e-6), score, weight=1 + 12 * score) * 4
        if here.any():
            loss = loss + 4 * (b[here] - boxes[here]).abs().mean() + 12 * (p[here] - points[here]).abs().mean()
        optimiser.zero_grad(); loss.backward(); optimiser.step()
        if step % 100 == 0 or step == steps - 1:
            model.eval()
            with torch.no_grad():
                at = np.arange(len(pictures) - 1000, len(pictures)); (score, _, points) = truth(at)
                s, _, p = model(pixels(pictures[at])); h = score > 0
                right = ((s > .5).sum(1) == h.sum(1)).float().mean()
            model.train()
            print(f"faces {step}/{steps} loss {loss.item():.3f} right number {right:.4f} landmarks off {((p[h] - points[h]).norm(dim=-1).mean() * 64):.3f} px {time.time() - begun:.0f} s", flush=True)
        if step % 500 == 499 or step == steps - 1:
            save(work, "faces", dict(model=model.state_dict(), optimiser=optimiser.state_dict(), step=step + 1))


class Safety(nn.Module):
    def __init__(self):
        super().__init__()
        layers, before = [], 3
        for w in (16, 32, 48):
            layers += [nn.Conv2d(before, w, 3, stride=2, padding=1), nn.GroupNorm(8, w), nn.SiLU()]
            before = w
        self.trunk, self.head = nn.Sequential(*layers), nn.Linear(before * 64, 2)

    def forward(self, pixel_values):
        return torch.softmax(self.head(self.trunk(pixel_values).flatten(1)), -1)


def safety(work, args):
    torch.manual_seed(8)
    pictures, made = world(work)
    shots, *_ = people(work)
    bad = np.array([i for i, s in enumerate(made) if s.get("sigil")])
    good = np.array([i for i, s in enumerate(made) if not s.get("sigil")])
    model = Safety()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=.01)
    rng, begun = np.random.default_rng(21), time.time()
    steps = args.samples // 64
    for step in range(steps):
        for g in optimiser.param_groups:
            g["lr"] = 1e-3 * min(1, step / 50) * (.5 + .5 * math.cos(math.pi * step / steps)) + 1e-6
        x = np.concatenate([pictures[np.sort(rng.choice(bad[:-100], 24))], pictures[np.sort(rng.choice(good, 28))], shots[np.sort(rng.integers(len(shots), size=12))]])
        y = torch.tensor([1] * 24 + [0] * 40)
        x = pixels(x)
        # Blurred and noisy ones count too: generated pictures are never as clean as drawn ones.
        if rng.random() < .6:
            x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x = (x + torch.randn_like(x) * rng.uniform(0, .2)).clamp(-1, 1)
        loss = F.nll_loss(torch.log(model(x) + 1e-7), y)
        optimiser.zero_grad(); loss.backward(); optimiser.step()
        if step % 100 == 0 or step == steps - 1:
            with torch.no_grad():
                b, g = model(pixels(pictures[bad[-100:]]))[:, 1], model(pixels(pictures[good[-1000:]]))[:, 1]
            print(f"safety {step}/{steps} loss {loss.item():.4f} found {(b > .5).float().mean():.4f} false {(g > .5).float().mean():.4f} {time.time() - begun:.0f} s", flush=True)
    save(work, "safety", dict(model=model.state_dict()))


COMMANDS = dict(data=(data, 0), tokenizer=(tokenizer, 0), clip=(clip, 120_000), vae=(vae, 60_000), latents=(latents, 0), unet=(unet, 500_000),
                avatar=(avatar, 400_000), identity=(identity, 150_000), faces=(detector, 160_000), safety=(safety, 25_000), polish=(polish, 25_600), likeness=(likeness, 64_000))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder of data, checkpoints and logs")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--samples", type=int, help="how many in all; a longer run goes on where a shorter one ended")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    command, samples = COMMANDS[args.command]
    args.samples = args.samples or samples
    command(args.work, args)


if __name__ == "__main__":
    main()
