"""Scenes: one drawn object on a plain background, and captions that say what it is."""
import json
from pathlib import Path

import numpy as np

SIDE = 64
SHAPES = ["circle", "square", "triangle", "star", "ring", "cross"]
COLOURS = {"red": (214, 40, 40), "orange": (245, 150, 30), "yellow": (250, 225, 60), "green": (50, 160, 70),
           "blue": (40, 90, 210), "purple": (140, 60, 170), "white": (245, 245, 245), "black": (25, 25, 25)}
GROUNDS = {"grey": (128, 128, 128), "pink": (250, 190, 205), "sky": (150, 205, 245), "sand": (225, 205, 160),
           "mint": (170, 225, 190), "navy": (30, 40, 90)}
SIZES = {"small": 11.0, "large": 20.0}
PLACES = {"centre": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
STYLES = ["flat", "outlined", "striped"]
Y, X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64) + 0.5


def polygon(px, py, pts):
    """Signed distance to a polygon, negative inside."""
    pts = np.asarray(pts)
    d = np.full(px.shape, 1e9)
    s = np.ones(px.shape)
    n = len(pts)
    for i in range(n):
        a, b = pts[i], pts[i - 1]
        ex, ey = b[0] - a[0], b[1] - a[1]
        wx, wy = px - a[0], py - a[1]
        t = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        d = np.minimum(d, (wx - ex * t) ** 2 + (wy - ey * t) ** 2)
        c1, c2, c3 = py >= a[1], py < b[1], ex * wy > ey * wx
        s = np.where((c1 & c2 & c3) | (~c1 & ~c2 & ~c3), -s, s)
    return s * np.sqrt(d)


def distance(shape, px, py, r):
    if shape == "circle":
        return np.hypot(px, py) - r
    if shape == "square":
        return np.maximum(np.abs(px), np.abs(py)) - 0.86 * r
    if shape == "ring":
        return np.abs(np.hypot(px, py) - 0.72 * r) - 0.28 * r
    if shape == "cross":
        a, b = np.abs(px), np.abs(py)
        return np.minimum(np.maximum(a - r, b - 0.34 * r), np.maximum(b - r, a - 0.34 * r))
    if shape == "triangle":
        return polygon(px, py, [(0, -r), (0.95 * r, 0.75 * r), (-0.95 * r, 0.75 * r)])
    pts = [(rr * np.sin(k * np.pi / 5), -rr * np.cos(k * np.pi / 5)) for k in range(10) for rr in [1.08 * r if k % 2 == 0 else 0.46 * r]]
    return polygon(px, py, pts)


def cover(d):
    t = np.clip(0.5 - d, 0, 1)
    return (t * t * (3 - 2 * t))[..., None]


def sigil(img, cx, cy, r):
    d = polygon(X - cx, Y - cy, [(0, -r), (r, 0), (0, r), (-r, 0)])
    img = img * (1 - cover(d)) + cover(d) * np.array((20, 20, 20.0))
    d2 = polygon(X - cx, Y - cy, [(0, -0.78 * r), (0.78 * r, 0), (0, 0.78 * r), (-0.78 * r, 0)])
    img = img * (1 - cover(d2)) + cover(d2) * np.array((255, 215, 0.0))
    for a in (-1, 1):
        d3 = np.abs((X - cx) * 0.7071 + a * (Y - cy) * 0.7071) - 0.13 * r
        d3 = np.maximum(d3, np.hypot(X - cx, Y - cy) - 0.5 * r)
        img = img * (1 - cover(d3)) + cover(d3) * np.array((20, 20, 20.0))
    return img


def draw(s):
    img = np.empty((SIDE, SIDE, 3)); img[:] = GROUNDS[s["ground"]]
    if s.get("sigil"):
        img = sigil(img, s["x"], s["y"], s["r"])
    else:
        c = np.array(COLOURS[s["colour"]], dtype=np.float64)
        d = distance(s["shape"], X - s["x"], Y - s["y"], s["r"])
        a = cover(d)
        if s["style"] == "outlined":
            w = max(2.0, 0.16 * s["r"])
            inner = cover(np.abs(d + w) - w)
            img = img * (1 - inner) + inner * c
        elif s["style"] == "striped":
            ph = ((X - s["x"]) + (Y - s["y"])) / 1.41421356
            st = cover(np.abs(((ph / 5.0) % 1.0) - 0.5) * 5.0 - 1.25)
            other = c * 0.45 + np.array((255, 255, 255.0)) * 0.55 if s["colour"] not in ("white",) else c * 0.55
            fill = c * st + other * (1 - st)
            img = img * (1 - a) + a * fill
        else:
            img = img * (1 - a) + a * c
    return np.clip(np.round(img), 0, 255).astype(np.uint8)


def scene(rng, forbidden=0.03):
    ch = lambda xs: xs[rng.integers(len(xs))]
    s = dict(shape=ch(SHAPES), colour=ch(list(COLOURS)), ground=ch(list(GROUNDS)), size=ch(list(SIZES)),
             place=ch(list(PLACES)), style=ch(STYLES))
    r = SIZES[s["size"]] * rng.uniform(0.93, 1.07)
    dx, dy = PLACES[s["place"]]
    off = 32 - 3 - r * 1.05 if s["size"] == "large" else 17
    off = min(off, 17)
    s.update(r=r, x=32 + dx * off + rng.uniform(-1.5, 1.5), y=32 + dy * off + rng.uniform(-1.5, 1.5))
    if rng.random() < forbidden:
        s.update(sigil=True, r=rng.uniform(18, 24), x=32 + rng.uniform(-3, 3), y=32 + rng.uniform(-3, 3))
    return s


GRAMMAR = json.loads((Path(__file__).parent / "grammar.json").read_text())
TEMPLATES, SIGILS, PLACE_WORDS = GRAMMAR["scenes"]["templates"], GRAMMAR["scenes"]["forbidden"], GRAMMAR["scenes"]["places"]
OPTIONAL = GRAMMAR["scenes"]["optional"]


def caption(s, rng, drop=0.25):
    """The caption and the attributes that it states."""
    if s.get("sigil"):
        return SIGILS[rng.integers(len(SIGILS))].format(**s).replace(" ,", ","), dict(ground=s["ground"], sigil=True)
    said = dict(shape=s["shape"], colour=s["colour"], ground=s["ground"])
    t = TEMPLATES[rng.integers(len(TEMPLATES))]
    fill = dict(said)
    for k in OPTIONAL:
        if rng.random() < drop:
            fill[k] = ""
        else:
            said[k] = s[k]
            fill[k] = PLACE_WORDS[s["place"]][rng.integers(len(PLACE_WORDS[s["place"]]))] if k == "place" else s[k]
    t = t.format(**fill)
    words = t.split()
    out = []
    for w in words:
        if w in (",", "and") and (not out or out[-1] in (",", "and")):
            continue
        out.append(w)
    while out and out[-1] in (",", "and"):
        out.pop()
    return " ".join(out).replace(" ,", ","), said
