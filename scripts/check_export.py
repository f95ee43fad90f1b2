"""How near an export is to the run it came from, on a whole split.

    python scripts/check_export.py RUN [--split test_2016_flickr] [--root data/multi30k/raw]

A Transformer goes through CTranslate2: sentences with the same tokens for greedy search and beam 5
(power form of the length penalty, stopping at the first five), every difference with what the run's
own model says of both translations, and BLEU of the run, of the float32 export and of the int8 one.
A recurrent model goes through ONNX Runtime: sentences with the same greedy translation.
"""

from __future__ import annotations

import argparse
import dataclasses
import runpy
import tempfile
from pathlib import Path

import torch

from dragoman.config import DecodeConfig, TransformerConfig
from dragoman.data.corpora import read_pairs
from dragoman.data.lines import Reference
from dragoman.data.tokenizers import EOS
from dragoman.decoding.search import search
from dragoman.decoding.translator import Translator, load_translator
from dragoman.errors import DragomanError, report
from dragoman.evaluation.metrics import METRICS
from dragoman.export.export import export, write_export
from dragoman.runs import find_run

BATCH = 64
TIE = 1e-4  # scores nearer than this are told apart by rounding alone
Rows = list[list[int]]


def here(translator: Translator, rows: Rows, decode: DecodeConfig) -> Rows:
    """Return the run's own best tokens, in the order of the rows."""
    found: Rows = [[] for _ in rows]
    order = sorted(range(len(rows)), key=lambda n: -len(rows[n]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        batch = translator.batch([rows[n] for n in chosen], [[EOS]] * len(chosen))
        searched = search(translator.models, batch.src_BS, batch.src_lengths_B, decode)
        for number, hypotheses in zip(chosen, searched, strict=True):
            found[number] = hypotheses[0].tokens
    return found


def there(translator: Translator, rows: Rows, decode: DecodeConfig, kind: str, home: Path) -> Rows:
    """Export for CTranslate2 and return the best tokens that the program in the folder finds."""
    config = dataclasses.replace(translator.config, decode=decode)
    folder = home / f"{decode.method}-{kind}"
    exported = dataclasses.replace(translator, config=config)
    write_export(folder, export(exported, "ctranslate2", kind, "a check"))
    found: Rows = runpy.run_path(str(folder / "translate.py"))["search"]([row[:-1] for row in rows])
    return found


@torch.no_grad()
def score(translator: Translator, source: list[int], tokens: list[int], alpha: float) -> float:
    """Return what the run's own model gives a translation: log-probability / length^alpha."""
    target = [*tokens, EOS]
    model = translator.models[0]
    states = model(translator.batch([source], [target]))
    log_probs = model.project(states).double().log_softmax(-1)
    total = float(log_probs.gather(1, torch.tensor(target)[:, None]).sum())
    return float(total / len(target) ** alpha)


def check_ctranslate2(
    translator: Translator, sources: list[str], references: list[Reference], folder: Path
) -> None:
    """Compare tokens and BLEU, and print what differs."""
    limit = translator.longest
    rows = [[*translator.encode_line(line)[:limit], EOS] for line in sources]
    power = dataclasses.replace(
        translator.config.decode,
        length_penalty_form="power",
        stopping="first",
        nbest=1,
        replace_unknown=False,
    )
    for decode in (
        dataclasses.replace(power, method="greedy"),
        dataclasses.replace(power, method="beam", beam_size=5),
    ):
        ours = here(translator, rows, decode)
        theirs = {
            kind: there(translator, rows, decode, kind, folder) for kind in ("float32", "int8")
        }
        different = [n for n, row in enumerate(ours) if row != theirs["float32"][n]]
        alike = len(rows) - len(different)
        print(
            f"{decode.method}: the same tokens in {alike} of {len(rows)} ({alike / len(rows):.2%})"
        )
        ties = 0
        for n in different:
            both = [
                score(translator, rows[n], tokens, decode.length_penalty)
                for tokens in (ours[n], theirs["float32"][n])
            ]
            ties += abs(both[0] - both[1]) < TIE
            print(f"  line {n + 1}: ours {both[0]:.6f}, theirs {both[1]:.6f}")
        print(f"  of {len(different)} differences {ties} are ties below {TIE:g}")
        for name, found in {"run": ours, **theirs}.items():
            texts = [translator.tgt_tokenizer.decode(tokens) for tokens in found]
            bleu = METRICS["bleu"](texts, references, translator.config.data.tgt)
            print(f"  BLEU of {name}: {bleu.score:.2f}")
        print(f"  {bleu.signature}", flush=True)


def check_onnx(translator: Translator, sources: list[str], folder: Path) -> None:
    """Compare greedy translations, and print those that differ."""
    translator.config.decode = greedy = dataclasses.replace(
        translator.config.decode, method="greedy", nbest=1, replace_unknown=False
    )
    write_export(folder / "onnx", export(translator, "onnx", "float32", "a check"))
    theirs = runpy.run_path(str(folder / "onnx" / "translate.py"))["translate"](sources)
    ours = [found[0].text for found in translator.translate_lines(sources, greedy)]
    different = [n for n, text in enumerate(ours) if text != theirs[n]]
    alike = len(ours) - len(different)
    print(f"greedy: the same translation of {alike} of {len(ours)} ({alike / len(ours):.2%})")
    for n in different:
        print(f"  line {n + 1}\n    ours   {ours[n]}\n    theirs {theirs[n]}")


def main() -> None:
    """Export, translate with both, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="run folder")
    parser.add_argument("--split", default="test_2016_flickr")
    parser.add_argument("--root", help="where the data are now")
    args = parser.parse_args()
    try:
        translator = load_translator([find_run(args.run)], device="cpu")
        if args.root:
            translator.config.data.root = args.root
        sources, references = read_pairs(translator.config.data, args.split)
        with tempfile.TemporaryDirectory() as folder:
            if isinstance(translator.config.model, TransformerConfig):
                check_ctranslate2(translator, sources, references, Path(folder))
            else:
                check_onnx(translator, sources, Path(folder))
    except DragomanError as problem:
        raise SystemExit(report(problem)) from None


if __name__ == "__main__":
    main()
