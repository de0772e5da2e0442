"""Which weights make a kernel that follows WordNet? Gram matrices of loss gradients, block of weights by block.

They are what the loss kernel goes to as localization grows (experiments/joint), and hold no Monte-Carlo noise.

usage: python experiments/imagenet/blocks.py NETWORK PICTURES SIZE [CLASSES]     NETWORK: lite0 | squeezenet
"""

import sys
from collections import defaultdict

import numpy as np
import pandas as pd
import torch

from losskernel import models
from losskernel.analyses.rank_tests import mantel, upper
from losskernel.data import Preprocessing, imagenet
from losskernel.data.loading import BlockLoader
from losskernel.data.taxonomy.readers import wordnet
from losskernel.representations.evaluation import gradients_one_by_one

NETWORKS = {
    "lite0": (lambda: models.timm_model("tf_efficientnet_lite0", weights="package"), "timm/tf_efficientnet_lite0"),
    "squeezenet": (lambda: models.squeezenet1_1(weights="package"), "torchvision/squeezenet1_1"),
}
NEAREST = 0.02  # share of pairs of classes that count as near in WordNet
AGREEMENT = 0.8  # of kernels from disjoint halves of the draws, which a pass of the diagnosis needs


def grams(network: str, pictures: str, size: int, classes: int) -> tuple[dict[str, np.ndarray], dict[str, int], list]:
    """Return each block's Gram matrix [N, N] and number of weights, and the pictures' wnids."""
    make, preprocessing = NETWORKS[network]
    model = make().eval()
    data = imagenet(
        pictures, size=size, preprocessing=Preprocessing(preprocessing), probes_per_class=1, probe_split="train",
        classes=classes, workers=1,
    )  # fmt: skip
    names = [".".join(name.split(".")[:2]) for name, _ in model.named_parameters()]
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    for inputs, targets in BlockLoader(data.probes, 50, 1, torch.device("cpu")):
        for gradient in gradients_one_by_one(model, data.loss, list(model.parameters()), inputs, targets):
            parts: dict[str, list[torch.Tensor]] = defaultdict(list)
            for name, part in zip(names, gradient, strict=True):
                parts[name].append(part.flatten())
            for name, tensors in parts.items():
                rows[name].append(torch.cat(tensors).numpy())
    gram = {}
    for name in list(rows):
        block = np.stack(rows.pop(name))  # [N, weights], a block at a time
        gram[name] = (block @ block.T).astype(np.float64)
    return gram, {name: sum(part.numel() for part, own in zip(model.parameters(), names, strict=True) if own == name)
                  for name in gram}, list(data.labels["wnid"])  # fmt: skip


def described(gram: np.ndarray, distance: np.ndarray) -> dict[str, float]:
    """Return how a Gram matrix follows WordNet, and how many independent draws would show its entries."""
    length = np.sqrt(np.diag(gram))
    relation = gram / np.outer(length, length)
    of_pairs, far = upper(relation), upper(distance)
    near = far <= np.quantile(far, NEAREST)
    test = mantel(relation**2, distance)
    squares = of_pairs**2
    return {
        "sd_of_r": of_pairs.std(),
        "draws_to_pass": 2 * AGREEMENT / (1 - AGREEMENT) / of_pairs.var(),
        "coupling": squares.mean(),
        "coupling_near": squares[near].mean(),
        "mantel": test.correlation,
        "mantel_p": test.p,
    }


if __name__ == "__main__":
    network, pictures, size, *classes = sys.argv[1:]
    gram, weights, wnids = grams(network, pictures, int(size), int(classes[0]) if classes else 300)
    distance = np.asarray(wordnet(wnids).distance(wnids, "path"))
    gram["all"], weights["all"] = sum(gram.values()), sum(weights.values())
    trace = np.trace(gram["all"])
    table = [
        {"block": name, "weights": weights[name], "share": np.trace(matrix) / trace} | described(matrix, distance)
        for name, matrix in gram.items()
    ]
    print(pd.DataFrame(table).to_csv(index=False, float_format="%.3g"))
