from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dragoman.models.positions import (
    POSITIONS,
    LearnedPositions,
    RotaryPositions,
    ShawPositions,
    SinusoidalPositions,
    T5Positions,
    relative_distance,
    sinusoids,
)

D, H, A = 12, 2, 6


def make(name: str, causal: bool = False, longest: int = 9) -> torch.nn.Module:
    return POSITIONS[name](D, H, longest, causal).double()


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_sinusoids_are_the_closed_formula() -> None:
    table = sinusoids(torch.arange(700), D)
    for place in (0, 1, 2, 17, 699):
        for i in range(D // 2):
            angle = place / 10000 ** (2 * i / D)
            assert float(table[place, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-11)
            assert float(table[place, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-11)


def test_sinusoids_have_no_longest_sentence() -> None:
    positions = SinusoidalPositions(D, H, 4, True)
    expected = sinusoids(torch.arange(30, 80), D)
    np.testing.assert_array_equal(positions.added(30, 50), expected)
    # The grown table serves short sentences as before, and is no part of the checkpoint.
    np.testing.assert_array_equal(positions.added(0, 3), sinusoids(torch.arange(3), D))
    assert not positions.state_dict()


def test_learned_positions_past_the_table_share_its_last() -> None:
    positions = LearnedPositions(D, H, 5, False).double()
    added = positions.added(3, 4)
    for t, place in enumerate((3, 4, 4, 4)):
        assert torch.equal(added[t], positions.table[place])


def test_rotation_turns_pairs_by_the_position() -> None:
    positions = RotaryPositions(D, H, 9, False)
    x = double(1, H, 3, A)
    turned = positions.rotate(x, 4)
    for h, t, i in np.ndindex(H, 3, A // 2):
        angle = (4 + t) / 10000 ** (2 * i / A)
        a, b = x[0, h, t, 2 * i : 2 * i + 2].tolist()
        expected = (
            a * math.cos(angle) - b * math.sin(angle),
            a * math.sin(angle) + b * math.cos(angle),
        )
        assert turned[0, h, t, 2 * i : 2 * i + 2].tolist() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_rotation_is_the_same_in_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    positions, x = POSITIONS["rotary"](D, H, 9, False), torch.randn(2, H, 7, A)
    turned = positions.rotate(x, 3)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(positions.rotate(x, 3), turned)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    positions = RotaryPositions(D, H, 9, False)
    query, key = double(1, H, 1, A), double(1, H, 1, A)

    def score(query_at: int, key_at: int) -> Tensor:
        turned = positions.rotate(query, query_at), positions.rotate(key, key_at)
        return (turned[0] * turned[1]).sum(-1)

    for shift in (1, 10, 400):
        torch.testing.assert_close(score(7, 3), score(7 + shift, 3 + shift), rtol=0, atol=1e-11)
    assert not torch.allclose(score(7, 3), score(7, 4), atol=1e-3)
    assert not torch.allclose(score(7, 3), score(3, 7), atol=1e-3)
    torch.testing.assert_close(score(5, 5), (query * key).sum(-1))


def slow_bucket(distance: int, buckets: int, far: int, causal: bool) -> int:
    """Return the bucket of Raffel et al. (2020) by counting, in whole numbers.

    Half of the buckets of a side hold one distance each; the others share what lies between there
    and ``far`` in equal ratios, so bucket exact + k starts where (away / exact) ^ rest reaches
    (far / exact) ^ k.
    """
    start = 0
    if causal:
        away = max(-distance, 0)
    else:
        buckets //= 2
        start, away = (buckets if distance > 0 else 0), abs(distance)
    exact = buckets // 2
    if away < exact:
        return start + away
    rest, k = buckets - exact, 0
    while k + 1 < rest and away**rest * exact ** (k + 1) >= far ** (k + 1) * exact**rest:
        k += 1
    return start + exact + k


@pytest.mark.parametrize("causal", [False, True])
def test_t5_buckets_are_those_of_the_slow_count(causal: bool) -> None:
    positions = T5Positions(D, H, 9, causal)
    distances = list(range(-300, 301))
    found = positions.buckets(torch.tensor(distances)).tolist()
    expected = [slow_bucket(d, 32, 128, causal) for d in distances]
    assert found == expected
    assert set(found) == set(range(32)) - (set() if causal else {16})


def test_t5_bias_is_a_table_look_up() -> None:
    positions = make("t5", causal=False)
    bias = positions.bias(double(2, H, 3, A), 4, 9)
    for h, t, s in np.ndindex(H, 3, 9):
        bucket = slow_bucket(s - (4 + t), 32, 128, False)
        assert bias[h, t, s].item() == positions.table[h, bucket].item()


def test_t5_decoder_gives_the_future_no_bucket_of_its_own() -> None:
    positions = T5Positions(D, H, 9, True)
    assert positions.buckets(torch.tensor([0, 1, 50])).tolist() == [0, 0, 0]


def test_shaw_bias_is_its_loop() -> None:
    positions = ShawPositions(D, H, 9, False).double()
    query = double(2, H, 3, A)
    offset, keys = 18, 40
    bias = positions.bias(query, offset, keys)
    assert bias.shape == (2, H, 3, keys)
    for b, h, t, s in np.ndindex(*bias.shape):
        clipped = max(-16, min(16, s - (offset + t)))
        vector = positions.vectors[clipped + 16]
        expected = sum(
            x * y for x, y in zip(query[b, h, t].tolist(), vector.tolist(), strict=True)
        ) / math.sqrt(A)
        assert bias[b, h, t, s].item() == pytest.approx(expected, abs=1e-12)


def test_relative_distance_is_key_minus_query() -> None:
    assert relative_distance(2, 3, 5, torch.device("cpu")).tolist() == [
        [-3, -2, -1, 0, 1],
        [-4, -3, -2, -1, 0],
    ]


@pytest.mark.parametrize("name", POSITIONS)
def test_offsets_go_on_where_the_whole_sequence_would(name: str) -> None:
    positions = make(name, causal=True)
    query, added = double(2, H, 7, A), positions.added(0, 7)
    parts = [positions.added(0, 3), positions.added(3, 4)]
    if added is None:
        assert parts == [None, None]
    else:
        torch.testing.assert_close(torch.cat(parts), added, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        torch.cat([positions.rotate(query[:, :, t : t + 1], t) for t in range(7)], 2),
        positions.rotate(query, 0),
        rtol=0,
        atol=1e-14,
    )
    whole = positions.bias(query, 0, 7)
    steps = [positions.bias(query[:, :, t : t + 1], t, 7) for t in range(7)]
    if whole is None:
        assert steps == [None] * 7
    else:
        torch.testing.assert_close(torch.cat(steps, -2), whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", POSITIONS)
def test_each_encoding_acts_in_one_place(name: str) -> None:
    positions = make(name)
    query = double(2, H, 7, A)
    acts = {
        "added": positions.added(1, 7) is not None,
        "rotate": not torch.equal(positions.rotate(query, 1), query),
        "bias": positions.bias(query, 0, 7) is not None,
    }
    place = {"sinusoidal": "added", "learned": "added", "rotary": "rotate", "none": None}
    assert [p for p, found in acts.items() if found] == (
        [place.get(name, "bias")] if name != "none" else []
    )


@pytest.mark.parametrize("name", POSITIONS)
def test_type_of_the_input_is_kept(name: str) -> None:
    positions = POSITIONS[name](D, H, 9, False).to(torch.bfloat16)
    x = torch.randn(2, 7, D).to(torch.bfloat16)
    added = positions.added(2, 7)
    assert added is None or added.dtype == torch.bfloat16
    assert positions.rotate(x.view(2, 7, H, A).transpose(1, 2), 2).dtype == torch.bfloat16
