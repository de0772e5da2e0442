"""Chains of several jobs are those of one: bit for bit where they agree, refused by name where they do not."""

import functools
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import xarray as xr
from command import tiny
from omegaconf import OmegaConf

import losskernel as lk
from losskernel.cli.build import build
from losskernel.data import arithmetic
from losskernel.errors import TraceError
from losskernel.models import MultitaskMLP
from losskernel.runs.run import run
from losskernel.traces.compatibility import chain_settings, differing_settings
from losskernel.traces.join import chain_ranges, join
from losskernel.training import load_weights

SHORT = ("training.steps=3", "schedule.draws=2", "schedule.burn_in=2", "dataset.probes_per_task=4", "analysis=[]")


@functools.cache
def composed(*overrides: str) -> dict[str, Any]:
    """A configuration without interpolations."""
    return cast(dict[str, Any], OmegaConf.to_container(tiny(Path("x"), *SHORT, *overrides), resolve=True))


def job(folder: Path, *overrides: str) -> Path:
    """A real run of the smallest size, with its configuration."""
    settings = tiny(folder, *SHORT, "control=false", *overrides)
    run(build(settings), folder, config=cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True)))
    return folder


def about(traces: lk.LossTraces) -> dict[str, Any]:
    """The provenance, but for what may differ: where things lie, and what was joined."""
    config = {key: value for key, value in traces.meta["config"].items() if key != "paths"}
    return {key: value for key, value in traces.meta.items() if key != "joined"} | {"config": config}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four jobs of two chains each."""
    home = tmp_path_factory.mktemp("jobs")
    return [job(home / str(first), f"chain_offset={first}") for first in range(0, 8, 2)]


def test_jobs_join_to_what_one_job_gives_bit_for_bit(jobs: list[Path], tmp_path: Path) -> None:
    one = lk.open_traces(job(tmp_path / "one", "schedule.chains=8"))
    joined = lk.open_traces([jobs[2], jobs[0], jobs[3], jobs[1]])  # in any order
    xr.testing.assert_equal(joined.dataset, one.dataset)
    assert {"losses", "distance", "burn_in_loss", "curvature", "acceptance", "start_losses"} <= set(one.dataset)
    assert list(joined.labels) == list(one.labels)
    assert about(joined) == about(one)
    assert [item["chains"] for item in joined.meta["joined"]] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [item["trace"] for item in joined.meta["joined"]] == list(map(str, jobs))


def test_a_joined_trace_is_saved_and_resumed_like_one_jobs(jobs: list[Path], tmp_path: Path) -> None:
    joined = lk.open_traces(jobs[:2])
    path = joined.save(tmp_path / "traces.zarr")
    xr.testing.assert_identical(lk.open_traces(path).dataset, joined.dataset)
    study = build(tiny(tmp_path / "again", *SHORT, "schedule.chains=4", f"checkpoint={jobs[0]}/checkpoints/trained.pt"))
    assert study.checkpoint is not None
    assert study.schedule is not None
    model = load_weights(study.model, study.checkpoint)
    same = lk.sample(model, study.data, study.sampler, study.schedule, out=path)  # nothing is left to sample
    xr.testing.assert_identical(same.dataset, joined.dataset)


def test_a_gap_is_allowed_and_recorded(jobs: list[Path], tmp_path: Path) -> None:
    joined = lk.open_traces([jobs[0], jobs[3]])
    assert joined.losses["chain"].values.tolist() == [0, 1, 6, 7]
    assert joined.meta["identity"]["chains"] == [0, 1, 6, 7]  # of which no one job has the settings
    assert joined.meta["config"]["schedule"]["chains"] == 4
    whole = lk.open_traces([joined.save(tmp_path / "first.zarr"), *jobs[1:3]])
    xr.testing.assert_equal(whole.dataset, lk.open_traces(jobs).dataset)
    assert about(whole) == about(lk.open_traces(jobs))
    assert lk.open_traces(jobs[2:]).meta["identity"]["chain_offset"] == 4


KEYS = {
    "model.width=16": ["model.width: 32 in A, 16 in B"],
    "model.depth=2": ["model.depth: 1 in A, 2 in B"],
    "dataset.samples_per_task=400": ["dataset.samples_per_task: 500 in A, 400 in B"],
    "dataset.seed=5": ["dataset.seed: 0 in A, 5 in B"],
    "wrapper=[training_probes]": [
        "wrapper.training_probes._target_: null in A, losskernel.data.TrainingProbes in B",
        "wrapper.training_probes.seed: null in A, 0 in B",
    ],
    "training.steps=4": ["training.steps: 3 in A, 4 in B"],
    "training.optimizer.lr=0.02": ["training.optimizer.lr: 0.01 in A, 0.02 in B"],
    "sampler=sgld": [
        "sampler._target_: losskernel.SGHMC in A, losskernel.SGLD in B",
        "sampler.momentum: 0.5 in A, null in B",
    ],
    "sampler.step_size=1e-4": ["sampler.step_size: 0.001 in A, 0.0001 in B"],
    "sampler.nbeta=50": ["sampler.nbeta: 100.0 in A, 50 in B"],
    "sampler.localization=10": ["sampler.localization: 50.0 in A, 10 in B"],
    "schedule.burn_in=3": ["schedule.burn_in: 2 in A, 3 in B"],
    "schedule.draws=3": ["schedule.draws: 2 in A, 3 in B"],
    "schedule.thinning=2": ["schedule.thinning: 1 in A, 2 in B"],
    "schedule.batch_size=32": ["schedule.batch_size: 64 in A, 32 in B"],
    "schedule.probe_precision=bfloat16": ["schedule.probe_precision: float32 in A, bfloat16 in B"],
    "seed=1": ["seed: 0 in A, 1 in B", "dataset.seed: 0 in A, 1 in B"],  # which follows it
}


def refusal(*folders: Path) -> list[str]:
    """What is said of traces that do not join, with A and B for them."""
    with pytest.raises(TraceError, match="are not chains of one kernel: ") as refused:
        lk.open_traces(list(folders))
    said = str(refused.value).split(" are not chains of one kernel: ")[1]
    for folder, letter in zip(folders, "ABCDEF", strict=False):
        said = said.replace(str(folder), letter)
    return said.split("; ")


@pytest.mark.parametrize("part", ["model. training. sampler schedule. seed", "dataset. wrapper="])
def test_all_keys_that_differ_are_named(part: str, jobs: list[Path], tmp_path: Path) -> None:
    overrides = [key for key in KEYS if key.startswith(tuple(part.split()))]
    other = job(tmp_path, "chain_offset=2", *overrides)
    assert sorted(refusal(jobs[0], other)) == sorted(line for key in overrides for line in KEYS[key])


@pytest.mark.parametrize("override", KEYS)
def test_one_key_that_differs_is_named_alone(override: str) -> None:
    assert sorted(differing_settings([composed(), composed(override)], "AB")) == sorted(KEYS[override])


def test_every_key_of_a_configuration_must_agree_or_is_known_not_to() -> None:
    parts = {key.split(".")[0] for key in chain_settings(composed() | {"new": 1})}
    assert parts == {"model", "dataset", "training", "sampler", "schedule", "seed", "new"}
    assert "schedule.chains" not in chain_settings(composed())
    assert chain_settings({"dataset": {"workers": 3, "cache": "x", "root": "y"}}) == {"dataset.root": "y"}


def test_the_order_of_wrappers_must_agree() -> None:
    noisy, doubled = (
        {"symmetric_noise": {"_target_": "n", "rate": 0.2}},
        {"duplicates": {"_target_": "d", "share": 0.1}},
    )
    given = [
        {"wrapper": noisy | doubled},
        {"wrapper": doubled | noisy},
        {"wrapper": noisy | doubled | {"of": {"x": 1}}},
    ]
    line = 'wrapper: ["symmetric_noise", "duplicates"] in A, ["duplicates", "symmetric_noise"] in B'
    assert differing_settings(given[:2], "AB") == [line]
    assert differing_settings([chain_settings(item) for item in given[:2]], "AB") == [line]
    assert differing_settings(given[::2], "AB") == [
        "wrapper.of.x: null in A, 1 in B"
    ]  # a setting of what is not chosen


def test_settings_that_do_not_change_chains_may_differ(jobs: list[Path], tmp_path: Path) -> None:
    more = ["threads=2", "name=other", "state_every=1", "chains_per_fit=1", "label=task"]
    other = job(tmp_path / "other", "chain_offset=2", f"checkpoint={jobs[0]}/checkpoints/trained.pt", *more)
    xr.testing.assert_equal(lk.open_traces([jobs[0], other]).dataset, lk.open_traces(jobs[:2]).dataset)


def test_weights_that_differ_are_named_with_a_remedy(jobs: list[Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "checkpoints" / "trained.pt"
    elsewhere.parent.mkdir(parents=True)
    state = torch.load(jobs[0] / "checkpoints" / "trained.pt", weights_only=True)
    next(iter(state["state_dict"].values())).add_(1e-3)  # as if another machine had trained it
    torch.save(state, elsewhere)
    line, remedy = refusal(jobs[0], job(elsewhere.parents[1], "chain_offset=2"))
    weights = r"the trained weights: \w{16} in A, \w{16} in B, although model, dataset, training, seed agree: "
    assert re.fullmatch(weights + "training gave others, as on another machine or with other versions", line), line
    assert remedy == "train once, and give every job checkpoint=<run>/checkpoints/trained.pt"


def test_weights_of_checkpoints_that_differ_are_named(tmp_path: Path) -> None:
    weights = [{"seed": 0, "model": {"weights": name}} for name in "xy"]
    first, named = ({"seed": 0, "checkpoint": checkpoint} for checkpoint in (None, "x" * 99))
    one, other = made(tmp_path / "0", [0], config=first, identity=weights[0]), tmp_path / "1"
    made(other, [1], config=named, identity=weights[1])
    assert refusal(one, other) == [f"checkpoint: null in A, {'x' * 60}… in B"]
    same = [made(tmp_path / f"s{n}", [n], config=named, identity=weights[n]) for n in range(2)]
    changed = "although checkpoint agrees: the file has changed"
    assert refusal(*same) == [f"the trained weights: x in A, y in B, {changed}", "give every job the same file"]


def made(folder: Path, chains: list[int], **meta: Any) -> Path:
    """A trace with a provenance of its own."""
    traces = lk.LossTraces.from_arrays(np.random.default_rng(chains[0]).normal(size=(len(chains), 3, 2)), meta=meta)
    lk.LossTraces(traces.dataset.assign_coords(chain=chains)).save(folder)
    return folder


def test_files_that_differ_are_named(tmp_path: Path) -> None:
    config, data = {"dataset": {"root": "x"}, "seed": 0}, {"train": "9 samples, a", "probes": "2 samples, b"}
    first = made(tmp_path / "0", [0], config=config, identity={"data": data})
    second = made(tmp_path / "1", [1], config=config, identity={"data": data | {"train": "8 samples, c"}})
    said = "the training data: 9 samples, a in A, 8 samples, c in B, although dataset, seed agree: "
    assert refusal(first, second)[0] == said + "the files are others, or have changed"


def test_of_many_traces_some_are_named(tmp_path: Path) -> None:
    given = [made(tmp_path / f"{n}.zarr", [n], config={"model": {"width": n < 5}}) for n in range(6)]
    with pytest.raises(TraceError, match="these 6 traces are not chains") as refused:
        lk.open_traces(given)
    numbers = r"width: true in \S+/0.zarr and \S+1.zarr and \S+2.zarr and 2 others, false in \S+5.zarr$"
    assert re.search(numbers, str(refused.value))


def test_seeds_of_traces_from_python_join_and_of_runs_do_not(tmp_path: Path) -> None:
    plain = [made(tmp_path / f"p{n}", [4 * n, 4 * n + 2], identity={"seed": n}) for n in (1, 0)]
    assert lk.open_traces(plain).losses["chain"].values.tolist() == [0, 2, 4, 6]  # numbers that do not clash are kept
    config = {"seed": 1, "model": {"width": 3}}
    run = made(tmp_path / "run", [9], config=config, identity={"seed": 1})
    assert refusal(plain[1], run) == ["seed: 0 in A, 1 in B"]


def test_chains_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    parts = [made(tmp_path / "0", [0, 5, 2]), made(tmp_path / "1", [4, 1])]
    joined = lk.open_traces(parts).losses
    assert joined["chain"].values.tolist() == [0, 1, 2, 4, 5]
    for part in map(lk.open_traces, parts):
        xr.testing.assert_equal(joined.sel(chain=part.losses["chain"]), part.losses)


def test_labels_of_the_probes_must_agree(tmp_path: Path) -> None:
    values = np.zeros((1, 3, 2))
    for name in "xy":
        lk.LossTraces.from_arrays(values, labels={"task": ["x", name]}).save(tmp_path / name)
    assert refusal(tmp_path / "x", tmp_path / "y") == ["probes: the label 'task' in A is not that in B"]


def test_ranges_of_chains_in_words() -> None:
    assert chain_ranges([3]) == "chain 3"
    assert chain_ranges([9, 0, 1, 2, 4]) == "chains 0 to 2 and 4 and 9"


def test_lower_precision_joins_bit_for_bit_too() -> None:
    data = arithmetic(samples_per_task=80, probes_per_task=4)
    sampler = functools.partial(lk.SGLD, step_size=1e-3, nbeta=100.0, localization=100.0)

    def drawn(chains: int, first: int) -> xr.Dataset:
        schedule = lk.Schedule(chains, burn_in=2, draws=2, thinning=1, batch_size=32, probe_precision="bfloat16")
        torch.manual_seed(0)
        return lk.sample(MultitaskMLP(tasks=2), data, sampler, schedule, chain_offset=first, progress=False).dataset

    joined = join([drawn(1, 2), drawn(2, 0)], "ab")
    assert "precision_noise" in joined
    xr.testing.assert_equal(joined, drawn(3, 0))
