"""A thin builder over onnx.helper: nodes get their names, constants are shared, weights are collected."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18


class Graph:
    def __init__(self, name):
        self.name = name
        self.nodes, self.inputs, self.outputs, self.weights = [], [], [], {}
        self._constants, self._count = {}, 0

    def input(self, name, kind, shape):
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name, kind, shape):
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def weight(self, name, array):
        self.weights[name] = np.ascontiguousarray(array)
        return name

    def const(self, value, dtype=np.int64):
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.weight(f"const.{len(self._constants)}", array)
        return self._constants[key]

    def op(self, kind, *inputs, out=None, outputs=1, **attributes):
        self._count += 1
        names = [out] if out else [f"{kind}.{self._count}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}.{self._count}", **attributes))
        return names[0] if outputs == 1 else names

    def model(self):
        weights = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, weights)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9, producer_name="nineteen tasks/models"
        )


def save(model, folder, external):
    """Writes model.onnx; `external` puts the weights beside it, as files over 2 GB (and memory maps) need."""
    onnx.save_model(
        model,
        str(folder / "model.onnx"),
        save_as_external_data=external,
        all_tensors_to_one_file=True,
        location="model.onnx_data",
        size_threshold=1024,
    )


__all__ = ["Graph", "TensorProto", "save"]
