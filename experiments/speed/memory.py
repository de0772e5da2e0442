"""Peak memory of the angles between many layers of Inception-v1 over many probes."""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from losskernel.data.base import Data, tensors
from losskernel.data.synthetic import taxonomy_images
from losskernel.geometry import AngularCKA
from losskernel.losses import cross_entropy
from losskernel.models import inception_v1
from losskernel.representations.activations import Graph, choose, record, trace_graph
from losskernel.representations.points import write_point

CLASSES, SIDE = 60, 64


def pictures(count: int) -> Data:
    """The first pictures of a taxonomy, as probes."""
    drawn = taxonomy_images(size=SIDE, per_class=1, probes_per_class=-(-count // CLASSES))
    inputs, targets = tensors(drawn.probes)
    # Class after class: spread over all of them.
    chosen = np.linspace(0, len(inputs) - 1, count).astype(int)
    return Data(drawn.train, TensorDataset(inputs[chosen], targets[chosen]), cross_entropy)


def network(data: Data) -> nn.Module:
    """Inception-v1 with random weights and the BatchNorm statistics of one pass: activations keep their size."""
    torch.manual_seed(0)
    model = inception_v1(outputs=CLASSES)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    with torch.no_grad():
        model.train()(tensors(data.probes)[0][:64])
    return model.eval()


def layers(graph: Graph, count: int) -> Graph:
    """Evenly chosen among rectified convolutions, concatenations, poolings and the head."""
    whole = choose(graph, [r"re:.*relu", r"re:.*cat", "maxpool?", "avgpool", "fc"])
    names = [whole.names[place] for place in np.linspace(0, len(whole.names) - 1, count).astype(int)]
    return choose(graph, names)


def peak() -> float:
    """The most that this process has held in memory, in GB; nothing here is a mapped file."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Record layers to disk, compare all of them, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probes", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--budget", type=float, default=2.0, help="GiB of activations held at once")
    parser.add_argument("--folder", default=None, help="where points are kept meanwhile")
    asked = parser.parse_args()
    begin = start = time.perf_counter()

    def report(what: str) -> None:
        nonlocal start
        now = time.perf_counter()
        print(f"{what}: {now - start:.0f} s, peak so far {peak():.2f} GB", flush=True)
        start = now

    data = pictures(asked.probes)
    model = network(data)
    graph = layers(trace_graph(model, data), asked.layers)
    report(f"{asked.probes} pictures of {SIDE} px and {type(model).__name__}")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        points, dead = [], []
        for name, point in record(model, data, graph, int(asked.budget * 2**30)):
            if point is None:
                dead.append(name)
                continue
            points.append(write_point(point, Path(folder) / f"{len(points)}.zarr"))
            del point
            print(f"  {len(points)} {name} {graph.widths[name]}: {time.perf_counter() - start:.0f} s", flush=True)
        report(f"{len(points)} layers of {sum(graph.widths.values())} units recorded, {len(dead)} dead")
        disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        arrangement = AngularCKA("u").arrangement(points)
        report("all their angles")
    steps = np.diagonal(arrangement.distances, 1)
    print(f"{disk / 1e9:.2f} GB on disk; steps from {steps.min():.4f} to {steps.max():.4f} rad")
    print(f"peak {peak():.2f} GB, {time.perf_counter() - begin:.0f} s in all, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
