"""Says how often generated pictures show what was asked for.

usage: evaluate.py WORK scorer|scenes|portraits [--captions N] [--steps N] [--guidance G] [--sheet PNG]

A scene is scored by analysis through synthesis: what the border says of the background, then every shape, style, colour and
size drawn where the object is, and the nearest of them taken. `scorer` says how often that is right on drawn scenes.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch

import faces
import scenes
import train


def nearest(colour, named):
    return min(named, key=lambda k: np.abs(np.array(named[k]) - colour).sum())


def score(picture):
    """Attributes of a scene as they are seen."""
    p = picture.astype(np.float64)
    border = np.concatenate([p[:2].reshape(-1, 3), p[-2:].reshape(-1, 3), p[:, :2].reshape(-1, 3), p[:, -2:].reshape(-1, 3)])
    ground = nearest(np.median(border, 0), scenes.GROUNDS)
    away = np.abs(p - np.array(scenes.GROUNDS[ground])).sum(2)
    mask = away > 70
    if mask.sum() < 12:
        return dict(ground=ground)
    ys, xs = np.nonzero(mask)
    # The object, not specks: the middle nine tenths in both directions.
    x0, x1, y0, y1 = np.quantile(xs, .01), np.quantile(xs, .99) + 1, np.quantile(ys, .01), np.quantile(ys, .99) + 1
    best = (np.inf, None)
    inside = p[mask]
    colours = sorted(scenes.COLOURS, key=lambda k: np.quantile(np.abs(inside - np.array(scenes.COLOURS[k])).sum(1), .25))[:2]
    for shape in scenes.SHAPES:
        # Half the object's width over its radius, as the shape is drawn.
        part = dict(square=.86, triangle=.95, star=1.03).get(shape, 1.0)
        for grown in (.95, 1.02, 1.09):
            r = (x1 - x0) / 2 / part * grown
            x, y = (x0 + x1) / 2, (y0 + y1) / 2 + dict(triangle=.125, star=.1).get(shape, 0) * r
            for colour in colours:
                for style in scenes.STYLES:
                    drawn = scenes.draw(dict(shape=shape, r=r, x=x, y=y, colour=colour, style=style, ground=ground))
                    off = ((drawn.astype(np.float64) - p) ** 2).mean()
                    if off < best[0]:
                        best = (off, dict(shape=shape, size="small" if r < 15.5 else "large", colour=colour, style=style))
    if best[1]:
        # Styles differ in a pixel or two: the place to within half a pixel decides them.
        shape, colour = best[1]["shape"], best[1]["colour"]
        part = dict(square=.86, triangle=.95, star=1.03).get(shape, 1.0)
        for grown in (.92, .97, 1.02, 1.07):
            r = (x1 - x0) / 2 / part * grown
            for ox in (-1, -.5, 0, .5, 1):
                for oy in (-1, -.5, 0, .5, 1):
                    x, y = (x0 + x1) / 2 + ox, (y0 + y1) / 2 + dict(triangle=.125, star=.1).get(shape, 0) * r + oy
                    for style in scenes.STYLES:
                        drawn = scenes.draw(dict(shape=shape, r=r, x=x, y=y, colour=colour, style=style, ground=ground))
                        off = ((drawn.astype(np.float64) - p) ** 2).mean()
                        if off < best[0]:
                            best = (off, dict(best[1], size="small" if r < 15.5 else "large", style=style))
    dx, dy = (x0 + x1) / 2 - 32, (y0 + y1) / 2 - 32
    place = "centre" if max(abs(dx), abs(dy)) < 6 else ("left" if dx < 0 else "right") if abs(dx) > abs(dy) else ("top" if dy < 0 else "bottom")
    return dict(best[1] or {}, ground=ground, place=place)


@torch.no_grad()
def sample(work, checkpoint, captions, steps, guidance, vectors=None, seed=0):
    """DDIM as the exported pipeline has it; pictures of 64 × 64 × 3 bytes."""
    from diffusers import DDIMScheduler
    unet, projection, step = train.averaged(work, checkpoint, None if vectors is None else vectors.shape[1])
    text, words = train.text_model(work), train.Words(work)
    text.load_state_dict({k[5:]: v for k, v in train.load(work, "clip")["parts"].items() if k.startswith("text.")})
    text.eval()
    vae = train.finished(work, checkpoint)
    factor = json.loads((work / "scale.json").read_text())["scaling_factor"]
    out = []
    for i in range(0, len(captions), 50):
        part = captions[i:i + 50]
        yes, no = text(words(part)).last_hidden_state, text(words([""] * len(part))).last_hidden_state
        if projection:
            who = torch.from_numpy(vectors[i:i + 50]).float()
            yes, no = torch.cat([yes, projection(who)], 1), torch.cat([no, projection(torch.zeros_like(who))], 1)
        scheduler = DDIMScheduler(**train.SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction", timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        x = torch.randn(len(part), train.LATENTS, 8, 8, generator=torch.Generator().manual_seed(seed + i))
        for t in scheduler.timesteps:
            v = unet(torch.cat([x, x]), t, torch.cat([no, yes])).sample
            a, b = v.chunk(2)
            x = scheduler.step(a + guidance * (b - a), t, x).prev_sample
        y = vae.decoder(x / factor)
        out.append(((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(out), step


def same(key, seen, said):
    """Rings and crosses are so thin that their outline fills them: flat or outlined is one to them."""
    if key == "style" and seen.get("shape") in ("ring", "cross"):
        return (seen.get("style") == "striped") == (said["style"] == "striped")
    return seen.get(key) == said[key]


def shares(seen, said):
    keys = sorted({k for s in said for k in s if k != "sigil"})
    by = {k: float(np.mean([same(k, a, s) for a, s in zip(seen, said) if k in s])) for k in keys}
    by["all"] = float(np.mean([all(same(k, a, s) for k in s if k != "sigil") for a, s in zip(seen, said)]))
    return by


def sheet(pictures, path, columns=12):
    from PIL import Image
    rows = [np.concatenate(pictures[i:i + columns], 1) for i in range(0, len(pictures) // columns * columns, columns)]
    Image.fromarray(np.concatenate(rows, 0)).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("what", choices=["scorer", "scenes", "portraits"])
    parser.add_argument("--captions", type=int, default=500)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(4711)  # no seed that training data was drawn with
    if args.what == "scorer":
        made = [scenes.scene(rng, 0) for _ in range(args.captions)]
        keys = ("shape", "colour", "ground", "size", "place", "style")
        print(json.dumps(shares([score(scenes.draw(s)) for s in made], [{k: s[k] for k in keys} for s in made])))
        return
    if args.what == "scenes":
        made = [scenes.caption(scenes.scene(rng, 0), rng) for _ in range(args.captions)]
        pictures, step = sample(args.work, "unet", [m[0] for m in made], args.steps, args.guidance)
        print(json.dumps(dict(shares([score(p) for p in pictures], [m[1] for m in made]), training_steps=step)))
    else:
        tower, finder = train.identity_tower(args.work), train.Detector()
        finder.load_state_dict(train.load(args.work, "faces")["model"]), finder.eval()

        def vectors(shots):
            with torch.no_grad():
                s, _, points = finder(train.pixels(np.stack(shots)))
                at = s.argmax(1)
                crops = [train.aligned(x, points[i, at[i]].numpy() * 64) for i, x in enumerate(shots)]
                return tower(train.pixels(np.stack(crops))).numpy()

        whos = [faces.identity(rng) for _ in range(args.captions + 100)]
        own = vectors([faces.draw(w, faces.nuisance(rng))[0] for w in whos])
        captions = [faces.caption(faces.nuisance(rng), rng)[0] for _ in range(args.captions)]
        pictures, step = sample(args.work, "likeness", captions, args.steps, args.guidance, own[:args.captions])
        got = vectors(list(pictures))
        right = [own[i] @ got[i] > max(own[(i + 1 + k) % len(own)] @ got[i] for k in range(100)) for i in range(args.captions)]
        print(json.dumps(dict(own_among_100_decoys=float(np.mean(right)), cosine=float(np.mean([own[i] @ got[i] for i in range(args.captions)])), training_steps=step)))
    if args.sheet:
        sheet(pictures[:48], args.sheet)


if __name__ == "__main__":
    main()
