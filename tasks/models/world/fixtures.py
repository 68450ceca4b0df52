"""Writes what the renderers draw, for ports of them: fixtures.py OUT_DIR."""
import base64
import json
import sys
from pathlib import Path

import numpy as np

import faces
import scenes


def main(out):
    rng = np.random.default_rng(101)
    drawn = []
    for n in range(12):
        who, how = faces.identity(rng), faces.nuisance(rng, .3)
        picture, points = faces.draw(who, how)
        drawn.append(dict(who=who, how={k: float(v) if isinstance(v, np.floating) else v for k, v in how.items()},
                          rgb=base64.b64encode(picture.tobytes()).decode(), landmarks=points.tolist()))
    (out / "portraits.json").write_text(json.dumps(drawn, indent=0) + "\n")
    drawn = [dict(scene=s, rgb=base64.b64encode(scenes.draw(s).tobytes()).decode()) for s in (scenes.scene(rng, .1) for _ in range(12))]
    (out / "scenes.json").write_text(json.dumps(drawn, indent=0) + "\n")


main(Path(sys.argv[1]))
