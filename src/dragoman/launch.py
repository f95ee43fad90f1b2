"""Training from a command line: ``python train.py WORDS`` is ``dragoman train WORDS``.

Hydra runs the one job that the words describe or, with ``-m``, the jobs of a sweep. A job of a
sweep that fails does not end the others.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dragoman.compose import PRIMARY, composer
from dragoman.config import Config
from dragoman.data.preparation import count_pairs
from dragoman.errors import FAILED, DragomanError, nearest, report, say, warn
from dragoman.plugins import from_arguments
from dragoman.runs import read_state, run_of
from dragoman.search_path import looking_in, shipped_configs
from dragoman.settings import from_hydra

# The file in which every job of a sweep notes how it ended. In the environment: a launcher may
# start the jobs in processes of their own.
NOTES = "DRAGOMAN_SWEEP"
# Exit codes above this are those of a process that a signal ended.
SIGNALLED = 128


def main(argv: Sequence[str]) -> int:
    """Train what the words of a command line describe; return the exit code."""
    warnings.showwarning = warn
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises what it would print
    try:
        parser, arguments = read_command_line(argv)
        return _launch(parser, arguments)
    except DragomanError as problem:
        return report(problem)
    except KeyboardInterrupt:
        say("interrupted before the first step")
        return SIGNALLED + signal.SIGINT


def _refuse(message: str) -> NoReturn:
    raise DragomanError(f"{message}; see --hydra-help")


def read_command_line(argv: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read a command line and compose every job of it, to see that it is right.

    Raises:
        DragomanError: naming the option or the override that is wrong.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    arguments, rest = parser.parse_known_intermixed_args(from_arguments(argv))
    for word in rest:
        options = [option for action in parser._actions for option in action.option_strings]
        _refuse(f"{word}: there is no such option{nearest(word, options)}")
    if arguments.experimental_rerun:
        _refuse("--experimental-rerun: reads a pickle, which could run code")
    configs = Path(arguments.config_path or shipped_configs())
    folders = [Path(arguments.config_dir)] if arguments.config_dir else []
    for folder in (configs, *folders):
        if not folder.is_dir():
            raise DragomanError(f"{folder}: there is no such folder of configs")
    arguments.config_path, arguments.config_dir = str(configs.resolve()), None
    arguments.config_name, arguments.folders = arguments.config_name or PRIMARY, folders
    if not arguments.hydra_help and not arguments.shell_completion:
        with composer(configs, folders, arguments.config_name) as composing:
            words = [composing.parse(word) for word in arguments.overrides]
            arguments.overrides = [str(word.input_line) for word in words]
            sweep = arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides
            jobs = composing.jobs(words) if sweep else [arguments.overrides]
            added = {tuple(composing.sized(job, count_pairs)[len(job) :]) for job in jobs}
            if len(added) > 1:
                raise DragomanError(
                    "auto.minutes: chooses differently for the jobs of this sweep; give +size=NAME "
                    "and the steps, or train them one by one"
                )
            arguments.overrides += next(iter(added), ())
    return parser, arguments


def _launch(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Have Hydra do what a command line says; return the exit code."""
    status, problem = 0, None
    # What sweepers log about jobs that failed is said in the table below.
    logging.getLogger("hydra_plugins").addHandler(logging.NullHandler())
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as notes:
        os.environ[NOTES] = notes.name
        try:
            with looking_in(Path(arguments.config_path), arguments.folders):
                _run_hydra(arguments, parser, _job, None, None)
        except SystemExit as end:  # a job that failed or was stopped, or --help
            status = int(end.code or 0)
        except Exception as caught:  # of Hydra or a sweeper: no job raises
            problem = DragomanError(str(caught).partition("\n")[0] or type(caught).__name__)
        jobs = [json.loads(line) for line in notes]
    failed = [(words, reason) for words, reason in jobs if reason]
    if failed and os.environ.get("RANK", "0") == "0":
        say(f"{len(failed)} of {len(jobs)} runs failed:")
        common = set.intersection(*(set(words) for words, _ in jobs)) if len(jobs) > 1 else set()
        for words, reason in failed:
            own = [word for word in words if word not in common] or words
            say(f"  {' '.join(own)}: {reason}")
    if problem:
        raise problem
    return status or (FAILED if failed else 0)


def _job(composed: DictConfig) -> float | None:
    """Train one run, to its end or from where it stopped.

    In a sweep, return its best score on validation, which a sweeper such as Optuna's goes by, or
    None if the run failed.
    """
    node, score = HydraConfig.get(), math.nan
    experiment = node.runtime.choices.get("experiment")

    def work() -> None:
        nonlocal score
        config = from_hydra(composed)
        _train(config, experiment)
        if sweep and os.environ.get("RANK", "0") == "0":  # others may be here before it has saved
            run = run_of(config, experiment)
            score = read_state(run.checkpoint("last"))["best_score"]
            if not math.isfinite(score):
                raise DragomanError(f"{run.folder}: the best score on validation is {score}")

    sweep = node.mode == RunMode.MULTIRUN
    status, reason = _attempt(work)
    if status and (status > SIGNALLED or not sweep):
        sys.exit(status)
    if sweep:
        with open(os.environ[NOTES], "a", encoding="utf-8") as notes:
            notes.write(json.dumps([list(node.overrides.task), reason]) + "\n")
    return None if reason else score


def run_training(config: Config, experiment: str | None) -> int:
    """Train the run of a config; return the process's exit code."""
    warnings.showwarning = warn
    return _attempt(lambda: _train(config, experiment))[0]


def _train(config: Config, experiment: str | None) -> None:
    from dragoman.training.loop import train  # PyTorch, after all checks

    train(config, run_of(config, experiment))


def _attempt(work: Callable[[], None]) -> tuple[int, str]:
    """Do some training and say why if it ends early; return the exit code and the reason."""
    try:
        work()
    except DragomanError as problem:
        return report(problem), " ".join(str(problem).split())
    except KeyboardInterrupt:
        number = int(signal.SIGINT)
        said = "interrupted; the same command goes on from the last checkpoint"
    except Exception as problem:
        from dragoman.training.loop import Stopped

        if not isinstance(problem, Stopped):  # a bug, or a machine that has no more to give
            traceback.print_exc()
            return 1, f"{type(problem).__name__}: {' '.join(str(problem).split())}"
        number, said = problem.number, f"{problem}; the same command goes on from there"
    else:
        return 0, ""
    say(said)
    return SIGNALLED + number, said
