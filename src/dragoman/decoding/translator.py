"""Lines in, lines out: tokenisation, batching by length, search, and the way back to text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import nn

from dragoman import settings
from dragoman.config import Config, DecodeConfig, source_tag, source_tags, trained_pairs
from dragoman.data.batching import Batch, collate, pad
from dragoman.data.cleaning import normalise_text
from dragoman.data.ragged import ragged
from dragoman.data.tokenizers import EOS, UNK, Tokenizer, load_tokenizers
from dragoman.decoding.consensus import consensus
from dragoman.decoding.forced import attention_weights, word_attention
from dragoman.decoding.search import Hypothesis, search
from dragoman.decoding.sentences import joined, parts_of
from dragoman.decoding.sizes import check_shapes
from dragoman.errors import DragomanError
from dragoman.models.seq2seq import Seq2Seq, build_model
from dragoman.models.weights import load_weights, read_tensors
from dragoman.runs import Run, read_state, verify


class Translation(NamedTuple):
    """One translation of a line.

    ``score`` is what search ranks by: the natural log-probability ``log_prob``, end mark included,
    divided by the length penalty (with mbr, the expected sentence BLEU). ``tokens`` are those of
    the target vocabulary, without the end mark.
    """

    text: str
    score: float
    log_prob: float
    tokens: list[str]


def choose_device(wanted: str) -> torch.device:
    """Return the device that a config's ``device`` means here.

    Raises:
        DragomanError: if CUDA is asked for and is not there.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            has = f"{count} CUDA devices" if count else "no CUDA device"
            raise DragomanError(f"device: '{wanted}' was asked for, but there is {has}; use cpu")
        torch.backends.cudnn.allow_tf32 = False  # on by default: recurrent layers would round
    return device


