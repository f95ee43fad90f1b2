"""Whether weights fit a config, found out before any memory is taken for the model.

A config from elsewhere may ask for more memory than there is; its weights would show that it is not
theirs, but only once the model is built. So it is built first on PyTorch's ``meta`` device, where
tensors have shapes and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dragoman.models.seq2seq import build_model
from dragoman.models.weights import Tensors, load_weights


class _Undrawn(TorchFunctionMode):
    """Leaves out drawing and scaling, for which that device would import half of PyTorch."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name, options = getattr(function, "__name__", ""), kwargs or {}
        scaled = name == "mul" and not isinstance(args[1], Tensor)
        if name in ("normal_", "uniform_") or scaled:
            return args[0] if args else options["tensor"]
        return (torch.empty if name in ("rand", "randn") else function)(*args, **options)


def check_shapes(model: Any, vocabularies: tuple[int, int], tensors: Tensors, origin: Path) -> None:
    """Refuse weights that are not those of the model that a config describes.

    A model of one's own that cannot be built on the ``meta`` device is not checked.

    Raises:
        DragomanError: as ``load_weights``.
    """
    with suppress(RuntimeError, TypeError), torch.device("meta"), _Undrawn():
        load_weights(build_model(model, *vocabularies), tensors, origin)
