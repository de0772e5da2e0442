"""The atlas: layouts from exact neighbours, a map coloured by the hierarchy, its regions, page and animation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import blocks, gaussian

from losskernel import LossKernel, LossTraces
from losskernel.analyses import Atlas
from losskernel.analyses.umap_layout import kept_neighbours, nearest_in, nearest_probes
from losskernel.data.images.image_files import encode
from losskernel.errors import InputError
from losskernel.kernel.estimators import Neighbours

# Three dogs, three cars: ImageNet classes, whose hypernyms come with the package.
WNIDS = ["n02085620", "n02085782", "n02085936", "n02701002", "n02814533", "n02930766"]


def planted(of_each: int = 4, chains: int = 4, draws: int = 100) -> LossTraces:
    """Dogs and cars: R = 0.7 among each, 0 across."""
    size = 3 * of_each
    losses = gaussian(chains, draws, blocks([size, size], 0.7))
    return LossTraces.from_arrays(losses, labels={"wnid": np.repeat(WNIDS, of_each)})


_ATLAS = """
import json, sys
import numpy as np
sys.path[:0] = ["tests", "tests/analyses"]
from test_atlas import planted
from losskernel import LossKernel, LossTraces
from losskernel.analyses import Atlas

traces = planted()
kernel = LossKernel.from_traces(traces)
images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
pictured = LossTraces(traces.dataset.assign(thumbnails=(("probe", "height", "width", "channel"), images)))
first = Atlas(neighbours=6)(kernel, pictured)
other = Atlas(neighbours=6, animate=False, of="coupling")(kernel, traces)
tables = [result.tables["atlas"] for result in (first, other)]
page = first.pages["atlas"]
print(json.dumps({
    "columns": list(tables[0]),
    "points": tables[0][["x", "y"]].values.tolist(),
    "branches": sorted(set(tables[0]["branch"])),
    "regions": tables[0]["region"].tolist(),
    "finite": bool(np.isfinite(tables[0][["x", "y", "x3", "y3", "z3"]].values).all()),
    "same": tables[0].equals(tables[1]),
    "metrics": first.metrics,
    "figures": sorted(first.figures),
    "orbit": first.animations["orbit"][:6].decode(),
    "still": list(other.animations),
    "pictures": page.count("u002fpng;base64,"),
    "coloured": [name for name in ("colour: branch", "colour: class", "colour: wnid") if name in page],
}))
"""


@pytest.fixture(scope="module")
def atlas() -> dict:
    # without compilation UMAP maps a few probes in a second instead of fifteen; it is decided at import
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", _ATLAS], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_atlas_puts_dogs_and_cars_on_islands(atlas: dict) -> None:
    points = np.array(atlas["points"])
    kind = np.arange(24) // 12
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (kind[distance.argmin(1)] == kind).all()
    assert atlas["finite"]
    assert atlas["metrics"]["neighbours_kept"] > 0.4
    assert atlas["metrics"]["label_purity_chance"] == pytest.approx(3 / 23)
    assert 0 < atlas["metrics"]["label_purity"] < 0.7  # within a block nothing tells the classes apart


def test_the_atlas_gives_table_figures_page_and_animation(atlas: dict) -> None:
    assert atlas["columns"] == ["id", "wnid", "branch", "region", "x", "y", "x3", "y3", "z3"]
    assert atlas["figures"] == ["atlas", "atlas_3d"]
    assert atlas["orbit"] == "GIF89a"
    assert atlas["still"] == []
    assert atlas["pictures"] == 24
    assert atlas["coloured"] == ["colour: branch", "colour: class", "colour: wnid"]
    assert atlas["metrics"]["regions"] == len(set(atlas["regions"]) - {0})


def test_the_coupling_gives_another_atlas(atlas: dict) -> None:
    assert not atlas["same"]


# --- neighbours


def test_the_coupling_brings_together_what_competes() -> None:
    # probes 0 and 1 compete; 2 and 3 are alike; 4 is by itself
    covariance = np.eye(5)
    covariance[0, 1] = covariance[1, 0] = -0.8
    covariance[2, 3] = covariance[3, 2] = 0.6
    kernel = LossKernel.from_traces(LossTraces.from_arrays(gaussian(4, 400, covariance)))
    assert nearest_probes(kernel, 1, "correlation").indices[:, 0].tolist()[0] != 1
    assert nearest_probes(kernel, 1, "coupling").indices[:4, 0].tolist() == [1, 0, 3, 2]
    np.testing.assert_array_equal(nearest_probes(kernel, 2).indices, kernel.neighbors(2).indices)
    expected = np.sqrt(2 * (1 - kernel.coupling()[0, 1]))
    assert nearest_probes(kernel, 1, "coupling").distances[0, 0] == pytest.approx(expected)


def test_kept_neighbours_are_counted_in_the_layout() -> None:
    layout = np.array([[0.0], [1.0], [2.5], [10.0]])
    assert nearest_in(layout, 1)[:, 0].tolist() == [1, 0, 1, 2]
    near = Neighbours(np.array([[1, 2], [0, 3], [3, 0], [2, 1]]), np.zeros((4, 2)))
    np.testing.assert_allclose(kept_neighbours(layout, near), [1, 0.5, 0.5, 1])


def test_a_page_of_many_pictures_holds_them_as_jpeg() -> None:
    few = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    assert all(uri.startswith("data:image/png") for uri in encode(few))
    assert all(uri.startswith("data:image/jpeg") for uri in encode(np.zeros((2001, 4, 4, 1), dtype=np.uint8)))


# --- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": 3}, "analysis.atlas.label must be a name, got 3"),
        ({"taxonomy": None}, "analysis.atlas.taxonomy must be a name, got None"),
        ({"neighbours": 1}, "analysis.atlas.neighbours must be >= 2, got 1"),
        ({"min_distance": -0.1}, "analysis.atlas.min_distance must be >= 0, got -0.1"),
        ({"min_distance": 2}, "analysis.atlas.min_distance must be <= 1, got 2; lower it"),
        ({"of": "R"}, "analysis.atlas.of must be one of correlation, coupling, got 'R'"),
        ({"animate": "yes"}, "analysis.atlas.animate must be true or false, got 'yes'"),
    ],
)
def test_settings_are_checked_before_anything_is_computed(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Atlas(**settings)


def test_an_atlas_needs_probes_chains_and_a_label() -> None:
    def ask(atlas: Atlas, traces: LossTraces) -> None:
        atlas(LossKernel.from_traces(traces), traces)

    with pytest.raises(InputError, match=r"analysis.atlas needs >= 10 probes, got 6; drop the analysis"):
        ask(Atlas(), planted(of_each=1))
    with pytest.raises(InputError, match="there is no probe label 'class'; the labels are wnid"):
        ask(Atlas(label="class"), planted())
    with pytest.raises(InputError, match=r"coupling needs >= 2 chains, got 1; raise schedule.chains"):
        ask(Atlas(of="coupling"), planted(chains=1))
    kernel = LossKernel.from_traces(planted())
    with pytest.raises(InputError, match="of must be one of correlation, coupling, got 'R'"):
        nearest_probes(kernel, 3, "R")
    with pytest.raises(InputError, match="k must lie between 1 and the 24 probes less one, got 24"):
        nearest_probes(kernel, 24, "coupling")


def test_the_recipe_gives_the_defaults() -> None:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    recipe = OmegaConf.load(Path(__file__).parents[2] / "conf/analysis/atlas.yaml")
    assert instantiate(recipe.atlas) == Atlas()
