"""What comes before training, as each tool does it: raw or cut text in, what it trains on out.

Dragoman reads, cleans, learns a vocabulary, encodes and draws a page. SentencePiece learns one and
encodes. Sockeye and eole begin with text that SentencePiece has cut already; that is not timed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from window import arguments

VOCABULARY = 8000
TOOLS = ("dragoman", "sentencepiece", "sockeye", "eole")
SENTENCEPIECE = """
import sys
from array import array
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
size, threads, model, *texts = sys.argv[1:]
SentencePieceTrainer.train(input=texts, model_prefix=model, vocab_size=int(size),
                           character_coverage=1.0, num_threads=int(threads), minloglevel=2)
learnt = SentencePieceProcessor(model_file=model + ".model")
for text in texts:
    lines = open(text, encoding="utf-8").read().split("\\n")[:-1]
    with open(f"{model}.{text[-2:]}", "wb") as out:
        for row in learnt.encode(lines, num_threads=int(threads)):
            array("i", row).tofile(out)
"""


def proportional_mib(session: int) -> float:
    """Return the memory of all processes of a session; what they share counts once (PSS)."""
    total = 0
    for process in Path("/proc").iterdir():
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                rolled = (process / "smaps_rollup").read_text()
                total += int(rolled.partition("Pss:")[2].split()[0])
        except (OSError, IndexError, ValueError):
            continue  # not a process, or one that has just ended
    return total / 1024


def measured(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and the most MiB that it and its processes held."""
    began, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, proportional_mib(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {process.returncode}")
    return time.perf_counter() - began, peak


def command_of(tool: str, data: Path, work: Path, threads: int) -> list[str]:
    """Return the tool's command for the text in ``data``."""
    python, sides = sys.executable, ("de", "en")
    pieces = [str(data / f"train.pieces.{side}") for side in sides]
    if tool == "dragoman":
        words = ["data=files", f"data.root={data}", "data.src=de", "data.tgt=en"]
        words += [f"data.files.{split}='{split}.{{lang}}'" for split in ("train", "val")]
        words += [f"data.tokenizer.vocab_size={VOCABULARY}", f"data.cache={work / 'cache'}"]
        page = ["--output", str(work / "data.html")]
        return [python, "-m", "dragoman.cli", "prepare", *words, *page]
    if tool == "sentencepiece":
        texts = [str(data / f"train.{side}") for side in sides]
        counts = [str(VOCABULARY), str(threads)]
        return [python, "-c", SENTENCEPIECE, *counts, str(work / "learnt"), *texts]
    if tool == "sockeye":
        options = [
            "--shared-vocab",
            "--num-words",
            str(VOCABULARY),
            "--max-processes",
            str(threads),
        ]
        files = ["--source", pieces[0], "--target", pieces[1], "--output", str(work / "out")]
        return [python, "-m", "sockeye.prepare_data", *files, *options]
    config = {
        "data": {"corpus_1": {"path_src": pieces[0], "path_tgt": pieces[1]}},
        "src_vocab": str(work / "vocab"), "tgt_vocab": str(work / "vocab"), "share_vocab": True,
        "save_data": str(work / "out"), "n_sample": -1, "num_threads": threads, "overwrite": True,
    }  # fmt: skip
    (work / "eole.json").write_text(json.dumps(config), encoding="utf-8")  # which is YAML, too
    eole = Path(python).with_name("eole")
    return [str(eole), "build_vocab", "-config", str(work / "eole.json")]


def main() -> None:
    """Measure one tool; print its figures."""
    args = arguments(*TOOLS)
    (tool,) = (name for name in TOOLS if getattr(args, name))
    work = args.work / "files"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    seconds, peak = measured(command_of(tool, args.data, work, args.threads))
    with (args.data / "train.de").open("rb") as text:
        pairs = sum(1 for _ in text)
    figures = {
        "tool": "Dragoman" if tool == "dragoman" else tool, "version": version(tool),
        "pairs": pairs, "seconds": seconds, "pairs_per_second": pairs / seconds, "peak_mib": peak,
    }  # fmt: skip
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
