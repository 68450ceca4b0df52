"""Portraits: drawn faces with an identity, and everything about them that is not identity."""
import numpy as np
from scenes import X, Y, SIDE, cover

HAIR_COLOURS = {"black": (30, 26, 28), "brown": (100, 62, 36), "blond": (228, 190, 110), "red": (180, 70, 34), "grey": (165, 165, 170), "blue": (60, 90, 190)}
HAIR = ["short", "long", "curly", "bald"]
EXPRESSIONS = ["neutral", "smiling", "sad", "surprised"]
LIGHTS = ["even", "left", "right"]
STYLES = ["photo", "cartoon", "sketch"]
GROUNDS = {"grey": (128, 128, 128), "pink": (250, 190, 205), "sky": (150, 205, 245), "sand": (225, 205, 160), "mint": (170, 225, 190), "navy": (30, 40, 90)}
TRAITS = ["width", "jaw", "eye_gap", "eye_size", "eye_height", "nose_length", "nose_width", "mouth_width", "brow", "skin", "iris", "mark"]


def identity(rng):
    u = lambda a, b: float(rng.uniform(a, b))
    return dict(width=u(.80, 1.12), jaw=u(.70, 1.05), eye_gap=u(.78, 1.25), eye_size=u(.75, 1.35), eye_height=u(-2.2, 2.2),
                nose_length=u(.7, 1.4), nose_width=u(.7, 1.5), mouth_width=u(.7, 1.35), brow=u(.5, 2.2), skin=u(0, 1),
                iris=int(rng.integers(4)), mark=int(rng.integers(6)))


def nuisance(rng, small=0.0):
    ch = lambda xs: xs[rng.integers(len(xs))]
    half = rng.random() < small
    k = rng.uniform(.42, .55) if half else rng.uniform(.92, 1.05)
    m = 14 if half else 2.0
    return dict(hair=ch(HAIR), hair_colour=ch(list(HAIR_COLOURS)), expression=ch(EXPRESSIONS), light=ch(LIGHTS), style=ch(STYLES), ground=ch(list(GROUNDS)),
                x=32 + rng.uniform(-m, m), y=33 + rng.uniform(-m, m), k=k, turn=rng.uniform(-.07, .07))


IRIS = [(90, 60, 30), (60, 110, 190), (60, 130, 70), (40, 40, 44)]
LIGHT_SKIN, DARK_SKIN = np.array((250, 215, 190.0)), np.array((110, 70, 48.0))


def ellipse(px, py, cx, cy, rx, ry):
    qx, qy = (px - cx) / rx, (py - cy) / ry
    q = np.sqrt(qx * qx + qy * qy)
    g = np.sqrt((qx / rx) ** 2 + (qy / ry) ** 2)
    return q * (q - 1.0) / np.maximum(g, 1e-9)


def capsule(px, py, ax, ay, bx, by, r):
    ex, ey = bx - ax, by - ay
    t = np.clip(((px - ax) * ex + (py - ay) * ey) / max(ex * ex + ey * ey, 1e-9), 0, 1)
    return np.hypot(px - ax - ex * t, py - ay - ey * t) - r


