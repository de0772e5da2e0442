"""The command line as the tests call it: in this process where a process is not the point."""

import atexit
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

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


MAIN = "from losskernel.cli import main; main()"


class Forked:
    """Code in a process of its own, forked by a server that has imported torch and Lightning: seconds less."""

    def __init__(self, code: str, *arguments: str, cwd: Path, env: dict[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._said = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        for path in self._said:
            path.touch()
        server = multiprocessing.get_context("forkserver")
        about = (code, list(arguments), str(cwd), _environment(env), [str(path) for path in self._said])
        self._process = server.Process(target=_execute, args=about)
        self._process.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As of subprocess: None while it runs, minus the number of the signal that ended it."""
        return self._process.exitcode

    def stdout(self) -> str:
        """What it has printed so far."""
        return self._said[0].read_text()

    def send_signal(self, number: int) -> None:
        assert self.pid is not None
        os.kill(self.pid, number)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end; return its exit status and what it said."""
        self._process.join()
        said = [path.read_text() for path in self._said]
        self._folder.cleanup()
        assert self.returncode is not None
        return subprocess.CompletedProcess([], self.returncode, *said)


def _execute(code: str, arguments: list[str], cwd: str, env: dict[str, str], said: list[str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = ["-c", *arguments]
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def losskernel_command(
    *arguments: str, cwd: Path, command: str = "main", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, away from the checkout."""
    code = f"from losskernel.cli import {command}; {command}()"
    return Forked(code, *arguments, cwd=cwd, env=env).wait()


def run_python(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a new interpreter."""
    words = [sys.executable, *arguments]
    return subprocess.run(words, cwd=cwd, env=_environment(env), capture_output=True, text=True)


def _environment(env: dict[str, str] | None) -> dict[str, str]:
    """Return the environment with no variable of Hydra's or W&B's from outside, and with the given ones."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("HYDRA", "WANDB"))}
    return plain | {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"} | (env or {})


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
