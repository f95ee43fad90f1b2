"""A model of one's own, as the README says: one file, a dataclass, an entry, one YAML."""

from __future__ import annotations

import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import tinyruns
from dragoman import cli
from dragoman.compose import compose_config
from dragoman.config import MODELS
from dragoman.data.batching import Batch, length_mask
from dragoman.launch import run_training
from dragoman.models import seq2seq
from dragoman.runs import run_of


@dataclass
class LookConfig:
    """It has no key of the models that come along but the name."""

    name: str = "look"
    width: int = 8


class Memory(NamedTuple):
    keys_BSD: Tensor
    mask_BS: Tensor


class State(NamedTuple):
    number_B: Tensor  # tokens so far


class LookSeq2Seq(nn.Module):
    """Looks at the source with the embedding of the token before."""

    alignment_layer = "decoder.attention"

    def __init__(self, config: LookConfig, src_vocab: int, tgt_vocab: int) -> None:
        super().__init__()
        self.fast = True
        self.src = nn.Embedding(src_vocab, config.width)
        self.tgt = nn.Embedding(tgt_vocab, config.width)
        self.output = nn.Linear(config.width, tgt_vocab)

    def look(self, token_BT: Tensor, memory: Memory, weights: dict[str, Tensor] | None) -> Tensor:
        queries = self.tgt(token_BT)
        scores = queries @ memory.keys_BSD.transpose(1, 2)
        found = scores.masked_fill(~memory.mask_BS[:, None], -torch.inf).softmax(-1)
        if weights is not None:
            weights["decoder.attention"] = found[:, None]
        return queries + found @ memory.keys_BSD

    def forward(
        self, batch: Batch, teacher_forcing_BT: Tensor | None = None, weights: Any = None
    ) -> Tensor:
        memory = self.encode(batch.src_BS, batch.src_lengths_B)
        return batch.at_targets(self.look(batch.tgt_in_BT, memory, weights))

    def project(self, states_ND: Tensor) -> Tensor:
        return self.output(states_ND)

    def encode(self, src_BS: Tensor, src_lengths_B: Tensor, weights: Any = None) -> Memory:
        return Memory(self.src(src_BS), length_mask(src_lengths_B, src_BS.shape[1]))

    def init_state(self, memory: Memory) -> State:
        return State(torch.zeros(len(memory.keys_BSD), dtype=torch.long))

    def decode_step(
        self, token_B: Tensor, state: State, memory: Memory, weights: Any = None
    ) -> tuple[Tensor, State]:
        beams = len(token_B) // len(memory.keys_BSD)
        states = self.look(token_B.view(-1, beams), memory, weights)
        return self.project(states.flatten(0, 1)), State(state.number_B + 1)


def test_a_model_of_ones_own_works_as_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MODELS, "look", LookConfig)
    monkeypatch.setitem(seq2seq.MODELS, "look", LookSeq2Seq)
    configs = shutil.copytree(tinyruns.CONFIGS, tmp_path / "configs")
    (configs / "model" / "look.yaml").write_text("defaults: [look_schema, _self_]\nwidth: 12\n")
    monkeypatch.chdir(tmp_path)
    tinyruns.write_pairs(tmp_path / "text")
    for name in ("one", "two"):
        words = tinyruns.overrides(tmp_path, {"model.name": "look"}, run_name=name)
        config, experiment = compose_config(configs, [*words, "log.figures=true"])
        assert config.model == LookConfig(width=12)
        assert run_training(config, experiment) == 0
        assert run_of(config, experiment).steps() == [5, 10]
    assert run_training(config, experiment) == 0
    assert "nothing to do: the run is complete at step 10" in capsys.readouterr().err
    for words in (["translate", "one"], ["translate", "one", "two", "decode.beam_size=3"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Ein hund.\nHund.\n")))
        assert cli.main(words) == 0
        assert capsys.readouterr().out.count("\n") == 2
    assert cli.main(["evaluate", "one", "--split", "test"]) == 0
    assert cli.main(["report", "one", "--split", "test"]) == 0
    assert cli.main(["attention", "one", "--output", "a.png"]) == 0
    assert (tmp_path / "a.png").exists()
