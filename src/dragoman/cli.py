"""The ``dragoman`` command."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from dragoman import __version__, commands
from dragoman.errors import DragomanError, memory_needed, report, say, warn
from dragoman.plugins import from_arguments


class _Parser(argparse.ArgumentParser):
    """Refuses a command line in one line; argparse's own way takes several."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and leave."""
        sys.exit(report(DragomanError(f"{message}; see {self.prog} --help")))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number of translations")
    return int(text)


def _path(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty, expected a path")
    return os.path.expanduser(text)


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``dragoman``."""
    main = _Parser(
        prog="dragoman", description="Train, score, use and look into translation models."
    )
    main.add_argument("--version", action="version", version=f"dragoman {__version__}")
    main.add_argument("--plugin", action="append", metavar="MODULE",
                      help="module or .py file that registers parts of your own")  # fmt: skip
    subparsers = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    common = _Parser(add_help=False)
    common.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    common.add_argument(
        "--root", type=_path, help="folder of the data, if not where training found it"
    )
    common.add_argument("--pair", metavar="SRC-TGT",
                        help="another language pair that the run was trained on")  # fmt: skip
    scored = _Parser(add_help=False)
    scored.add_argument("words", nargs="+", metavar="RUN", help="run folder")
    search = _Parser(add_help=False)
    search.add_argument("words", nargs="+", metavar="RUN",
                        help="run folder (several: an ensemble); words like decode.beam_size=8 "
                        "among them change the search")  # fmt: skip
    search.add_argument("--checkpoint", default="best", help="best (default), last or step-<n>")
    search.add_argument("--weights", choices=("raw", "ema", "average"),
                        help="default: the ones that validation scored")  # fmt: skip

    def command(name: str, text: str, runs: _Parser = search) -> Any:
        sub = subparsers.add_parser(name, help=text, description=text, parents=[runs, common])
        sub.set_defaults(function=getattr(commands, name))
        return sub

    subparsers.add_parser("train", help="train a run; the words are Hydra's: "
                          "+experiment=transformer seed=2", add_help=False)  # fmt: skip
    prepare = subparsers.add_parser(
        "prepare",
        help="do what train does before its first step, and say what was left out of the text",
    )
    prepare.set_defaults(function=commands.prepare)
    prepare.add_argument("words", nargs="*", metavar="WORD", help="the words of train")
    prepare.add_argument("--output", type=_path, default="data.html", metavar="FILE",
                         help="the page about the text; default: %(default)s")  # fmt: skip
    data = subparsers.add_parser("data", help="fetch Multi30k into a folder and verify it")
    data.set_defaults(function=commands.data)
    data.add_argument("--root", default="data/multi30k/raw", help="folder to fill (%(default)s)")
    data.add_argument("--languages", nargs="+", help="of cs, de, en and fr; default: all")
    data.add_argument("--splits", nargs="+", help="such as train and val; default: all")
    data.add_argument("--from", dest="source", metavar="PLACE",
                      help="local folder or address to take the files from")  # fmt: skip
    data.add_argument("--no-monolingual", action="store_true",
                      help="leave out the independent captions of task 2")  # fmt: skip
    sub = command("evaluate", "score a run on a split with BLEU, chrF and TER")
    sub.add_argument("--split", help="default: the validation split")
    sub.add_argument("--compare", action="append", metavar="RUN_B",
                     help="paired significance test against an evaluated run")  # fmt: skip
    sub.add_argument("--robust", action="store_true",
                     help="also score the split in capitals, with typos and so on")  # fmt: skip
    sub.add_argument("--output", type=_path, metavar="FOLDER", help="default: the run folder")
    sub.add_argument("--samples", type=_count, default=0, help="print this many translations")
    sub = command("translate", "translate standard input (or a file) line by line")
    sub.add_argument("--input", type=_path, metavar="FILE", help="default: standard input")
    sub.add_argument("--output", type=_path, metavar="FILE", help="default: standard output")
    sub = command("backtranslate", "make sentence pairs of monolingual text")
    sub.add_argument("--input", type=_path, metavar="FILE", nargs="+", required=True,
                     help="text in the run's source language, plain or .gz")  # fmt: skip
    sub.add_argument("--output", type=_path, metavar="PREFIX", required=True,
                     help="writes PREFIX.<language>, for both languages")  # fmt: skip
    sub = command("report", "write a page (HTML) about a run that was evaluated", scored)
    sub.add_argument("--split", help="default: the validation split")
    sub.add_argument("--compare", metavar="RUN_B", help="another evaluated run beside it")
    sub.add_argument("--output", type=_path, metavar="HTML", help="default: in the run folder")
    sub = command("attention", "draw the attention of a sentence as a heat map (PNG)")
    sub.add_argument("--sentence", help="source sentence; default: the first of validation")
    sub.add_argument("--target", help="draw this translation instead of the model's own")
    sub.add_argument("--layer", help="for example encoder.0.self, decoder.2.cross or "
                     "decoder.attention; default: the one that aligns best")  # fmt: skip
    sub.add_argument("--head", type=int, help="one head of --layer; default: all")
    sub.add_argument("--output", type=_path, metavar="PNG", help="default: in the run folder")
    sub.add_argument("--aer", metavar="SPLIT", help="alignment error rate (embedded corpus)")
    sub = command("export", "write a run into one folder, also for CTranslate2 or ONNX")
    sub.add_argument("--format", required=True,
                     help="dragoman: a RUN to hand on, of one checkpoint; ctranslate2: "
                     "Transformers; onnx: recurrent models; or that of a plug-in")  # fmt: skip
    sub.add_argument("--output", type=_path, metavar="FOLDER", help="default: in the run folder")
    sub.add_argument("--quantization", default="float32",
                     help="of the weights: float16 for dragoman, int8 for ctranslate2; "
                     "default: float32")  # fmt: skip
    return main


def _drop_output() -> None:
    """Send what standard output still holds nowhere: Python would try again at its exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``dragoman`` command; return the exit code."""
    warnings.showwarning = warn
    for out in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets its code
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")
    words = parser()
    try:
        argv = from_arguments(sys.argv[1:] if argv is None else argv)
    except DragomanError as problem:
        return report(problem)
    if argv[:1] == ["train"]:
        from dragoman.launch import main as train

        return train(argv[1:])
    arguments, rest = words.parse_known_args(argv)
    if unknown := [word for word in rest if word.startswith("-")]:
        words.prog += f" {arguments.command}"
        words.error(f"unknown option {unknown[0]}")
    if rest and arguments.function is commands.data:
        words.error(f"{rest[0]}: data takes options alone")
    if rest:
        arguments.words += rest  # overrides may follow the options
    try:
        with memory_needed(lambda: "out of memory: lower decode.batch_size or use more memory"):
            arguments.function(arguments)
    except DragomanError as problem:
        return report(problem)
    except BrokenPipeError:  # the reader has gone, as in `dragoman translate RUN | head`
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError as problem:  # a full disk behind standard output, say
        _drop_output()
        return report(DragomanError(f"{problem.filename or 'output'}: {problem.strerror}"))
    except KeyboardInterrupt:
        say("interrupted")
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
