"""What the contenders of the decoding benchmark share: the sentences and what is measured."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable

from window import peak_mib, read

# Most tokens of a translation, end mark included.
LONGEST, BATCH, BEAM = 100, 64, 5


def decode(
    args: Namespace,
    figures: dict[str, object],
    specials: list[str],
    translate: Callable[[list[list[int]], int], list[list[int]]],
) -> None:
    """Translate the test set greedily and by beam; leave the outputs and print the figures.

    Args:
        args: the driver's command line; ``sorted`` has batches of sentences of similar length.
        figures: the tool, its version and its number of parameters.
        specials: the tool's special tokens, the first of its ids.
        translate: from source ids without marks and the beam's width to target ids without marks.
    """
    rows, _ = read(args.data, "de", specials, split="test_2016_flickr")
    words = list(read(args.data, "en", specials)[1])
    order = (
        sorted(range(len(rows)), key=lambda n: -len(rows[n])) if args.sorted else range(len(rows))
    )
    batches = [order[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    for name, width in (("greedy", 1), ("beam", BEAM)):
        translate([rows[n] for n in batches[0]], width)  # warm-up
        found = [""] * len(rows)
        began = time.perf_counter()
        for batch in batches:
            outputs = translate([rows[n] for n in batch], width)
            for n, output in zip(batch, outputs, strict=True):
                found[n] = " ".join(words[token] for token in output)
        figures[f"{name}_per_second"] = len(rows) / (time.perf_counter() - began)
        (args.work / f"{name}.txt").write_text("\n".join(found) + "\n", encoding="utf-8")
    print(json.dumps({**figures, "peak_mib": peak_mib()}), flush=True)
