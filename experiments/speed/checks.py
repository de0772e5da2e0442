"""Cost of the checks before sampling: as a share of the default run, and in seconds on Inception-v1.

usage: python experiments/speed/checks.py
"""

import time

import torch
from hydra import compose, initialize_config_dir
from torch import nn

from losskernel.cli.build import build
from losskernel.cli.config import CONF
from losskernel.data.identity import dataset_digest
from losskernel.losses import cross_entropy
from losskernel.models import inception_v1
from losskernel.sampling.engine.plain_model import PlainModel, choose_route
from losskernel.sampling.engine.stacked_model import StackedModel
from losskernel.sampling.loss_checks import SAMPLES, check_function
from losskernel.sampling.sample import sample
from losskernel.sampling.setup import identity, setup_of
from losskernel.storage.object_digest import stored_digest

REPEATS = 3


def seconds(work: object) -> float:
    """Return the shortest processor time of a few calls."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()  # type: ignore[operator]
        times.append(time.process_time() - began)
    return min(times)


def default_run() -> None:
    """Print what the checks cost of the default run's sampling, training and analyses left out."""
    with initialize_config_dir(CONF, version_base="1.3"):
        study = build(compose("config", overrides=["logger=none", "progress=false", "hydra.mode=RUN"]))
    model, data, schedule = study.model, study.data, study.schedule
    assert schedule is not None
    setup = setup_of(model, data, study.sampler, schedule)
    inputs, targets = data.probes[:SAMPLES]
    train_inputs, train_targets = data.train[: schedule.batch_size]
    chains = schedule.chains
    batch = train_inputs.expand(chains, *train_inputs.shape), train_targets.expand(chains, *train_targets.shape)
    probes = data.probes[:]

    def plain() -> None:
        # The fast route's part is no cost: its recordings are those that sampling uses.
        stack = PlainModel(model, data.loss, chains, setup.moving)
        for _ in range(2):
            views = stack.views(stack.start.repeat(chains, 1))
            stack.gradient(views, *batch)
            stack.evaluator(views)(*probes)

    parts = {
        "mixing and noise": seconds(lambda: check_function(model, data.loss, inputs, targets)),
        "plain evaluation beside the recorded one": seconds(plain),
        "identity": seconds(lambda: identity(setup_of(model, data, study.sampler, schedule))),
    }
    whole = seconds(lambda: sample(model, data, study.sampler, schedule, progress=False))
    for name, cost in parts.items():
        print(f"default run: {name:42} {cost:7.3f} s, {100 * cost / whole:5.2f} % of sampling ({whole:.1f} s)")
    print(f"default run: {'together':42} {sum(parts.values()):7.3f} s, {100 * sum(parts.values()) / whole:5.2f} %")


def inception() -> None:
    """Print what the checks cost on Inception-v1 at 224 pixels."""
    model: nn.Module = inception_v1()
    inputs, targets = torch.randn(SAMPLES, 3, 224, 224), torch.randint(0, 1000, (SAMPLES,))
    moving = [name for name, _ in model.named_parameters()]

    def build_model(kind: type[StackedModel]) -> StackedModel:
        return kind(model, cross_entropy, 1, moving)

    for name, work in {
        "mixing and noise": lambda: check_function(model, cross_entropy, inputs, targets),
        "both routes, recording included": lambda: choose_route(
            build_model, (inputs[None, :2], targets[None, :2]), (inputs[:2], targets[:2])
        ),
        "digest of the network": lambda: stored_digest(model),
        "digest of 16 pictures": lambda: dataset_digest(torch.utils.data.TensorDataset(inputs, targets)),
    }.items():
        began = time.process_time()
        work()
        print(f"Inception-v1, 224 px: {name:33} {time.process_time() - began:7.2f} s of processor time")


if __name__ == "__main__":
    torch.set_num_threads(1)
    default_run()
    inception()