def draw(who, how, img=None):
    """The picture (64×64×3 u8) and five landmarks in pixels: eyes, nose, corners of the mouth."""
    if img is None:
        img = np.empty((SIDE, SIDE, 3)); img[:] = GROUNDS[how["ground"]]
    k, co, si = how["k"], np.cos(how["turn"]), np.sin(how["turn"])
    dx, dy = X - how["x"], Y - how["y"]
    px, py = (co * dx + si * dy) / k, (-si * dx + co * dy) / k
    put = lambda x, y: (how["x"] + k * (co * x - si * y), how["y"] + k * (si * x + co * y))
    skin = LIGHT_SKIN * (1 - who["skin"]) + DARK_SKIN * who["skin"]
    hair = np.array(HAIR_COLOURS[how["hair_colour"]], dtype=float)
    w, j = 17.0 * who["width"], who["jaw"]

    def paint(img, d, c):
        a = cover(d * k)
        return img * (1 - a) + a * np.asarray(c, dtype=float)

    if how["hair"] == "long":
        img = paint(img, np.maximum(ellipse(px, py, 0, 2, w + 5, 27), py - 24), hair)
    elif how["hair"] == "curly":
        for t in range(9):
            an = np.pi * (1.02 + 0.96 * t / 8)
            img = paint(img, np.hypot(px - (w + 1) * np.cos(an), py + 4 - 21 * np.sin(an)) - 6.0, hair)
    img = paint(img, capsule(px, py, 0, 14, 0, 34, 7.0), skin * 0.88)
    img = paint(img, ellipse(px, py, 0, 40, 24, 12), hair * 0.3 + np.array((60, 70, 100.0)) * 0.7)
    for s in (-1, 1):
        img = paint(img, ellipse(px, py, s * (w + .3), 1.5, 3.0, 4.6), skin * 0.92)
    upper = ellipse(px, py, 0, -1, w, 20)
    lower = ellipse(px, py, 0, -1, w, 23)
    jaw = ellipse(px, py, 0, 8, w * j, 15)
    face = np.minimum(np.where(py < -1, upper, np.maximum(lower, -1 - py)), jaw)
    face = np.minimum(face, np.maximum(ellipse(px, py, 0, -1, w, 21), py - 9))
    img = paint(img, face, skin)
    if how["hair"] != "bald":
        cap = np.maximum(ellipse(px, py, 0, -3, w + 2.2, 21), py + 10.5)
        img = paint(img, cap, hair)
    gap, ey = 7.4 * who["eye_gap"], -3.0 + who["eye_height"]
    rx, ry = 3.6 * who["eye_size"], 2.4 * who["eye_size"]
    if how["expression"] == "surprised":
        ry = ry * 1.35
    dark = np.minimum(skin * 0.35, 70)
    for s in (-1, 1):
        img = paint(img, ellipse(px, py, s * gap, ey, rx, ry), (250, 250, 250))
        img = paint(img, np.hypot(px - s * gap, py - ey) - min(ry, rx) * .86, IRIS[who["iris"]])
        img = paint(img, np.hypot(px - s * gap, py - ey) - min(ry, rx) * .42, (12, 12, 12))
        lift = {"neutral": 0, "smiling": -.3, "sad": -.4, "surprised": -2.0}[how["expression"]]
        tilt = {"sad": -1.6, "surprised": .4}.get(how["expression"], .5)
        by = ey - ry - 2.6 + lift
        img = paint(img, capsule(px, py, s * (gap - 3.4), by + (tilt if tilt < 0 else 0), s * (gap + 3.6), by + (0 if tilt < 0 else tilt), .55 + .45 * who["brow"]), np.minimum(hair, 110) if how["hair"] != "bald" else dark)
    nl, nw = 6.2 * who["nose_length"], 2.6 * who["nose_width"]
    img = paint(img, capsule(px, py, 0, ey + 2.5, 0, ey + nl, .7), skin * .82)
    img = paint(img, ellipse(px, py, 0, ey + nl + .8, nw, 1.5), skin * .74)
    nose = (0, ey + nl + .8)
    mw, my = 6.2 * who["mouth_width"], 13.2
    lips = skin * .4 + np.array((190, 50, 60.0)) * .6
    if how["expression"] == "surprised":
        img = paint(img, ellipse(px, py, 0, my + .5, mw * .55, 3.4), (90, 20, 30))
        corners = [(-mw * .55, my + .5), (mw * .55, my + .5)]
    else:
        bend = {"neutral": 0.0, "smiling": 2.6, "sad": -2.2}[how["expression"]]
        pts = [(-mw + 2 * mw * t / 6, my + bend * (1 - (2 * t / 6 - 1) ** 2) - bend * .6) for t in range(7)]
        d = np.min([capsule(px, py, *pts[t], *pts[t + 1], 1.25) for t in range(6)], axis=0)
        img = paint(img, d, lips)
        corners = [pts[0], pts[-1]]
    m = who["mark"]
    if m == 1:
        img = paint(img, np.hypot(px - 9, py - 7) - 1.3, dark)
    elif m == 2:
        for q in ((-8, 5), (-10.5, 7), (-6.5, 7.5), (8, 5), (10.5, 7), (6.5, 7.5)):
            img = paint(img, np.hypot(px - q[0], py - q[1]) - .75, skin * .62)
    elif m == 3:
        img = paint(img, capsule(px, py, -9, 3, -6, 10, .6), skin * .55)
    elif m == 4:
        img = paint(img, np.abs(np.hypot(px + gap, py - ey) - rx * 1.45) - .5, (20, 20, 20))
        img = paint(img, np.abs(np.hypot(px - gap, py - ey) - rx * 1.45) - .5, (20, 20, 20))
        img = paint(img, capsule(px, py, -gap + rx * 1.45, ey, gap - rx * 1.45, ey, .5), (20, 20, 20))
    elif m == 5:
        img = paint(img, np.maximum(ellipse(px, py, 0, 17.5, w * j * .72, 5.0), 15.3 - py), np.minimum(hair, 120))
    if how["style"] == "cartoon":
        img = np.round(np.clip(img, 0, 255) / 51.0) * 51.0
    elif how["style"] == "sketch":
        g = img @ np.array((.299, .587, .114))
        img = np.repeat((g * .8 + 40)[..., None], 3, 2) * np.array((1.0, .98, .92))
    if how["light"] != "even":
        s = -1 if how["light"] == "left" else 1
        img = img * (1 + s * .28 * (X - 32) / 32)[..., None]
    pts = [put(-gap, ey), put(gap, ey), put(*nose), put(*corners[0]), put(*corners[1])]
    return np.clip(np.round(img), 0, 255).astype(np.uint8), np.array(pts)


def caption(h, rng, drop=.2):
    said = {}
    parts = []
    st = {"photo": "photo", "cartoon": "cartoon", "sketch": "sketch"}[h["style"]]
    parts.append(("a %s portrait" if rng.random() < .6 else "%s of a face") % st); said["style"] = h["style"]
    for k in ("expression", "hair", "light", "ground"):
        if rng.random() < drop:
            continue
        said[k] = h[k]
        if k == "expression":
            parts.append(h[k])
        elif k == "hair":
            said["hair_colour"] = h["hair_colour"]
            parts.append("bald" if h["hair"] == "bald" else "%s %s hair" % (h["hair"], h["hair_colour"]))
            if h["hair"] == "bald":
                said.pop("hair_colour")
        elif k == "light":
            parts.append({"even": "even light", "left": "light from the left", "right": "light from the right"}[h[k]])
        else:
            parts.append("%s background" % h[k])
    head, rest = parts[0], parts[1:]
    rng.shuffle(rest)
    return ", ".join([head] + list(rest)), said
