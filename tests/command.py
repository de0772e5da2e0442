"""The command line as the tests call it: in this process where a process is not the point."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import losskernel.cli

TINY = (
    "training.steps=50",
    "schedule.chains=2",
    "schedule.burn_in=10",
    "schedule.draws=20",
    "schedule.thinning=1",
    "dataset.probes_per_task=20",
    "progress=false",
)


def config(*overrides: str, name: str = "config") -> DictConfig:
    """Compose the real configuration."""
    with initialize_config_dir(losskernel.cli.CONF, version_base="1.3"):
        return compose(name, overrides=list(overrides))


def tiny(folder: Path, *overrides: str) -> DictConfig:
    """Compose the configuration of a run of a second, with analyses that need no compiling."""
    analyses = "analysis=[separation]"
    return config(analyses, "logger=none", *TINY, f"paths.run={folder}", f"paths.sweep={folder.parent}", *overrides)


def losskernel_command(
    *arguments: str, cwd: Path, command: str = "main", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, away from the checkout."""
    code = f"from losskernel.cli import {command}; {command}()"
    return run_python("-c", code, *arguments, cwd=cwd, env=env)


def run_python(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run this interpreter with no variable of Hydra's or W&B's from outside."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("HYDRA", "WANDB"))}
    full: dict[str, Any] = plain | {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"} | (env or {})
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=full, capture_output=True, text=True)


def call(*arguments: str, command: str = "main") -> int:
    """Call the command line in this process; return its exit code."""
    given, level, handlers = sys.argv, logging.root.level, logging.root.handlers[:]
    full = os.environ.pop("HYDRA_FULL_ERROR", None)
    sys.argv = ["losskernel", *arguments]
    try:
        getattr(losskernel.cli, command)()
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = given
        logging.root.setLevel(level)
        logging.root.handlers[:] = handlers
        os.environ.pop("HYDRA_FULL_ERROR", None)
        os.environ.update({} if full is None else {"HYDRA_FULL_ERROR": full})


def scripted(folder: Path, name: str, text: str) -> None:
    """Leave a command of the shell in a folder; it is for the caller to put that on the PATH."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def stamps(folder: Path) -> dict[str, int]:
    """Files below a folder with the times they were written at."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
