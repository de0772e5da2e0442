"""Made-up data whose structure is known: several arithmetic tasks, and vectors and images drawn along a tree.

The tasks are those of the first experiment of arXiv 2509.26537, and a negative control. Along a tree, every node on the
way from the root to a class adds a pattern of its own.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, one_hot
from torch.utils.data import TensorDataset

from losskernel.data.base import Data, Loss
from losskernel.data.taxonomy import Taxonomy, Tree, read_taxonomy, wordnet
from losskernel.errors import require, require_integer, require_number
from losskernel.losses import cross_entropy, squared_error

TASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "multiply": lambda a, b: a * b,
    "subtract": lambda a, b: a - b,
    "max": torch.maximum,
    "min": torch.minimum,
    "average_square": lambda a, b: (a**2 + b**2) / 2,
    "difference_square": lambda a, b: (a - b) ** 2 / 2,
    "first": lambda a, b: a,
}
# Sixty synsets of ImageNet: vertebrates and instruments in the widest sense, three branches of either, two groups of
# every branch, five classes of every group.
LEAVES = (
    *("n02110341", "n02110958", "n02088364", "n02106662", "n02085620"),  # dog
    *("n02486410", "n02487347", "n02488291", "n02488702", "n02489166"),  # old world monkey
    *("n02007558", "n02006656", "n02018795", "n02013706", "n02037110"),  # wading bird
    *("n01531178", "n01592084", "n01558993", "n01582220", "n01601694"),  # oscine
    *("n01677366", "n01675722", "n01694178", "n01695060", "n01692333"),  # lizard
    *("n01734418", "n01742172", "n01748264", "n01756291", "n01751748"),  # snake
    *("n03838899", "n04487394", "n03840681", "n03884397", "n03494278"),  # wind instrument
    *("n03249569", "n03447721", "n03721384", "n03720891", "n03017168"),  # percussion instrument
    *("n02769748", "n04026417", "n03709823", "n03958227", "n04235860"),  # bag
    *("n03710193", "n03127925", "n02971356", "n03014705", "n03908618"),  # box
    *("n03100240", "n03594945", "n03670208", "n02930766", "n03777568"),  # car
    *("n02951358", "n03344393", "n03662601", "n04273569", "n03447447"),  # boat
)
_PATCHES = 2  # of colour across an image, at the root; one more with each level
_PROBES, _TRAIN = 1, 0  # streams of random numbers


def arithmetic(
    tasks: Sequence[str] = ("add", "multiply"), samples_per_task: int = 500, probes_per_task: int = 150, seed: int = 0
) -> Data:
    """Real arithmetic on a, b ~ U(-1, 1): inputs (a, b, one-hot task), squared error.

    The probes are the first training samples of each task, and numbered first; labels: task, a, b, target.

    Raises:
        InputError: an unknown task, or sizes that do not fit.
    """
    _check_tasks(tasks, samples_per_task, probes_per_task, TASKS)
    rng = torch.Generator().manual_seed(seed)
    operands = 2 * torch.rand(len(tasks), samples_per_task, 2, generator=rng) - 1  # [tasks, n, 2]
    targets = torch.stack([TASKS[name](*pair.unbind(-1)) for name, pair in zip(tasks, operands, strict=True)])
    return _join(tasks, operands, operands, targets, probes_per_task, squared_error)


def modular_arithmetic(
    tasks: Sequence[str] = ("add", "multiply"), modulus: int = 23, probes_per_task: int = 150, seed: int = 0
) -> Data:
    """Arithmetic modulo a number as classification: inputs (one-hot a, one-hot b, one-hot task).

    The negative control: an MLP memorises these tables, and memorised inputs share no mechanism, so no task
    structure should appear. Training set: all pairs. Labels: task, a, b, target.

    Raises:
        InputError: an unknown task, or sizes that do not fit.
    """
    require_integer("dataset.modulus", modulus, at_least=2)
    whole = {name: TASKS[name] for name in ("add", "multiply", "subtract", "max", "min", "first")}
    _check_tasks(tasks, modulus**2, probes_per_task, whole)
    pairs = torch.cartesian_prod(torch.arange(modulus), torch.arange(modulus))
    rng = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(pairs), generator=rng) for _ in tasks]
    operands = torch.stack([pairs[order] for order in orders])  # [tasks, p², 2]
    results = [whole[name](*pair.unbind(-1)) for name, pair in zip(tasks, operands, strict=True)]
    targets = torch.stack(results) % modulus  # [tasks, p²]
    numbers = one_hot(operands, modulus).flatten(-2).float()
    data = _join(tasks, operands, numbers, targets, probes_per_task, cross_entropy)
    return replace(data, classes=[str(number) for number in range(modulus)])


def _join(tasks: Sequence[str], operands: Tensor, numbers: Tensor, targets: Tensor, probes: int, loss: Loss) -> Data:
    """Join tasks into one dataset: operands [T, n, 2], their encoding [T, n, d], targets [T, n]."""
    count, samples = targets.shape
    columns = torch.eye(count)[:, None].expand(count, samples, count)  # the one-hot task, [T, n, T]
    inputs = torch.cat([numbers, columns], dim=-1)  # [T, n, d + T]
    kept = slice(0, probes)
    # Probes are 0, 1, 2 ..., as ids are by default; the other training samples follow.
    names = np.empty((count, samples), dtype=int)
    names[:, kept] = np.arange(count * probes).reshape(count, probes)
    names[:, probes:] = np.arange(count * probes, names.size).reshape(count, -1)
    return Data(
        train=TensorDataset(inputs.flatten(0, 1), targets.flatten()),
        probes=TensorDataset(inputs[:, kept].flatten(0, 1), targets[:, kept].flatten()),
        loss=loss,
        labels={
            "task": np.repeat(np.asarray(tasks), probes),
            "a": operands[:, kept, 0].flatten().numpy(),
            "b": operands[:, kept, 1].flatten().numpy(),
            "target": targets[:, kept].flatten().numpy(),
        },
        train_ids=names.flatten().tolist(),
    )


def _check_tasks(
    tasks: Sequence[str], samples: int, probes: int, known: dict[str, Callable[[Tensor, Tensor], Tensor]]
) -> None:
    given = not isinstance(tasks, str) and len(tasks) > 0
    require(given, f"dataset.tasks must be a list of tasks, got {tasks!r}; e.g. dataset.tasks=[add,multiply]")
    for task in tasks:
        require(task in known, f"dataset.tasks: unknown task {task!r}; choose from {', '.join(known)}")
    require(len(set(tasks)) == len(tasks), f"dataset.tasks names a task twice: {list(tasks)}; name each once")
    require_integer("dataset.samples_per_task", samples, at_least=1)
    require_integer("dataset.probes_per_task", probes, at_least=1)
    require(
        probes <= samples,
        f"dataset.probes_per_task must be <= the {samples} samples of a task, got {probes}; lower it",
    )


class Variation(NamedTuple):
    """How samples of a class differ.

    Attributes:
        noise: standard deviation of every pixel, in units of one node's pattern.
        shift: largest, as a share of the image's side.
        scale: largest change of size, as a share.
        strength: relative scatter of every pattern's weight.
    """

    noise: float
    shift: float
    scale: float
    strength: float


def taxonomy_images(
    size: int = 64,
    per_class: int = 60,
    probes_per_class: int | None = 8,
    probe_split: str = "new",
    leaves: Sequence[str] | None = None,
    taxonomy: str = "wordnet",
    strengths: float | Sequence[float] = 1.0,
    noise: float = 0.5,
    shift: float = 0.08,
    scale: float = 0.1,
    strength_scatter: float = 0.2,
    seed: int = 0,
) -> Data:
    """Images [3, size, size] whose similarity follows a taxonomy by a known formula, with cross-entropy.

    Class c is the sum of s_l P_a over the nodes a on the path from the root (left out, for all share it) to the leaf,
    with s_l the strength of a's level and orthogonal patterns P_a of unit mean square. So the mean product of
    the pixels of two classes' templates is the sum of s_l² over the levels down to their lowest common ancestor,
    before samples vary. It is the branching model of semantic development, made into images.

    Args:
        size: pixels a side.
        per_class: training images of each class.
        probes_per_class: probes of each class; None: all training images, with probe_split="train".
        probe_split: "new" images drawn in the same way, or the "train" images themselves.
        leaves: ids of the classes, such as wnids; None takes sixty synsets of ImageNet, five levels deep.
        taxonomy: "wordnet", or the path of a file that holds a tree.
        strengths: of each level from the top, or one for all.
        noise: standard deviation of pixel noise.
        shift: largest shift of a sample, as a share of the side.
        scale: largest change of a sample's size, as a share.
        strength_scatter: relative scatter of each pattern's weight from sample to sample.
        seed: fixes patterns and samples.

    Raises:
        InputError: a number out of range, an unknown class, or too few strengths.

    Source: Saxe, McClelland & Ganguli 2019, "A mathematical theory of semantic development in deep neural networks".
    """
    require(probe_split in ("new", "train"), f"dataset.probe_split must be 'new' or 'train', got {probe_split!r}")
    probes: Any = per_class if probe_split == "train" and probes_per_class is None else probes_per_class
    for key, value, least in (("size", size, 16), ("per_class", per_class, 1), ("probes_per_class", probes, 1)):
        require_integer(f"dataset.{key}", value, at_least=least)
    _check_numbers({"noise": noise, "shift": shift, "scale": scale, "strength_scatter": strength_scatter})
    require(scale < 1, f"dataset.scale must be < 1, got {scale}; 0.1 varies sizes by a tenth")
    fits = probe_split == "new" or probes <= per_class
    require(fits, f"dataset.probes_per_class must be <= per_class={per_class} training images, got {probes}")
    classes = list(LEAVES if leaves is None else leaves)
    require(len(classes) >= 2, f"dataset.leaves must name >= 2 classes, got {classes}; give ids of the taxonomy")
    known = wordnet(classes) if taxonomy == "wordnet" else read_taxonomy(taxonomy)
    tree = known.tree(classes)
    parts = components(tree, size, _level_strengths(strengths, tree), seed)
    variation = Variation(noise, shift, scale, strength_scatter)
    train = _draw_images(parts, per_class, variation, seed, _TRAIN)
    if probe_split == "new":
        chosen = _draw_images(parts, probes, variation, seed, _PROBES)
    else:
        rows = torch.arange(len(train.tensors[0])).view(len(classes), per_class)[:, :probes].flatten()
        chosen = TensorDataset(*(values[rows] for values in train.tensors))
    # The probes have the plain names, and so have training images that are probes.
    prefix = "train/" if probe_split == "new" else ""
    return Data(
        train,
        chosen,
        cross_entropy,
        _labels(known, tree, probes),
        _ids(classes, probes),
        train_ids=_ids(classes, per_class, prefix),
        classes=[known.name(leaf) for leaf in classes],
    )


def taxonomy_vectors(
    branching: Sequence[int] = (2, 2, 2, 2),
    width: int = 64,
    per_class: int = 40,
    probes_per_class: int = 8,
    decay: float = 0.8,
    noise: float = 1.0,
    seed: int = 0,
) -> Data:
    """Vectors [width] whose similarity follows a tree, with cross-entropy; labels: class, level_1, level_2, ...

    A class is the sum over the nodes on the path from the root (left out) to its leaf of decay^(level - 1) times the
    node's own random pattern, of mean length 1. More samples share a coarse pattern, and it is stronger: what sets
    apart coarse groups is the larger singular value of the data, which is learnt first. The probes are new samples.

    Args:
        branching: children of each node, level by level from the root; the last level's are the classes.
        width: numbers in a sample.
        per_class: training samples of each class.
        probes_per_class: probes of each class.
        decay: strength of a level's patterns, over that of the level above.
        noise: mean length of each sample's own part.
        seed: fixes patterns and samples.

    Raises:
        InputError: a number out of range.

    Source: as of `taxonomy_images`.
    """
    listed = not isinstance(branching, (str, int)) and len(branching) > 0
    require(listed, f"dataset.branching must be a list of numbers of children, got {branching!r}; e.g. [2,2,2,2]")
    for children in branching:
        require_integer("dataset.branching", children, at_least=2)
    for key, value in (("width", width), ("per_class", per_class), ("probes_per_class", probes_per_class)):
        require_integer(f"dataset.{key}", value, at_least=1)
    _check_numbers({"decay": decay, "noise": noise})
    return _vectors(branching, width, per_class, probes_per_class, decay, noise, seed)


def components(tree: Tree, size: int, strengths: Sequence[float], seed: int) -> Tensor:
    """Return what each node on the way to each leaf adds, [G, levels, 3, size, size]; zero below shallow leaves."""
    depths, root = tree.depths(), tree.root
    patterns = _patterns(depths[:-1], size, seed)  # of every node but the root, which is last
    parts = torch.zeros(tree.leaves, int(depths.max()), *patterns.shape[1:])
    for leaf in range(tree.leaves):
        node = leaf
        while node != root:
            level = int(depths[node]) - 1
            parts[leaf, level] = strengths[level] * patterns[node]
            node = int(tree.parents[node])
    return parts


def _level_strengths(strengths: float | Sequence[float], tree: Tree) -> list[float]:
    count = int(tree.depths().max())
    listed = [strengths] * count if isinstance(strengths, (int, float)) else list(strengths)
    require(
        len(listed) >= count,
        f"dataset.strengths has {len(listed)} numbers for the tree's {count} levels; give one for each, from the top",
    )
    for value in listed:
        require_number("dataset.strengths", value, at_least=0)
    return [float(value) for value in listed]


def _patterns(depths: np.ndarray, size: int, seed: int) -> Tensor:
    """Return orthogonal patterns [M, 3, size, size] of unit mean square, of nodes at some depths.

    Each is fields of colour and a grating in places; the deeper the node, the finer.
    """
    generator = torch.Generator().manual_seed(seed)

    def field(channels: int, patches: int) -> Tensor:
        coarse = torch.randn(1, channels, patches, patches, generator=generator)
        return interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)[0]

    axis = torch.linspace(-1, 1, size)
    raw = []
    for depth in depths.tolist():
        patches = _PATCHES + depth
        angle, phase, pitch = torch.rand(3, generator=generator).tolist()
        along = np.cos(np.pi * angle) * axis[:, None] + np.sin(np.pi * angle) * axis
        grating = torch.cos((2 + 2 * pitch) * patches * along + 2 * np.pi * phase)
        tint = torch.randn(3, 1, 1, generator=generator)
        raw.append(field(3, patches) + 2 * field(1, patches).relu() * grating * tint)
    flat = torch.stack(raw).flatten(1).double()
    flat = flat - flat.mean(1, keepdim=True)  # [M, pixels]
    # The orthogonal set nearest to the raw patterns (Löwdin 1950); in double, for it must be orthogonal to all digits.
    left, _, right = torch.linalg.svd(flat, full_matrices=False)
    return ((left @ right) * np.sqrt(flat.shape[1])).float().view(-1, 3, size, size)


def _draw_images(parts: Tensor, count: int, variation: Variation, seed: int, stream: int) -> TensorDataset:
    """Return `count` samples of every class, class after class."""
    generator = torch.Generator().manual_seed(2 * seed + stream + 1)
    images = []
    for levels in parts:  # class by class: all the levels of all samples at once would not fit
        weights = 1 + variation.strength * torch.randn(count, len(levels), 1, 1, 1, generator=generator)
        clean = (weights * levels).sum(1)  # [n, 3, size, size]
        uniform = 2 * torch.rand(count, 3, generator=generator) - 1
        zoom = 1 + variation.scale * uniform[:, :1]
        move = 2 * variation.shift * uniform[:, 1:, None]
        warp = torch.cat([zoom[:, :, None] * torch.eye(2), move], dim=2)  # affine, [n, 2, 3]
        warped = grid_sample(
            clean, affine_grid(warp, list(clean.shape), False), padding_mode="reflection", align_corners=False
        )
        images.append(warped + variation.noise * torch.randn(warped.shape, generator=generator))
    return TensorDataset(torch.cat(images), torch.arange(len(parts)).repeat_interleave(count))


def _labels(known: Taxonomy, tree: Tree, count: int) -> dict[str, np.ndarray]:
    """Return the class and its id, and the branches above it, the highest first."""
    labels = {"class": np.array([known.name(leaf) for leaf in tree.ids[: tree.leaves]])}
    labels["wnid"] = np.array(tree.ids[: tree.leaves])
    names = np.array(tree.names)
    labels |= {f"level_{level}": names[tree.groups(level)] for level in range(1, int(tree.depths().max()))}
    return {name: values.repeat(count) for name, values in labels.items()}


def _vectors(
    branching: Sequence[int], width: int, per_class: int, probes: int, decay: float, noise: float, seed: int
) -> Data:
    generator = torch.Generator().manual_seed(seed)
    paths = list(itertools.product(*map(range, branching)))
    means = torch.zeros(len(paths), width)  # [G, width]
    for level in range(1, len(branching) + 1):
        nodes = _branches(paths, level)
        names = list(dict.fromkeys(nodes))
        patterns = torch.randn(len(names), width, generator=generator) * decay ** (level - 1) / np.sqrt(width)
        means += patterns[[names.index(node) for node in nodes]]
    levels = {f"level_{level}": np.array(_branches(paths, level)) for level in range(1, len(branching))}
    classes = np.array(_branches(paths, len(branching)))
    return Data(
        train=_draw_vectors(means, per_class, noise, generator),
        probes=_draw_vectors(means, probes, noise, generator),
        loss=cross_entropy,
        labels={name: values.repeat(probes) for name, values in {"class": classes, **levels}.items()},
        ids=_ids(classes, probes),
        train_ids=_ids(classes, per_class, "train/"),
        classes=classes.tolist(),
    )


def _branches(paths: Sequence[tuple[int, ...]], level: int) -> list[str]:
    """Return the name of the node of each path at a level, such as 0.1 at the second."""
    return [".".join(map(str, path[:level])) for path in paths]


def _draw_vectors(means: Tensor, count: int, noise: float, generator: torch.Generator) -> TensorDataset:
    """Return `count` samples of every class, class after class."""
    clean = means.repeat_interleave(count, dim=0)
    varied = clean + torch.randn(clean.shape, generator=generator) * noise / np.sqrt(clean.shape[1])
    return TensorDataset(varied, torch.arange(len(means)).repeat_interleave(count))


def _ids(classes: Sequence[str] | np.ndarray, count: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{name}/{number}" for name in classes for number in range(count)]


def _check_numbers(values: Mapping[str, float]) -> None:
    for key, value in values.items():
        require_number(f"dataset.{key}", value, at_least=0)