@dataclass
class Translator:
    """Models with the tokenizers they were trained with."""

    models: Sequence[Seq2Seq]
    src_tokenizer: Tokenizer
    tgt_tokenizer: Tokenizer
    config: Config
    device: torch.device
    sentences: int = 1  # that 99 % of the training lines have at most
    _parted: int = field(default=0, repr=False)  # lines translated in parts
    _unknown: Counter[str] = field(default_factory=Counter, repr=False)  # characters not known

    def encode_line(self, line: str) -> list[int]:
        """Return source ids without EOS: the tag, if the run has one, and the tokens."""
        tag = source_tag(self.config.data)
        ids = self.src_tokenizer.encode(normalise_text(line))
        return ids if tag is None else [self.src_tokenizer.tag_id(tag), *ids]

    @property
    def longest(self) -> int:
        """Most source ids, EOS not counted, that the models were trained on."""
        return self.config.data.max_length - 1

    def translate_lines(
        self,
        lines: Sequence[str],
        decode: DecodeConfig,
        first_line: int = 1,
        progress: Callable[[int], object] | None = None,
    ) -> list[list[Translation]]:
        """Translate lines; per line, at most ``decode.nbest`` translations, best first.

        An empty line gives an empty translation without asking the model. A line that is longer
        than the training limit ``data.max_length``, or that ``decode.split`` says, is translated in
        parts; ``remarks`` tells of it. ``first_line`` is the number of the first of ``lines``.

        Raises:
            DragomanError: if the search has a key out of range, or the weights are not numbers.
        """
        settings.check_search(decode)
        most = {"always": 1, "never": float("inf")}.get(decode.split, self.sentences)
        parts = [self._parts(normalise_text(line), most) for line in lines]
        units = [(n, k, part) for n, row in enumerate(parts) for k, part in enumerate(row)]
        found = iter(self._translate_parts(units, decode, first_line, progress))
        rows = [list(islice(found, len(row))) for row in parts]
        return [
            here[0] if len(here) == 1 else self._join(row, here)
            for row, here in zip(parts, rows, strict=True)
        ]

    def _parts(self, line: str, most: float) -> list[str]:
        """Return a line in the parts that are translated one by one."""
        parts = parts_of(line, self.config.data.src, most, self._fits)
        self._parted += len(parts) > 1
        return parts

    def _fits(self, text: str) -> bool:
        return len(self.encode_line(text)) <= self.longest

    def _join(self, parts: list[str], found: list[list[Translation]]) -> list[Translation]:
        """Return whole lines: the best translations of all parts, the second best, and so on."""
        data, whole = self.config.data, []
        for row in zip(*found, strict=False):
            text = joined(parts, [t.text for t in row], data.src, data.tgt)
            tokens = [token for t in row for token in t.tokens]
            whole.append(
                Translation(text, sum(t.score for t in row), sum(t.log_prob for t in row), tokens)
            )
        return whole

    def remarks(self) -> list[str]:
        """Return what is to be said of the lines translated since the last call, and forget it."""
        said = []
        if self._parted:
            said.append(f"{self._parted:,} lines were translated in parts (decode.split)")
        if self._unknown:
            some = " ".join(character for character, _ in self._unknown.most_common(8))
            said.append(
                f"{self._unknown.total():,} characters are not in the model's vocabulary: {some}"
            )
        self._parted, self._unknown = 0, Counter()
        return said

    def _note_unknown(self, line: str, row: list[int]) -> None:
        """Count the characters that a subword vocabulary lacks."""
        if UNK in row and self.src_tokenizer.is_subword:
            self._unknown.update(
                c for c in line if not c.isspace() and UNK in self.src_tokenizer.remembered(c)
            )

    def _translate_parts(
        self,
        units: list[tuple[int, int, str]],
        decode: DecodeConfig,
        first_line: int,
        progress: Callable[[int], object] | None,
    ) -> list[list[Translation]]:
        """Translate parts of lines: (line, part of it, text)."""
        lines = [text for _, _, text in units]
        rows = [self.encode_line(line) if line.strip() else [] for line in lines]
        for line, row in zip(lines, rows, strict=True):
            self._note_unknown(line, row)
        out: list[list[Translation]] = [[Translation("", 0.0, 0.0, [])] for _ in lines]
        drawing = decode
        if decode.method == "mbr":
            drawing = replace(decode, method="sample", nbest=decode.samples)
        # Sorted by length: batches without padding. Ties by position, so the order is the input's.
        todo = sorted((n for n, row in enumerate(rows) if row), key=lambda n: (-len(rows[n]), n))
        for start in range(0, len(todo), decode.batch_size):
            chosen = todo[start : start + decode.batch_size]
            src = [[*rows[number], EOS] for number in chosen]
            # What is drawn follows from the number of the line and of the part.
            places = [first_line + units[n][0] + (units[n][1] << 40) for n in chosen]
            found = search(self.models, *self._pad(src), drawing, places)
            texts = self._texts(src, [lines[number] for number in chosen], found, decode)
            if decode.method == "mbr":
                for place, strings in enumerate(texts):
                    ranked, expected = consensus(strings, settings.tokens_of(self.config))
                    best = list(zip(ranked, expected.tolist(), strict=True))[: decode.nbest]
                    found[place] = [found[place][n]._replace(score=score) for n, score in best]
                    texts[place] = [strings[n] for n, _ in best]
            for number, hypotheses, strings in zip(chosen, found, texts, strict=True):
                out[number] = [
                    Translation(text, h.score, h.log_prob, self.tgt_tokenizer.tokens(h.tokens))
                    for text, h in zip(strings, hypotheses, strict=True)
                ]
            if progress is not None:
                progress(sum(units[n][1] == 0 for n in chosen))
        return out

    def _pad(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        table = ragged(rows)
        src, lengths = torch.from_numpy(pad(table)), torch.from_numpy(table.lengths)
        return src.to(self.device), lengths.to(self.device)

    def _texts(
        self,
        src: list[list[int]],
        lines: list[str],
        found: list[list[Hypothesis]],
        decode: DecodeConfig,
    ) -> list[list[str]]:
        texts = [[self.tgt_tokenizer.decode(h.tokens) for h in row] for row in found]
        if not decode.replace_unknown or self.tgt_tokenizer.is_subword:
            return texts
        # Attention is only needed for hypotheses with an unknown word: read off afterwards, by
        # forcing, so that search need not carry it along.
        places = [
            (b, k) for b, row in enumerate(found) for k, h in enumerate(row) if UNK in h.tokens
        ]
        if not places:
            return texts
        batch = self.batch(
            [src[b] for b, _ in places], [[*found[b][k].tokens, EOS] for b, k in places]
        )
        model = self.models[0]
        attention = word_attention(model, attention_weights(model, batch))
        if attention is None:
            return texts
        for row, (b, k) in enumerate(places):
            texts[b][k] = self._copy_unknown(
                found[b][k].tokens, attention[row].argmax(-1).tolist(), lines[b]
            )
        return texts

    def _copy_unknown(self, tokens: list[int], aligned: list[int], line: str) -> str:
        """Put the most attended source word in place of every unknown one (Luong et al. 2015b)."""
        skip = 0 if source_tag(self.config.data) is None else 1
        words = self.src_tokenizer.units(line)
        strings = self.tgt_tokenizer.tokens(tokens)
        for t, token in enumerate(tokens):
            place = aligned[t] - skip
            if token == UNK and 0 <= place < len(words):
                strings[t] = words[place]
        return self.tgt_tokenizer.detokenize(strings)

    def batch(self, src: list[list[int]], tgt: list[list[int]]) -> Batch:
        """Return a batch of rows that end in EOS, on the translator's device."""
        return collate(ragged(src), ragged(tgt)).to(self.device)


def same_tokens(mine: Tokenizer, theirs: Tokenizer) -> bool:
    """Whether two vocabularies are the same tokens in the same order."""
    every = list(range(len(mine)))
    return len(mine) == len(theirs) and mine.tokens(every) == theirs.tokens(every)


def _weights_file(weights: str) -> str:
    return "model.safetensors" if weights == "raw" else f"{weights}.safetensors"


def load_model(
    checkpoint: Path, config: Config, vocabularies: tuple[int, int], weights: str
) -> nn.Module:
    """Build a checkpoint's model and load one set of its weights (raw, ema or average)."""
    path = checkpoint / _weights_file(weights)
    if weights != "raw" and not path.exists():
        raise DragomanError(f"{checkpoint}: this checkpoint has no {weights} weights")
    tensors = read_tensors(path)
    check_shapes(config.model, vocabularies, tensors, path)
    model = build_model(config.model, *vocabularies, seed=0)
    load_weights(model, tensors, path)
    return model.eval()


def load_translator(
    runs: Sequence[Run], checkpoint: str = "best", weights: str | None = None, device: str = "auto"
) -> Translator:
    """Load one run, or several as an ensemble.

    Args:
        runs: run folders; an ensemble shares languages and vocabularies.
        checkpoint: ``best``, ``last`` or ``step-<n>``.
        weights: ``raw``, ``ema`` or ``average``; by default the ones that validation scored.
        device: as the config key ``device``.

    Raises:
        DragomanError: if a run, checkpoint or file is missing, corrupt or does not fit.
    """
    where = choose_device(device)
    models: list[Seq2Seq] = []
    trained: list[int] = []
    first: tuple[Config, Tokenizer, Tokenizer] | None = None
    for run in runs:
        folder = run.checkpoint(checkpoint)
        config = settings.load(folder / "config.yaml")
        chosen = weights or str(read_state(folder).get("scored", "raw"))
        verify(folder, _weights_file(chosen))
        tokenizers = load_tokenizers(folder, config.data.tokenizer)
        if first is None:
            first = (config, *tokenizers)
        elif not all(map(same_tokens, first[1:], tokenizers)):
            raise DragomanError(
                f"{run.folder}: its vocabulary differs from that of {runs[0].folder}; "
                "an ensemble needs runs with the same tokenizer"
            )
        elif (first[0].data.src, first[0].data.tgt) not in trained_pairs(config.data):
            raise DragomanError(
                f"{run.folder}: translates other languages than {runs[0].folder}; an ensemble "
                "needs runs of one pair"
            )
        else:
            tags = source_tags(first[0].data)
            for pair, tag in source_tags(config.data).items():
                if tag != tags.get(pair, tag):
                    raise DragomanError(
                        f"{run.folder}: the tag before {'-'.join(pair)} is {tag}, that of "
                        f"{runs[0].folder} {tags[pair]}; an ensemble needs runs of the same tags"
                    )
        sizes = (len(tokenizers[0]), len(tokenizers[1]))
        model = load_model(folder, config, sizes, chosen).to(where)
        models.append(cast(Seq2Seq, model))
        trained.append(int(read_state(folder).get("sentences", 1)))
    assert first is not None, "at least one run"
    return Translator(models, first[1], first[2], first[0], where, min(trained))
