"""What every format needs of a trained model: its weights by name, and the package that writes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import cast

from torch import Tensor, nn

from dragoman.errors import DragomanError
from dragoman.models.seq2seq import Seq2Seq

Weights = dict[str, Tensor]


def plain_weights(model: Seq2Seq) -> Weights:
    """Return copies of all parameters in float32 on the CPU; a tied one under each of its names."""
    state = cast(nn.Module, model).state_dict()
    # Copies: CTranslate2 rounds to int8 in place.
    return {name: w.detach().cpu().float().clone() for name, w in state.items()}


def require(package: str) -> None:
    """Refuse to go on without a package of one of Dragoman's extras.

    Raises:
        DragomanError: saying how to install it.
    """
    if find_spec(package) is None:
        raise DragomanError(
            f"--format {package}: the package {package} is not installed; "
            f"pip install 'dragoman[{package}]' brings it"
        )
