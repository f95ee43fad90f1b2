"""The contract between models and everything else, and the table of models.

Shapes: B batch, R rows (one or more hypotheses of each sentence of the batch), S source length,
T target length, N real target tokens, D width, H heads, V vocabulary.

Search, evaluation and export use only the calls of ``Seq2Seq``. Every tensor in ``Memory`` and
``State`` has the batch first, so that ``reorder`` serves every model.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from dragoman.data.batching import Batch
from dragoman.models.attention import Weights as Weights
from dragoman.models.rnn import RNNSeq2Seq
from dragoman.models.transformer import TransformerSeq2Seq

Memory = Any
State = Any


class Seq2Seq(Protocol):
    """An encoder-decoder. Memory and State are NamedTuples of the model's own.

    ``fast`` may be set to False: the model then computes the same numbers in the plainest way.
    ``alignment_layer`` is the name, in ``Weights``, of the one attention from target to source that
    stands for the model: it aligns words, and pictures show it. None: there is none.
    """

    fast: bool
    output: nn.Linear
    alignment_layer: str | None

    def __call__(
        self, batch: Batch, teacher_forcing_BT: Tensor | None = None, weights: Weights | None = None
    ) -> Tensor:
        """Return decoder states (N, D) at the real target positions, in the order of targets_N.

        ``teacher_forcing_BT`` is bool: True feeds the reference token at that position, False the
        model's own best guess. None feeds the reference everywhere.
        """

    def project(self, states_ND: Tensor) -> Tensor:
        """Return logits (N, V), which is what ``output`` makes of the states."""

    def encode(
        self, src_BS: Tensor, src_lengths_B: Tensor, weights: Weights | None = None
    ) -> Memory:
        """Return everything the decoder needs of the source, cached projections included."""

    def init_state(self, memory: Memory) -> State:
        """Return the decoder's state before its first step."""

    def decode_step(
        self, token_R: Tensor, state: State, memory: Memory, weights: Weights | None = None
    ) -> tuple[Tensor, State]:
        """Feed one token per row; return the logits (R, V) of the next and the new state.

        The rows of token and state are the hypotheses for the memory's rows, sentence by sentence.
        """

    def parameters(self) -> Any:
        """As ``nn.Module.parameters``."""


Tree = TypeVar("Tree")


def reorder(tree: Tree, index: Tensor) -> Tree:
    """Select rows of every tensor in a Memory or State (beams, finished sentences)."""
    if isinstance(tree, Tensor):
        return tree.index_select(0, index)  # type: ignore[return-value]
    assert isinstance(tree, tuple)
    parts = [reorder(part, index) for part in tree]
    named = hasattr(tree, "_fields")
    return type(tree)(*parts) if named else type(tree)(parts)


def build_model(config: Any, src_vocab: int, tgt_vocab: int, seed: int | None = None) -> nn.Module:
    """Build a model with fresh weights; with ``seed``, the same ones every time."""
    with torch.random.fork_rng(
        devices=[], enabled=seed is not None
    ):  # weights are drawn on the CPU
        if seed is not None:
            torch.manual_seed(seed)
        return MODELS[config.name](config, src_vocab, tgt_vocab)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trained parameters, tied ones counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# Each is built from its config, which ``dragoman.config.MODELS`` has under the same name, and the
# sizes of the source and the target vocabulary.
MODELS: dict[str, type[nn.Module]] = {"rnn": RNNSeq2Seq, "transformer": TransformerSeq2Seq}
