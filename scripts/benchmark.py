"""Training speed beside the ordinary loop around ``torch.nn.Transformer``, on the same batches.

    python scripts/benchmark.py [--rounds 5] [--steps 10] [--json FILE] [key=value ...]

Both train the configuration of ``+experiment=transformer`` (or whatever the overrides make of it):
same layers and widths, same vocabularies, same sentences in the same batches sorted by length, same
optimiser, clipping and label smoothing. The plain loop is the one of the tutorials: padded batches,
separate embeddings, logits at every position, ``ignore_index`` for padding. Rounds alternate, so
that a machine that slows down slows both; the ratio of medians is what to quote.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dragoman.compose import compose_config, fail
from dragoman.config import Config, TransformerConfig
from dragoman.data.batching import Batch, Bucket
from dragoman.data.tokenizers import PAD
from dragoman.errors import DragomanError
from dragoman.models.positions import sinusoids
from dragoman.runs import Run
from dragoman.training.distributed import Ranks
from dragoman.training.trainer import Trainer

CONFIGS = Path(__file__).parents[1] / "configs"


class PlainTransformer(nn.Module):
    """``torch.nn.Transformer`` with embeddings, positions and an output layer, as tutorials do."""

    positions: Tensor

    def __init__(self, config: TransformerConfig, src_vocab: int, tgt_vocab: int) -> None:
        super().__init__()
        c = config
        self.src_embedding = nn.Embedding(src_vocab, c.d_model, padding_idx=PAD)
        self.tgt_embedding = nn.Embedding(tgt_vocab, c.d_model, padding_idx=PAD)
        self.register_buffer("positions", sinusoids(torch.arange(512), c.d_model).float())
        self.dropout = nn.Dropout(c.dropout)
        self.transformer = nn.Transformer(
            c.d_model,
            c.num_heads,
            c.encoder_layers,
            c.decoder_layers,
            c.d_ff,
            c.dropout,
            batch_first=True,
            norm_first=c.norm == "pre",
        )
        self.generator = nn.Linear(c.d_model, tgt_vocab)
        self.scale = math.sqrt(c.d_model)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def _embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        x: Tensor = self.dropout(table(tokens) * self.scale + self.positions[: tokens.shape[1]])
        return x

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Return logits (B, T, V), padding included."""
        src_pad, tgt_pad = src == PAD, tgt == PAD
        out = self.transformer(
            self._embed(self.src_embedding, src),
            self._embed(self.tgt_embedding, tgt),
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(tgt.shape[1]).isinf(),
            src_key_padding_mask=src_pad,
            tgt_key_padding_mask=tgt_pad,
            memory_key_padding_mask=src_pad,
            tgt_is_causal=True,
        )
        logits: Tensor = self.generator(out)
        return logits


def plain_loop(config: Config, trainer: Trainer) -> Callable[[list[Bucket]], object]:
    """Return the plain loop's training step."""
    train = config.train
    sizes = (len(trainer.tokenizers[0]), len(trainer.tokenizers[1]))
    model = PlainTransformer(config.model, *sizes)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=train.lr,
        betas=(train.beta1, train.beta2),
        eps=train.eps,
        weight_decay=train.weight_decay,
    )
    criterion = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=train.label_smoothing)

    def step(buckets: list[Bucket]) -> float:
        batch: Batch = trainer.order.fetch(buckets[0])
        target = F.pad(batch.tgt_in_BT[:, 1:], (0, 1), value=PAD)
        target[batch.tgt_mask_BT] = batch.targets_N
        optimizer.zero_grad()
        logits = model(batch.src_BS, batch.tgt_in_BT)
        loss = criterion(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
        optimizer.step()
        return float(loss.detach())

    return step


def measure(step: Callable[[list[Bucket]], object], batches: list[list[Bucket]]) -> float:
    """Return target tokens per second over some steps."""
    began = time.perf_counter()
    for buckets in batches:
        step(buckets)
    tokens = sum(bucket.tgt_tokens for buckets in batches for bucket in buckets)
    return tokens / (time.perf_counter() - began)


def main() -> None:
    """Measure both loops in turn and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments, overrides = parser.parse_known_args()
    try:
        options = ["+experiment=transformer", "log.tensorboard=false", *overrides]
        config, _ = compose_config(CONFIGS, options)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(config, Run(Path(folder)), Ranks())
            loops = {"dragoman": trainer.step, "nn.Transformer loop": plain_loop(config, trainer)}
            rates: dict[str, list[float]] = {name: [] for name in loops}
            for step in loops.values():  # warm-up
                measure(step, [trainer.stream.take(1) for _ in range(3)])
            for number in range(arguments.rounds):
                batches = [trainer.stream.take(1) for _ in range(arguments.steps)]
                for name, step in loops.items():
                    rates[name].append(measure(step, batches))
                    print(f"round {number + 1}  {name:20}  {rates[name][-1]:8,.0f} tokens/s")
    except DragomanError as problem:
        fail(problem)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratio = medians["dragoman"] / medians["nn.Transformer loop"]
    for name, values in rates.items():
        print(f"{name:20}  median {medians[name]:,.0f}, {min(values):,.0f} to {max(values):,.0f}")
    threads = torch.get_num_threads()
    print(f"ratio of medians {ratio:.2f}, {threads} threads, torch {torch.__version__}")
    if arguments.json:
        figures = {"tokens_per_second": rates, "ratio_of_medians": ratio}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
