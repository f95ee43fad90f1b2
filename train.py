"""Train a model: ``python train.py +experiment=transformer [key=value ...]``.

A thin Hydra entry: compose the config, check it, hand it over. Sweeps: ``-m seed=1,2,3``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dragoman import compose
from dragoman.runs import read_state, run_of
from dragoman.settings import from_hydra

CONFIGS = Path(__file__).parent / "configs"


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def main(composed: DictConfig) -> float | None:
    """Train the run that the command line describes, to its end or from where it stopped.

    In a sweep, return its best score on validation: what a sweeper such as Optuna's goes by.
    """
    from dragoman.cli import run_training

    hydra_config, config = HydraConfig.get(), from_hydra(composed)
    experiment = hydra_config.runtime.choices.get("experiment")
    status = run_training(config, experiment)
    if status:
        sys.exit(status)
    if hydra_config.mode != RunMode.MULTIRUN:  # other ranks may be done before rank 0 has saved
        return None
    score: float | None = read_state(run_of(config, experiment).checkpoint("last"))["best_score"]
    return score


if __name__ == "__main__":
    try:
        compose.check_command_line(CONFIGS, sys.argv[1:])
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted before the first step")
