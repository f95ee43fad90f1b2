"""Where a training step's time goes, and how near it is to its own matrix products.

    python scripts/profile_step.py [--steps 10] [--rounds 3] [--peak-tflops 989] [--json FILE]
                                   [key=value ...]

Trains ``+experiment=benchmark`` (or another one) for some steps and prints the share of input,
forward pass, loss, backward pass and update, and the costliest operators. Then every matrix product
that the steps did, forward and backward, is done again alone at the same shapes: the time nothing
but arithmetic would take. Linear layers see no padding; of attention's products, which do, only the
share of real cells is counted. Rounds of steps and of replays alternate, so that a machine that
slows down slows both.
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
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from dragoman.compose import compose_config
from dragoman.data.batching import Batch, Bucket
from dragoman.errors import DragomanError, report
from dragoman.models.fast import linear
from dragoman.models.fast.linear import MULTIPLE, ONEDNN
from dragoman.models.fast.packing import Packing
from dragoman.runs import Run
from dragoman.training.distributed import Ranks
from dragoman.training.trainer import Trainer

CONFIGS = Path(__file__).parents[1] / "configs"
PARTS = ("input", "forward", "loss", "backward", "update")
PRODUCTS = {
    torch.ops.aten.mm.default: (0, 1),
    torch.ops.aten.mm.out: (0, 1),
    torch.ops.aten.addmm.default: (1, 2),
    torch.ops.aten.addmm.out: (1, 2),
    torch.ops.aten.addmm_.default: (1, 2),
    torch.ops.aten.bmm.default: (0, 1),
    torch.ops.aten.bmm.out: (0, 1),
    torch.ops.aten.baddbmm.default: (1, 2),
    torch.ops.aten.baddbmm.out: (1, 2),
}
if ONEDNN:  # x W^T, not x W
    PRODUCTS[torch.ops.mkldnn._linear_pointwise.default] = (0, 1)


class Product(NamedTuple):
    """A matrix product: its sizes, whether each factor lies transposed in memory, and its type.

    ``onednn`` says which library did it. Attention has one for each sentence and head; ``real`` is
    the share of it that is not padding.
    """

    sizes: tuple[int, int, int]
    turned: tuple[bool, bool]
    dtype: torch.dtype
    onednn: bool
    heads: int = 1
    real: float = 1.0

    @property
    def flop(self) -> float:
        """Return the multiplications and additions."""
        return 2 * math.prod(self.sizes) * self.heads * self.real


class Products(TorchDispatchMode):
    """Notes the matrix products of a step."""

    def __init__(self, real: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.real, self.found = real, list[Product]()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op in PRODUCTS and args[PRODUCTS[op][0]].shape[-2] > 1:  # one row: the sum of a bias
            a, b = (args[place] for place in PRODUCTS[op])
            onednn = op.namespace == "mkldnn"
            b = b.t() if onednn else b
            turned = [x.stride(-2) == 1 and x.stride(-1) > 1 for x in (a, b)]
            sizes = (a.shape[-2], a.shape[-1], b.shape[-1])
            several = (a.shape[0], self.real) if a.ndim == 3 else ()
            self.found.append(Product(sizes, (turned[0], turned[1]), a.dtype, onednn, *several))
        return op(*args, **(kwargs or {}))


def share_of_real_cells(batch: Batch) -> float:
    """Return the least share of real cells in the attention of a batch: of self or cross."""
    sides = [(n.double(), Packing(n).mask_BL) for n in (batch.src_lengths_B, batch.tgt_lengths_B)]
    return min(
        float((a * b).sum()) / (len(a) * grid_a.shape[1] * grid_b.shape[1])
        for a, grid_a in sides
        for b, grid_b in sides
    )


def timed(work: Callable[[], object]) -> float:
    """Return seconds, those of a GPU included."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def replay(products: list[Product], device: torch.device) -> list[float]:
    """Return the seconds that each of a step's products takes alone.

    Each has factors of its own, drawn beforehand, as in the step: sharing them would leave them in
    the cache, where the step never finds them.
    """

    def factor(product: Product, rows: int, columns: int, turned: bool) -> Tensor:
        shape = (columns, rows) if turned else (rows, columns)
        several = (product.heads,) if product.heads > 1 else ()
        drawn = torch.randn(*several, *shape, device=device).to(product.dtype)
        return drawn.transpose(-2, -1) if turned else drawn

    def seconds(product: Product, a: Tensor, b: Tensor) -> float:
        return product.real * timed(lambda: linear.product(a, b.t()) if product.onednn else a @ b)

    pairs = []
    for product in products:
        (m, k, n), (a, b) = product.sizes, product.turned
        pairs.append((factor(product, m, k, a), factor(product, k, n, b)))
    return [seconds(product, *pair) for product, pair in zip(products, pairs, strict=True)]


