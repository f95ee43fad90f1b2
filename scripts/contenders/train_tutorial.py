"""The recurrent model of the well-known tutorials: a GRU with additive attention and its loop.

Bahdanau et al. 2015 as notebooks teach it: embeddings 256, states 512, a bidirectional encoder over
padded rows, keys projected again at every step, one coin a step for the whole batch, logits of
every step kept, the loss read after every update. Batches of 128 sentences as they come, shuffled;
with ``--sorted`` the batches that Dragoman would train on.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from window import Window, arguments, read

SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
PAD, UNK, BOS, EOS = range(4)
D_EMBED, D_STATE, DROPOUT, BATCH = 256, 512, 0.5, 128


class Encoder(nn.Module):
    """Bidirectional GRU; its last states make the decoder's first."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, D_EMBED)
        self.rnn = nn.GRU(D_EMBED, D_STATE, bidirectional=True)
        self.bridge = nn.Linear(2 * D_STATE, D_STATE)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, src: Tensor) -> tuple[Tensor, Tensor]:
        """(S, B) -> states (S, B, 2 D) and the first decoder state (B, D)."""
        states, last = self.rnn(self.dropout(self.embedding(src)))
        return states, torch.tanh(self.bridge(torch.cat([last[-2], last[-1]], 1)))


class Decoder(nn.Module):
    """One step: attend, run the GRU, predict."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, D_EMBED)
        self.energy = nn.Linear(3 * D_STATE, D_STATE)
        self.score = nn.Linear(D_STATE, 1, bias=False)
        self.rnn = nn.GRU(D_EMBED + 2 * D_STATE, D_STATE)
        self.output = nn.Linear(D_EMBED + 3 * D_STATE, vocab)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, token: Tensor, hidden: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, V) and the next state (B, D)."""
        embedded = self.dropout(self.embedding(token))[None]
        repeated = hidden[:, None].expand(-1, states.shape[0], -1)
        memory = states.transpose(0, 1)
        energy = torch.tanh(self.energy(torch.cat([repeated, memory], 2)))
        weights = self.score(energy)[:, :, 0].softmax(1)
        context = torch.bmm(weights[:, None], memory).transpose(0, 1)
        out, after = self.rnn(torch.cat([embedded, context], 2), hidden[None])
        seen = torch.cat([out[0], context[0], embedded[0]], 1)
        return self.output(seen), after[0]


def own_batches(data: Path) -> tuple[Iterator[tuple[Tensor, Tensor]], tuple[int, int]]:
    """Yield shuffled batches (S, B) and (T, B), and return the sizes of the vocabularies."""
    read_sides = [read(data, language, SPECIALS) for language in ("de", "en")]
    sides = [[torch.tensor([BOS, *row, EOS]) for row in rows] for rows, _ in read_sides]

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        pairs = list(zip(*sides, strict=True))
        while True:
            random.shuffle(pairs)
            for start in range(0, len(pairs), BATCH):
                src, tgt = zip(*pairs[start : start + BATCH], strict=True)
                pad = nn.utils.rnn.pad_sequence
                yield pad(list(src), padding_value=PAD), pad(list(tgt), padding_value=PAD)

    return endless(), (len(read_sides[0][1]), len(read_sides[1][1]))


def sorted_batches(work: Path) -> tuple[Iterator[tuple[Tensor, Tensor]], tuple[int, int]]:
    """The same from Dragoman's own reader."""
    import train_dragoman as ours

    from dragoman.runs import Run
    from dragoman.training.distributed import Ranks

    overrides = ["+experiment=tutorial", *ours.GRU, "log.tensorboard=false"]
    overrides += [f"data.root={os.environ['MULTI30K']}", f"data.cache={work / 'cache'}"]
    config, _ = ours.compose_config(ours.CONFIGS, overrides)
    run = Run(work / "run")
    run.create()
    trainer = ours.Trainer(config, run, Ranks())

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            batch = trainer.order.fetch(trainer.stream.take(1)[0])
            targets = torch.full_like(batch.tgt_in_BT, PAD)
            targets[batch.tgt_mask_BT] = batch.targets_N
            tgt = torch.cat([batch.tgt_in_BT[:, :1], targets], 1)
            yield batch.src_BS.t(), tgt.t()

    return endless(), (len(trainer.tokenizers[0]), len(trainer.tokenizers[1]))


def train(batches: Iterator[tuple[Tensor, Tensor]], models: list[Any], window: Window) -> None:
    """The loop of the tutorials."""
    encoder, decoder = models
    parameters = [p for model in models for p in model.parameters()]
    optimizer = torch.optim.Adam(parameters)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    for src, tgt in batches:
        window.batch(int((tgt[1:] != PAD).sum()))
        optimizer.zero_grad()
        states, hidden = encoder(src)
        outputs = torch.zeros(*tgt.shape, decoder.output.out_features)
        token = tgt[0]
        for t in range(1, len(tgt)):
            outputs[t], hidden = decoder(token, hidden, states)
            token = tgt[t] if random.random() < 0.5 else outputs[t].argmax(1)
        loss = criterion(outputs[1:].flatten(0, 1), tgt[1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        loss.item()
        window.updated()


def main() -> None:
    """Train inside a window of time."""
    args = arguments("sorted")
    batches, sizes = sorted_batches(args.work) if args.sorted else own_batches(args.data)
    models = [Encoder(sizes[0]), Decoder(sizes[1])]
    name = "tutorial GRU, Dragoman's batches" if args.sorted else "tutorial GRU, as published"
    window = Window(args.seconds, name, torch.__version__, args.steps, warm_up=3)
    with contextlib.suppress(Window.Done):
        train(batches, models, window)
    window.report(sum(p.numel() for model in models for p in model.parameters()))


if __name__ == "__main__":
    main()
