"""ONNX graphs in the making: operations added one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dragoman import __version__
from dragoman.export.weights import Weights

# Old enough for every ONNX Runtime of the last years.
_OPSET, _IR_VERSION = 17, 8


class Graph:
    """Values are names; tensors and lists of whole numbers become constants."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def _name(self, value: str | Tensor | Sequence[int]) -> str:
        from onnx import numpy_helper

        if isinstance(value, str):
            return value
        array = value.numpy() if isinstance(value, Tensor) else np.array(value, np.int64)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def many(self, count: int, kind: str, *inputs: Any, **attributes: Any) -> list[str]:
        """Add an operation; return the names of its first ``count`` results."""
        from onnx import helper

        names = [f"{kind}_{len(self.nodes)}_{number}" for number in range(count)]
        places = [self._name(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, places, names, **attributes))
        return names

    def __call__(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        """Add an operation with one result; return its name."""
        return self.many(1, kind, *inputs, **attributes)[0]

    def linear(self, x: str, weights: Weights, name: str) -> str:
        """Add ``torch.nn.Linear``, with or without a bias, over the last dimension."""
        out = self("MatMul", x, weights[f"{name}.weight"].t())
        bias = weights.get(f"{name}.bias")
        return out if bias is None else self("Add", out, bias)

    def input(self, name: str, kind: type, *shape: str | int) -> str:
        """Declare an input; named sizes are open."""
        self.inputs.append(_typed(name, kind, shape))
        return name

    def output(self, name: str, value: str, kind: type, *shape: str | int) -> None:
        """Declare a value an output."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(_typed(name, kind, shape))

    def write(self, name: str) -> bytes:
        """Return the graph as a file, checked."""
        import onnx
        from onnx import helper

        graph = helper.make_graph(
            self.nodes, name, self.inputs, self.outputs, initializer=self.constants
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="dragoman",
            producer_version=__version__,
        )
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


def _typed(name: str, kind: type, shape: Sequence[str | int]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape
    )