def by_shape(
    noted: list[list[Product]], seconds: list[list[float]], widths: set[int]
) -> list[dict[str, Any]]:
    """Add up products of one shape, the costliest first; N stands for the number of tokens."""
    total = sum(map(sum, seconds))
    spent, work = dict[str, float](), dict[str, float]()
    for found, times in zip(noted, seconds, strict=True):
        for product, time_ in zip(found, times, strict=True):
            names = [str(size) if size in widths else "N" for size in product.sizes]
            shape = f"({names[0]}, {names[1]}) @ ({names[1]}, {names[2]})"
            if product.heads > 1:
                shape = "attention, all shapes"
            spent[shape] = spent.get(shape, 0.0) + time_
            work[shape] = work.get(shape, 0.0) + product.flop
    return [
        {
            "shape": shape,
            "share": spent[shape] / total,
            "gflop_per_second": work[shape] / spent[shape] / 1e9,
        }
        for shape in sorted(spent, key=lambda shape: -spent[shape])
    ]


def measure(trainer: Trainer, steps: int, rounds: int) -> dict[str, Any]:
    """Return the figures of some steps."""
    batches: list[list[Bucket]] = [trainer.stream.take(1) for _ in range(steps)]

    def work() -> None:
        for buckets in batches:
            trainer.step(buckets)

    work()  # warm-up
    noted: list[list[Product]] = []
    for buckets in batches:
        with Products(share_of_real_cells(trainer.order.fetch(buckets[0]))) as mode:
            trainer.step(buckets)
        noted.append(mode.found)
    whole, products = [], []
    for _ in range(rounds):
        trainer.step(batches[0])  # the replay has had its turn with the memory
        whole.append(timed(work))
        alone = [replay(found, trainer.device) for found in noted]
        products.append(sum(map(sum, alone)))
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        work()
    averages = trace.key_averages()
    parts = {event.key: event.cpu_time_total for event in averages if event.key in PARTS}
    print(averages.table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))
    widths = {size for parameter in trainer.module.parameters() for size in parameter.shape}
    widths |= {-(-size // MULTIPLE) * MULTIPLE for size in widths}
    tokens = sum(bucket.tgt_tokens for buckets in batches for bucket in buckets)
    flop = sum(product.flop for found in noted for product in found)
    step, product = statistics.median(whole), statistics.median(products)
    return {
        "milliseconds_per_step": 1000 * step / steps,
        "tokens_per_second": tokens / step,
        "parts": {name: parts[name] / sum(parts.values()) for name in PARTS},
        "products_share": product / step,
        "products_gflop_per_second": flop / product / 1e9,
        "mflop_per_target_token": flop / tokens / 1e6,
        "products": by_shape(noted, alone, widths),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peak-tflops", type=float, help="the device's own figure, for its model FLOP utilisation"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments, overrides = parser.parse_known_args()
    if not any(word.startswith("+experiment=") for word in overrides):
        overrides.insert(0, "+experiment=benchmark")
    try:
        config, _ = compose_config(CONFIGS, [*overrides, "log.tensorboard=false"])
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(config, Run(Path(folder)), Ranks())
            figures = measure(trainer, arguments.steps, arguments.rounds)
    except DragomanError as problem:
        raise SystemExit(report(problem)) from None
    print("STEP")
    print(
        f"{figures['milliseconds_per_step']:.0f} ms a step on {figures['threads']} threads, "
        f"{figures['tokens_per_second']:,.0f} target tokens/s: "
        + ", ".join(f"{name} {share:.0%}" for name, share in figures["parts"].items())
    )
    print(
        f"\nIts matrix products alone: {figures['products_share']:.0%} of the step, at "
        f"{figures['products_gflop_per_second']:.0f} GFLOP/s "
        f"({figures['mflop_per_target_token']:.1f} MFLOP a target token)\n\n"
        "| product (N tokens) | share of all | GFLOP/s |\n|---|---:|---:|"
    )
    for product in figures["products"]:
        rate = product["gflop_per_second"]
        print(f"| {product['shape']} | {product['share']:.1%} | {rate:.0f} |")
    if arguments.peak_tflops:
        reached = figures["mflop_per_target_token"] * figures["tokens_per_second"] / 1e6
        figures["flop_utilisation"] = reached / arguments.peak_tflops
        print(
            f"\nModel FLOP utilisation: {figures['flop_utilisation']:.1%} of "
            f"{arguments.peak_tflops:g} TFLOP/s"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
