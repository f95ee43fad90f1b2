from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from dragoman.errors import DragomanError
from dragoman.models.seq2seq import build_model
from dragoman.models.weights import load_weights, read_tensors, weights_of, write_tensors


@pytest.mark.parametrize("name", tiny.FEW)
def test_weights_come_back_to_the_bit(name: str, tmp_path: Path) -> None:
    model = tiny.build(tiny.FEW[name], dtype=torch.float32)
    path = tmp_path / "model.safetensors"
    write_tensors(path, weights_of(model))
    other = build_model(tiny.FEW[name], tiny.VOCAB, tiny.VOCAB, seed=9).eval()
    load_weights(other, read_tensors(path), path)
    mine, theirs = model.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    batch = tiny.batch([3, 5], [4, 2])
    assert torch.equal(model(batch), other(batch))


def test_a_tied_matrix_is_written_once_and_tied_again(tmp_path: Path) -> None:
    config = tiny.transformer(tie_embeddings="three_way")
    model, path = tiny.build(config, dtype=torch.float32), tmp_path / "model.safetensors"
    write_tensors(path, weights_of(model))
    stored = read_tensors(path)
    tied = {"src_embedding.weight", "tgt_embedding.weight", "output.weight"}
    assert len(tied & stored.keys()) == 1
    other = build_model(config, tiny.VOCAB, tiny.VOCAB)
    load_weights(other, stored, path)
    assert torch.equal(other.output.weight, model.output.weight)
    assert other.output.weight is other.src_embedding.weight is other.tgt_embedding.weight


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    weights = weights_of(tiny.build(tiny.rnn(), dtype=torch.float32))
    backwards = {name: weights[name].t().contiguous().t() if weights[name].dim() == 2
                 else weights[name] for name in reversed(weights)}  # fmt: skip
    write_tensors(tmp_path / "a", weights)
    write_tensors(tmp_path / "b", backwards)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    model = tiny.build(tiny.rnn(), dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in weights_of(model).items()}
    weights = {name: tensor + 1 for name, tensor in before.items()}
    bias = weights.pop("output.bias")
    for wrong, words in (
        (weights, "missing output.bias"),
        ({**weights, "output.bias": bias, "extra": bias}, "unexpected extra"),
        ({**weights, "output.bias": bias[:5]}, r"output.bias is \(5,\), expected \(12,\)"),
    ):
        with pytest.raises(DragomanError, match=words) as caught:
            load_weights(model, wrong, tmp_path / "model.safetensors")
        assert str(tmp_path / "model.safetensors") in str(caught.value)
        assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(model).items())
    with pytest.raises(DragomanError, match=r"and \d+ more"):
        load_weights(model, {}, tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_unreadable_files_are_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DragomanError, match="incomplete" if content is None else "safetensors"):
        read_tensors(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, weights_of(tiny.build(tiny.rnn(), dtype=torch.float32)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DragomanError, match="not a readable safetensors file"):
        read_tensors(path)
