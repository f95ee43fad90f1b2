from __future__ import annotations

import math
from typing import Any

import pytest
import slow
import torch
from torch import Tensor, nn

import tiny
from dragoman.config import DecodeConfig
from dragoman.data.batching import pad
from dragoman.data.ragged import ragged
from dragoman.data.tokenizers import BOS, EOS, PAD
from dragoman.decoding.search import Hypothesis, length_penalty, search
from dragoman.errors import DragomanError

LENGTHS = [3, 6, 1, 4, 2]


def run(models: list[Any], sources: list[list[int]], config: DecodeConfig) -> Any:
    """Search all sentences as one batch."""
    table = ragged(sources)
    return search(models, torch.from_numpy(pad(table)), torch.from_numpy(table.lengths), config)


def tokens_of(found: list[list[Hypothesis]]) -> list[list[list[int]]]:
    return [[hypothesis.tokens for hypothesis in row] for row in found]


class Spy(nn.Module):
    """Passes everything on and counts the rows of every step."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.rows = model, []

    def encode(self, *arguments: Any) -> Any:
        return self.model.encode(*arguments)

    def init_state(self, memory: Any) -> Any:
        return self.model.init_state(memory)

    def decode_step(self, token_B: Tensor, state: Any, memory: Any) -> Any:
        self.rows.append(len(token_B))
        return self.model.decode_step(token_B, state, memory)


@pytest.mark.parametrize("form", ["gnmt", "power"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("length", [1, 2, 7, 50])
def test_length_penalty_is_its_formula(length: int, alpha: float, form: str) -> None:
    expected = {"gnmt": (5 + length) ** alpha / 6**alpha, "power": length**alpha}[form]
    assert length_penalty(length, alpha, form) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", tiny.FEW)
def test_beam_of_one_is_greedy_is_the_slow_loop(name: str) -> None:
    model = tiny.fluent(name)
    sources = tiny.sentences(LENGTHS)
    found = run([model], sources, tiny.decode(method="greedy"))
    for beam in (
        tiny.decode(beam_size=1),
        tiny.decode(beam_size=1, stopping="first", length_penalty=0.0),
    ):
        assert tokens_of(run([model], sources, beam)) == tokens_of(found)
    expected = [slow.greedy([model], source, tiny.decode()) for source in sources]
    assert [row[0].tokens for row in found] == expected
    assert len({len(tokens) for tokens in expected}) > 2


@pytest.mark.parametrize("name", tiny.FEW)
@pytest.mark.parametrize(
    "changes",
    [
        {"beam_size": 3},
        {"beam_size": 4, "nbest": 4, "length_penalty": 0.6},
        {"beam_size": 3, "nbest": 2, "stopping": "first", "length_penalty_form": "power"},
        {"beam_size": 2, "stopping": "first", "length_penalty": 0.0},
        {"beam_size": 3, "no_repeat_ngram": 2, "min_length": 3, "nbest": 3},
        {"beam_size": 3, "max_length_ratio": 1.5, "max_length_extra": 1, "nbest": 3},
    ],
    ids=lambda changes: "-".join(f"{key}={value}" for key, value in changes.items()),
)
def test_beam_is_the_slow_beam(name: str, changes: dict[str, Any]) -> None:
    """The cached, batched search against one sentence at a time over whole prefixes."""
    model, config = tiny.fluent(name), tiny.decode(**changes)
    sources = tiny.sentences(LENGTHS)
    for source, found in zip(sources, run([model], sources, config), strict=True):
        expected = slow.beam([model], source, config)
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        for mine, other in zip(found, expected, strict=True):
            assert mine.score == pytest.approx(other.score, abs=1e-10)
            assert mine.log_prob == pytest.approx(other.log_prob, abs=1e-10)


@pytest.mark.parametrize("form", ["gnmt", "power"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("name", tiny.FEW)
def test_a_beam_wider_than_the_space_is_brute_force(name: str, alpha: float, form: str) -> None:
    vocab, most = 6, 3  # <unk> and two words: 40 sentences
    model = tiny.build(tiny.FEW[name], vocab=vocab, noise=0.6)
    sentences = list(slow.everything(vocab, most))
    assert len(sentences) == 40
    sources = tiny.sentences([2, 4], vocab=vocab)
    ranked = []
    for source in sources:
        batch = tiny.pairs([source] * 40, [[*tokens, EOS] for tokens in sentences])
        config = tiny.decode(length_penalty=alpha, length_penalty_form=form)
        scores = [
            total / slow.penalty(len(tokens) + 1, config)
            for tokens, total in zip(sentences, slow.log_probabilities([model], batch), strict=True)
        ]
        order = sorted(range(40), key=lambda n: -scores[n])
        ranked.append([(sentences[n], float(scores[n])) for n in order])
    for nbest in (1, 3, 40):
        found = run(
            [model],
            sources,
            tiny.decode(
                beam_size=64,
                nbest=nbest,
                length_penalty=alpha,
                length_penalty_form=form,
                max_length_extra=most,
                stopping="bound",
            ),
        )
        for row, expected in zip(found, ranked, strict=True):
            assert [h.tokens for h in row] == [tokens for tokens, _ in expected[:nbest]]
            for hypothesis, (_, score) in zip(row, expected, strict=False):
                assert hypothesis.score == pytest.approx(score, abs=1e-12)


def test_length_penalty_chooses_between_short_and_long() -> None:
    sources = tiny.sentences(range(1, 9))
    lengths = [
        sum(len(row[0].tokens) for row in run([tiny.fluent("lstm")], sources, config))
        for config in (tiny.decode(beam_size=8, length_penalty=alpha) for alpha in (0.0, 1.0, 3.0))
    ]
    assert lengths[0] < lengths[1] < lengths[2]


@pytest.mark.parametrize("stopping", ["first", "bound"])
def test_a_beam_stops_by_its_rule(stopping: str) -> None:
    """Short sentences end first; a long one wins in the end, for whoever waits for it."""
    logits = torch.full((1, 6, 6), -50.0, dtype=torch.float64)
    probabilities = {
        (BOS, EOS): 0.7,
        (BOS, 4): 0.1,
        (BOS, 5): 0.2,
        (4, EOS): 1.0,
        (5, 5): 0.95,
        (5, EOS): 0.05,
    }
    for (before, token), probability in probabilities.items():
        logits[0, before, token] = math.log(probability)
    model = Spy(slow.Markov(logits))
    config = tiny.decode(
        beam_size=2,
        length_penalty=2.0,
        length_penalty_form="power",
        max_length_extra=5,
        stopping=stopping,
    )
    ((best,),) = run([model], [[0, EOS]], config)
    if stopping == "first":  # the end at once, and "4", which ended one step later
        assert best.tokens == []
        assert len(model.rows) == 2
    else:
        assert best.tokens == [5, 5, 5, 5, 5]
        assert len(model.rows) == 6
    assert slow.beam([model.model], [0, EOS], config)[0].tokens == best.tokens


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", tiny.FEW)
def test_beam_scores_are_those_of_teacher_forcing(name: str, dtype: torch.dtype) -> None:
    model = tiny.fluent(name).to(dtype)
    sources = tiny.sentences([n % 9 + 1 for n in range(24)])
    config = tiny.decode(beam_size=4, nbest=4, max_length_extra=9)
    found = run([model], sources, config)
    pairs = [(source, h) for source, row in zip(sources, found, strict=True) for h in row]
    assert len(pairs) == 24 * 4
    batch = tiny.pairs([source for source, _ in pairs], [[*h.tokens, EOS] for _, h in pairs])
    forced = slow.log_probabilities([model], batch).tolist()
    tolerance = {"abs": 1e-9} if dtype == torch.float64 else {"rel": 1e-5}
    for (_, hypothesis), total in zip(pairs, forced, strict=True):
        assert hypothesis.log_prob == pytest.approx(total, **tolerance)
        expected = total / slow.penalty(len(hypothesis.tokens) + 1, config)
        assert hypothesis.score == pytest.approx(expected, **tolerance)


@pytest.mark.parametrize("name", tiny.FEW)
def test_nbest_is_sorted_distinct_and_of_the_size_asked_for(name: str) -> None:
    model = tiny.fluent(name)
    for row in run([model], tiny.sentences(LENGTHS), tiny.decode(beam_size=5, nbest=5)):
        scores = [hypothesis.score for hypothesis in row]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(hypothesis.tokens) for hypothesis in row}) == len(row) == 5


METHODS = [
    {"method": "greedy"},
    {"beam_size": 4, "nbest": 4},
    {"method": "sample", "nbest": 4},
]


@pytest.mark.parametrize("changes", METHODS, ids=["greedy", "beam", "sample"])
def test_lengths_keep_their_bounds(changes: dict[str, Any]) -> None:
    model = slow.markov()
    # Ending early is likely for the even sources, and ending at all unlikely for the odd ones.
    model.logits_SVV[0::2, :, EOS] += 6
    model.logits_SVV[1::2, :, EOS] -= 20
    sources = [[n, *([4] * (n % 4)), EOS] for n in range(12)]
    config = tiny.decode(min_length=3, max_length_ratio=1.5, max_length_extra=2, **changes)
    for number, row in enumerate(run([model], sources, config)):
        most = slow.longest(sources[number], config)
        lengths = {len(hypothesis.tokens) for hypothesis in row}
        if number % 2:
            assert lengths == {most}
        else:
            assert min(lengths) == min(3, most)
            assert max(lengths) <= most


@pytest.mark.parametrize("changes", METHODS, ids=["greedy", "beam", "sample"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_repeats(size: int, changes: dict[str, Any]) -> None:
    model = slow.markov()
    model.logits_SVV[:, :, EOS] -= 8  # on and on: without blocking every output goes in circles
    sources = [[n, EOS] for n in range(12)]
    free = run([model], sources, tiny.decode(max_length_extra=12, **changes))
    assert any(slow.repeats(h.tokens, size) for row in free for h in row)
    config = tiny.decode(max_length_extra=12, no_repeat_ngram=size, **changes)
    blocked = run([model], sources, config)
    assert not any(slow.repeats(h.tokens, size) for row in blocked for h in row)
    if size == 1:  # five words in all: the sentence ends when none is left
        assert max(len(h.tokens) for row in blocked for h in row) == 5
    if changes.get("method") == "greedy":
        expected = [slow.greedy([model], source, config) for source in sources]
        assert [row[0].tokens for row in blocked] == expected


@pytest.mark.parametrize("changes", METHODS, ids=["greedy", "beam", "sample"])
def test_a_sentence_that_may_say_nothing_more_ends_short_of_its_least_length(
    changes: dict[str, Any],
) -> None:
    config = tiny.decode(max_length_extra=12, min_length=9, no_repeat_ngram=1, **changes)
    for row in run([slow.markov()], [[n, EOS] for n in range(12)], config):
        assert row
        assert all(len(set(h.tokens)) == len(h.tokens) == 5 for h in row), "five words in all"


@pytest.mark.parametrize("changes", METHODS, ids=["greedy", "beam", "sample"])
def test_padding_and_start_marks_are_never_written(changes: dict[str, Any]) -> None:
    model = slow.markov()
    model.logits_SVV[:, :, [PAD, BOS]] += 10
    found = run([model], [[n, EOS] for n in range(12)], tiny.decode(**changes))
    tokens = {token for row in found for h in row for token in h.tokens}
    assert not tokens & {PAD, BOS, EOS}
    assert len(tokens) > 3


def test_finished_sentences_leave_the_batch() -> None:
    model = tiny.fluent("lstm")
    sources = tiny.sentences([n % 7 + 1 for n in range(30)])
    spy = Spy(model)
    found = run([spy], sources, tiny.decode(method="greedy", max_length_extra=12))
    steps = [len(row[0].tokens) + 1 for row in found]
    assert min(steps) < max(steps)
    assert spy.rows == [sum(n > step for n in steps) for step in range(max(steps))]
    spy = Spy(model)
    run([spy], sources, tiny.decode(beam_size=3, max_length_extra=12))
    assert spy.rows[0] == 30 * 3
    assert spy.rows == sorted(spy.rows, reverse=True)
    assert all(rows % 3 == 0 for rows in spy.rows)
    assert spy.rows[-1] < spy.rows[0]


def test_a_sentence_whose_open_hypotheses_cannot_win_is_not_searched_on() -> None:
    model = slow.markov(sources=1)
    model.logits_SVV[:, BOS, EOS] += 40
    spy = Spy(model)
    config = tiny.decode(beam_size=3, length_penalty=0.0, max_length_extra=50)
    ((best,),) = run([spy], [[0, EOS]], config)
    assert best.tokens == []
    assert len(spy.rows) == 1


def test_no_sentence_gives_no_translation() -> None:
    model = slow.markov()
    empty = torch.zeros(0, 1, dtype=torch.long)
    assert search([model], empty, torch.zeros(0, dtype=torch.long), tiny.decode()) == []


def test_nothing_is_recorded_for_a_gradient() -> None:
    model = tiny.build(tiny.FEW["transformer"])
    batch = tiny.batch([3], [2])
    assert not slow.log_probabilities([model], batch).requires_grad
    run([model], tiny.sentences([3]), tiny.decode())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_weights_that_are_not_numbers_are_said_to_be(method: str) -> None:
    model = tiny.build(tiny.FEW["transformer"])
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(DragomanError, match="not numbers"):
        run([model], tiny.sentences([3]), tiny.decode(method=method))
