"""A run to hand on: one folder with one checkpoint's config, tokenizer and weights.

Every ``dragoman`` command takes it for a RUN, and ``train.init_from`` begins with it. In half
precision it is half the size; what it computes in is still float32.
"""

from __future__ import annotations

import hashlib
import json
from typing import cast

import torch
from torch import nn

from dragoman import __version__, settings
from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError
from dragoman.export.usage import readme, tokenizer_files
from dragoman.models.weights import tensor_bytes, weights_of
from dragoman.runs import FORMAT_VERSION

_TYPES = {"float32": torch.float32, "float16": torch.float16}


def export(translator: Translator, quantization: str, origin: str) -> dict[str, bytes]:
    """Return the files that make a folder a run of one checkpoint; ``origin`` names it.

    Raises:
        DragomanError: if a weight is too large for half precision.
    """
    weights = weights_of(cast(nn.Module, translator.models[0]))
    stored = {name: weight.to(_TYPES[quantization]) for name, weight in weights.items()}
    for name, weight in stored.items():
        if not torch.isfinite(weight).all():
            raise DragomanError(f"--quantization: {name} does not fit into {quantization}")
    files = {
        "config.yaml": settings.as_yaml(settings.portable(translator.config)).encode(),
        "model.safetensors": tensor_bytes(stored),
        **tokenizer_files(translator),
    }
    state = {
        "format_version": FORMAT_VERSION,
        "scored": "raw",
        "versions": {"dragoman": __version__, "torch": torch.__version__},
        "digests": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    return {
        **files,
        "state.json": f"{json.dumps(state, indent=2)}\n".encode(),
        "README.txt": readme(translator, "dragoman", origin),
    }
