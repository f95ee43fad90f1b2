"""Weights as safetensors: by parameter name, a tied one once, nothing missing and nothing extra."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dragoman.errors import DragomanError
from dragoman.files import read_file, write_atomic

Tensors = dict[str, Tensor]


def weights_of(model: nn.Module) -> Tensors:
    """Return the parameters by name; ``named_parameters`` gives a tied one under one name only."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return a safetensors file. No metadata: their order would change the bytes."""
    # Names sorted and storage made plain, so that equal weights are equal files.
    return save({name: tensors[name].cpu().contiguous() for name in sorted(tensors)})


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 (hexadecimal) of a model's weights."""
    return hashlib.sha256(tensor_bytes(weights_of(model))).hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file."""
    write_atomic(path, tensor_bytes(tensors))


def read_tensors(path: Path) -> Tensors:
    """Read a safetensors file.

    Raises:
        DragomanError: if it is missing or corrupt.
    """
    try:
        return load(read_file(path))
    except FileNotFoundError:
        raise DragomanError(f"{path}: no such file; the checkpoint is incomplete") from None
    except (OSError, SafetensorError) as problem:
        raise DragomanError(f"{path}: not a readable safetensors file ({problem})") from None


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Copy tensors into a model, refusing a missing, unexpected or misshapen one.

    Raises:
        DragomanError: naming the file and the tensors at fault.
    """
    own = dict(model.named_parameters())
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(parameter.shape)}"
        for name, parameter in own.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DragomanError(
            f"{origin}: not the weights of this model: {', '.join(problems[:3])}{more}"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
