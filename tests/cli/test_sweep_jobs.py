"""Sweeps over chain_offset: jobs that would sample the same chains are refused before one of them begins."""

from pathlib import Path
from typing import Any

import pytest
from command import TINY, call
from omegaconf import OmegaConf

import losskernel.cli
from losskernel.cli.launchers.sweep_jobs import SweepJob, refuse_overlapping_chains, warn_of_different_probes
from losskernel.config_keys import Use, with_use
from losskernel.errors import InputError


def sweep(*jobs: dict[str, Any]) -> list[SweepJob]:
    """Jobs as Hydra composes them, each of its own words; four chains from 0 on where they say nothing."""
    made: list[SweepJob] = []
    for number, extra in enumerate(jobs):
        words = [f"{key}={value}" for key, value in extra.items()]
        config = OmegaConf.create({"chain_offset": 0, "checkpoint": None, "schedule": {"chains": 4}, "name": "${no}"})
        config = OmegaConf.merge(config, {"name": "run", "seed": 0}, OmegaConf.from_dotlist(words))
        made.append(SweepJob(number, words, " ".join(words), Path(str(number)), config))  # pyright: ignore[reportArgumentType]
    return made


def offsets(*values: int, **others: Any) -> list[dict[str, Any]]:
    return [{"chain_offset": value} | others for value in values]


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        (
            offsets(0, 2),
            r"^chain_offset=0,2, schedule\.chains=4: job 0 \(chain_offset=0\) and job 1 \(chain_offset=2\) would both "
            r"sample chains 2 to 3 of one kernel; chain_offset=range\(0,8,4\) gives every job chains of its own$",
        ),
        (offsets(12, 4, 8, 9), r"job 2 .* and job 3 .* sample chains 9 to 11 .*chain_offset=range\(4,20,4\)"),
        (offsets(0, 4, 4), r"job 1 .* and job 2 .* sample chains 4 to 7 of one kernel; chain_offset=range\(0,12,4\)"),
        (offsets(*range(9)), r"^chain_offset=0,1,2,3,4,5,\.\.\., .*range\(0,36,4\)"),
        (offsets(0, 4, seed=1) + offsets(0, 3, seed=2), r"job 2 \(chain_offset=0 seed=2\) and job 3 .* chain 3 of one"),
        (
            offsets(0, 4, **{"schedule.chains": 2}) + offsets(0, 4),
            r"sample chains 0 to 1 of one kernel; schedule\.chains makes no other kernel: give it one value beside",
        ),
        (offsets(0, 8, progress=True) + offsets(0, 8, progress=False), r"; progress makes no other kernel"),
    ],
)
def test_chains_that_two_jobs_would_sample_are_named_with_what_to_do(jobs: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refuse_overlapping_chains(sweep(*jobs))


@pytest.mark.parametrize(
    "jobs",
    [
        offsets(0, 4, 8),
        [{"chain_offset": 0, "schedule.chains": 2}, {"chain_offset": 2, "schedule.chains": 4}],
        [*offsets(0, seed=1), *offsets(2, seed=2)],
        [*offsets(0, checkpoint="a.pt"), *offsets(2, checkpoint="b.pt")],
        [{"schedule.chains": 2}, {"schedule.chains": 4}],  # how much more chains tell: nothing is to be joined
        offsets(0, 0),  # nor here
        [*offsets(0), {"chain_offset": 2, "seed": "${nowhere}"}],  # the job itself will say so
        [{"chain_offset": 0.5}, {"chain_offset": "x"}],
        [{"chain_offset": 0, "schedule": "null"}, {"chain_offset": 1, "schedule": "null"}],
    ],
)
def test_other_sweeps_go_on(jobs: list[dict[str, Any]]) -> None:
    refuse_overlapping_chains(sweep(*jobs))


def test_what_a_calibration_sets_makes_other_kernels_or_the_same() -> None:
    def calibrated(*values: float) -> list[SweepJob]:
        jobs = sweep(*offsets(0, 2))
        for job, composed, value in zip(jobs, (5.0, 6.0), values, strict=True):
            result = {"values": {"sampler.localization": value}, "of": dict.fromkeys(with_use(Use.CALIBRATION))}
            job.config.update(sampler={"localization": composed}, calibrated=result)
        return jobs

    refuse_overlapping_chains(calibrated(1.0, 10.0))
    same = calibrated(1.0, 1.0)
    with pytest.raises(InputError, match="chains 2 to 3"):
        refuse_overlapping_chains(same)
    assert same[0].config.sampler.localization == 5.0


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_the_command_refuses_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, launcher: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (*TINY, "logger=none", "schedule.chains=4", "chain_offset=0,2", f"hydra/launcher={launcher}")
    assert call("-m", *words, "paths.sweep=swept") == 1
    out, err = capsys.readouterr()
    assert err.startswith("losskernel: chain_offset=0,2, schedule.chains=4: job 0 (chain_offset=0) and job 1 (")
    assert err.count("\n") == 1
    assert out == ""
    assert [path.name for path in (tmp_path / "swept").iterdir()] == ["multirun.yaml"]


def test_batches_are_looked_at_together_and_a_single_run_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    done: list[int] = []
    monkeypatch.setattr("losskernel.cli.build.run_from", lambda config, *_, **__: done.append(config.chain_offset))
    monkeypatch.chdir(tmp_path)
    small = ("logger=none", "schedule.chains=4", "hydra.sweeper.max_batch_size=1", "~hydra.callbacks.compare")
    assert call("-m", *small, "chain_offset=0,2") == 1
    assert "chain_offset=range(0,8,4)" in capsys.readouterr().err
    assert done == []
    assert call("-m", *small, "chain_offset=0,4") == 0
    assert call(*small, "chain_offset=2") == 0
    assert done == [0, 4, 2]


def test_the_sweeper_says_what_hydras_own_says() -> None:
    extra = OmegaConf.load(Path(losskernel.cli.CONF) / "hydra" / "sweeper" / "checked.yaml")
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf

    assert set(extra) == set(OmegaConf.structured(BasicSweeperConf))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("jobs", "warned"),
    [
        ([{"dataset.seed": "${seed}", "seed": 0}, {"dataset.seed": "${seed}", "seed": 1}], False),  # asked for so
        ([{"seed": 0}, {"seed": 0, "sampler.nbeta": 1}], False),
        ([{"seed": 0}, {"seed": 1}], True),
    ],
)
def test_probes_that_follow_the_seed_are_told_of(jobs: list[dict[str, Any]], warned: bool, capsys: Any) -> None:
    made = sweep(*jobs)
    for job in made:
        job.config.dataset = {"seed": "${seed}"}
    warn_of_different_probes(made)
    assert ("kernels cannot be compared; dataset.seed=0 gives all the same" in capsys.readouterr().out) == warned
