"""The search by W&B's agents: what their own code makes of our file is a command that composes."""

from pathlib import Path
from typing import Any

import pytest
from command import config
from wandb import wandb_agent
from wandb.sdk.launch.sweeps.utils import load_sweep_config

import losskernel.cli
from losskernel.cli.build import build

SWEEP = Path(losskernel.cli.CONF) / "wandb_sweep.yaml"


def asked() -> dict[str, Any]:
    found = load_sweep_config(str(SWEEP))
    assert found is not None
    return found


def command_of(chosen: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> list[str]:
    """The command with which W&B's agent starts a run."""
    seen: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **_: Any) -> None:
            seen.append(command)

    class Agent(wandb_agent.Agent):
        def __init__(self) -> None:
            """Ask no server."""
            self._sweep_command, self._run_processes = asked()["command"], {}
            self._in_jupyter = self._function = None
            self._forward_signals = False

    monkeypatch.setattr(wandb_agent, "AgentProcess", Process)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "before")  # it sets its own
    monkeypatch.delenv("WANDB_SWEEP_PARAM_PATH", raising=False)
    args = {name: {"value": value} for name, value in chosen.items()}
    agent: Any = Agent()
    agent._command_run({"run_id": "run45678", "program": asked()["program"], "args": args})
    monkeypatch.setenv("WANDB_RUN_ID", "run45678")
    return seen[0]


def test_the_agents_command_composes(tmp_path: Path, monkeypatch: Any) -> None:
    parameters = asked()["parameters"]
    chosen = {name: each.get("value", each.get("max")) for name, each in parameters.items()}
    chosen["sampler.step_size"] = 1.2345678901234567e-4
    env, program, *words = command_of(chosen, tmp_path, monkeypatch)
    assert (env, program) == ("/usr/bin/env", "losskernel")
    found = config(*words)
    assert (found.sampler.localization, found.sampler.nbeta) == (1000, 1000)
    assert found.sampler.step_size == 1.2345678901234567e-4
    assert found.name == "multitask"
    # A run that is preempted gets its id again, and finds its folder by it.
    assert found.paths.run == "outputs/sweep123/run45678"
    assert build(found).progress is False


@pytest.mark.parametrize("end", ["min", "max"])
def test_every_corner_of_the_search_can_be_built(end: str, tmp_path: Path, monkeypatch: Any) -> None:
    chosen = {name: each.get("value", each.get(end)) for name, each in asked()["parameters"].items()}
    build(config(*command_of(chosen, tmp_path, monkeypatch)[2:]))


def test_the_search_is_one_that_wandb_takes() -> None:
    # By the schema of github.com/wandb/sweeps, which the service holds it against.
    found = asked()
    assert {"program", "method", "parameters", "command", "metric"} <= set(found)
    assert found["method"] in ("bayes", "random", "grid")
    assert found["metric"]["goal"] in ("minimize", "maximize")
    assert "." not in found["metric"]["name"]  # W&B takes what follows a dot for something nested
    for name, each in found["parameters"].items():
        assert name.replace(".", "").replace("_", "").isalnum()
        if "value" not in each:
            assert set(each) == {"distribution", "min", "max"}
            assert each["distribution"] == "log_uniform_values"
            assert all(isinstance(each[end], (int, float)) for end in ("min", "max"))  # yaml takes 1e-5 for a word
            assert 0 < each["min"] < each["max"]
