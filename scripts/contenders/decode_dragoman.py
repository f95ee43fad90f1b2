"""Dragoman's own search with the weights that ``train_marian.py --keep`` left."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from marian_layout import from_marian
from safetensors.torch import load_file
from testset import BEAM, LONGEST, decode
from torch.nn.utils.rnn import pad_sequence
from window import arguments

from dragoman import __version__
from dragoman.compose import compose_config
from dragoman.config import DecodeConfig
from dragoman.data.tokenizers import BOS, EOS, PAD, SPECIALS, UNK
from dragoman.decoding.search import search
from dragoman.models.seq2seq import Seq2Seq, build_model, count_parameters

CONFIGS = Path(__file__).parents[2] / "configs"
# Where Marian's vocabulary has our special tokens; it begins with its pad token.
MARIAN = {PAD: 2, UNK: 1, BOS: 2, EOS: 0}


def load(folder: Path) -> Seq2Seq:
    """Return the model with Marian's weights."""
    weights = from_marian(load_file(folder / "model.safetensors"), layers=3)
    for name in ("src_embedding.weight", "tgt_embedding.weight", "output.weight", "output.bias"):
        specials = weights[name][[MARIAN[token] for token in range(len(SPECIALS))]]
        weights[name] = torch.cat([specials, weights[name][len(MARIAN) - 1 :]])
    weights["output.bias"][BOS] = -1e9  # Marian has it once, as its pad token
    config, _ = compose_config(CONFIGS, ["+experiment=benchmark", "model.norm=post"])
    sizes = (len(weights["src_embedding.weight"]), len(weights["output.weight"]))
    model = build_model(config.model, *sizes, seed=0)
    model.load_state_dict(weights)
    return cast(Seq2Seq, model.eval())


def main() -> None:
    """Translate the test set."""
    args = arguments()
    args.sorted = True  # as ``dragoman translate`` does
    model = load(args.data / "marian")
    options = {
        "beam_size": BEAM,
        "length_penalty": 0.0,
        "stopping": "first",
        "max_length_ratio": 0.0,
        "max_length_extra": LONGEST - 1,
    }

    def translate(rows: list[list[int]], width: int) -> list[list[int]]:
        src = pad_sequence([torch.tensor([*row, EOS]) for row in rows], True, PAD)
        lengths = torch.tensor([len(row) + 1 for row in rows])
        config = DecodeConfig(method="beam" if width > 1 else "greedy", **options)
        return [found[0].tokens for found in search([model], src, lengths, config)]

    figures = {
        "tool": "Dragoman",
        "version": __version__,
        "parameters": count_parameters(model),
    }
    decode(args, figures, list(SPECIALS), translate)


if __name__ == "__main__":
    main()
