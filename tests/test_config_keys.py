"""The table of configuration keys: what it says of each key, and that every consumer asks it."""

from pathlib import Path
from typing import Any

import pytest
from command import config as composed
from omegaconf import OmegaConf
from planted_runs import runs_of

from losskernel import config_keys
from losskernel.cli.launchers import sweep_jobs
from losskernel.config_keys import DONE, KEYS, ConfigKey, Role, Use, current_classes, part_of, row, with_absent
from losskernel.errors import TraceError
from losskernel.runs.folder import RunFolder
from losskernel.runs.run import claim
from losskernel.runs.tracking.wandb_tracker import short_names
from losskernel.sweeps.design import swept_keys
from losskernel.traces.compatibility import differing_settings

NEW = "sampler.temperature"


def with_temperature(value: float) -> dict[str, Any]:
    return {"model": {"width": 8}, "sampler": {"step_size": 1e-3, "temperature": value}, "seed": 0}


def asked_of_every_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Consumer -> whether it takes note of a difference in the new key."""
    one, other = with_temperature(1.0), with_temperature(2.0)
    files = RunFolder(tmp_path)
    claim(files, one)
    try:
        claim(files, other)
        resumes = False
    except TraceError as error:
        resumes = NEW in str(error)
    monkeypatch.setattr(sweep_jobs, "HydraConfig", _Hydra(f"{NEW}=2.0"))
    runs = runs_of({NEW: 1.0}, {NEW: 2.0})
    return {
        "resume": resumes,
        "join": any(NEW in line for line in differing_settings([one, other], ["a", "b"])),
        "compare": NEW in swept_keys(runs),
        "name": any(word.startswith("temperature=") for word in sweep_jobs._settings()),
        "W&B": "temperature" in short_names(one),
    }


class _Hydra:
    """What Hydra tells of a job that was given some words."""

    def __init__(self, *words: str) -> None:
        self.words = list(words)

    def initialized(self) -> bool:
        return True

    def get(self) -> Any:
        return OmegaConf.create({"overrides": {"task": self.words}, "mode": "RUN"})


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (ConfigKey(NEW, Role.CHAINS, Use.SHORT_NAME), {"resume", "join", "compare", "name", "W&B"}),
        (ConfigKey(NEW, Role.SELECTION), {"resume", "compare", "name"}),
        (ConfigKey(NEW, Role.INPUTS), {"compare", "name"}),
        (ConfigKey(NEW, Role.EXECUTION), set()),
        (ConfigKey(NEW, Role.OUTPUT), set()),
    ],
    ids=lambda value: value.role.name if isinstance(value, ConfigKey) else "",
)
def test_every_consumer_asks_the_table(
    added: ConfigKey, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_keys, "KEYS", [*KEYS, added])
    answers = asked_of_every_consumer(tmp_path, monkeypatch)
    assert {name for name, noted in answers.items() if noted} == expected


def test_an_unknown_key_decides_the_chains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert row("whatever.it.is").role is Role.CHAINS
    answers = asked_of_every_consumer(tmp_path, monkeypatch)
    assert answers == {"resume": True, "join": True, "compare": True, "name": True, "W&B": False}


def test_every_top_level_key_of_the_real_configuration_has_a_row() -> None:
    rows = {known.name for known in KEYS}
    assert {str(key) for key in composed()} <= rows
    assert len(rows) == len(KEYS)


def test_a_key_below_another_has_its_own_role_where_it_has_a_row() -> None:
    assert row("dataset.root").role is Role.CHAINS
    assert row("dataset.workers").role is Role.EXECUTION
    nested = {"dataset": {"root": "r", "workers": 4}, "threads": 2, "schedule": {"chains": 4, "draws": 9}, "name": "n"}
    assert part_of(nested, [Role.CHAINS]) == {"dataset": {"root": "r"}, "schedule": {"draws": 9}}
    assert part_of(nested, DONE) == {"dataset": {"root": "r"}, "schedule": {"chains": 4, "draws": 9}}


def test_older_configurations_have_the_values_that_their_lack_of_a_key_stood_for() -> None:
    assert with_absent({"seed": 1}) == {"seed": 1, "wrapper": {}, "chain_offset": 0}
    older = {"seed": 1, "schedule": {"draws": 9}}
    assert with_absent(older)["schedule"] == {"draws": 9, "step_check_share": 0.1}
    assert older["schedule"] == {"draws": 9}
    assert with_absent({"schedule": None})["schedule"] is None
    assert with_absent({"chain_offset": 3, "wrapper": {"a": {}}}) == {"chain_offset": 3, "wrapper": {"a": {}}}


def test_classes_of_stored_configurations_are_named_where_they_lie_now() -> None:
    stored = {
        "baselines": {"el2n": {"_target_": "losskernel.suspicion.EL2N", "epochs": 2}},
        "list": [{"_target_": "a.B"}],
    }
    assert current_classes(stored) == {
        "baselines": {"el2n": {"_target_": "losskernel.representations.scores.EL2N", "epochs": 2}},
        "list": [{"_target_": "a.B"}],
    }
