"""Maps of paths: which points are drawn where, joined by which lines, under which names."""

from collections.abc import Mapping, Sequence

import numpy as np

from losskernel.figures.paths.path_map import Falling, Sheet
from losskernel.figures.shared.point_labels import with_unit
from losskernel.geometry import Arrangement
from losskernel.geometry.maps.dimensions import dimensions_needed, stress_curve
from losskernel.geometry.maps.globe import arc, azimuthal, frame
from losskernel.geometry.maps.scaling import classical_scaling
from losskernel.geometry.maps.spherical_mds import spherical_mds
from losskernel.geometry.maps.tangent_pca import tangent_pca

# Of the maps behind the curve of stress.
_DIMENSIONS = tuple(range(1, 13))
_RECOVERED = 0.95

Edges = Sequence[tuple[int, int]]


def sheets_of(arrangement: Arrangement, edges: Edges, unit: str = "rad") -> list[Sheet]:
    """Return two maps of the same points: on a sphere, seen from above its middle, and in the tangent space there.

    Where the space is no sphere both would be classical scaling, which is there once.
    """
    names = [with_unit(f"axis {axis}", unit) for axis in (1, 2)]
    if arrangement.cosines is None:
        flat = classical_scaling(arrangement.distances)
        return [Sheet("classical scaling", flat.places, flat.stress, names[0], names[1], {})]
    tangent = tangent_pca(arrangement)
    shares = [f"{name} ({share:.0%})" for name, share in zip(names, tangent.explained, strict=True)]
    second = Sheet("tangent PCA", tangent.places, tangent.stress, shares[0], shares[1], {})
    globe = spherical_mds(arrangement.distances)
    axes = frame(globe.places)
    drawn = azimuthal(globe.places, axes)
    joined = {edge: azimuthal(arc(globe.places[edge[0]], globe.places[edge[1]]), axes) for edge in edges}
    return [Sheet("spherical MDS", drawn, globe.stress, names[0], names[1], joined), second]


def curves_of(arrangement: Arrangement) -> list[Falling]:
    """Return the stress of each way of making maps in ever more dimensions, and how many recover 95 % of its fall."""
    if arrangement.cosines is None:
        curve = stress_curve(arrangement, _DIMENSIONS, "classical")
        needed = dimensions_needed(arrangement, "classical", _RECOVERED)
        return [Falling("classical scaling", curve.dimensions, curve.stress, needed)]
    found = []
    for method, title in (("spherical", "spherical MDS"), ("tangent", "tangent PCA")):
        curve = stress_curve(arrangement, _DIMENSIONS, method)
        # In all dimensions points of a sphere have no stress, which need not be searched for.
        enough = curve.dimensions[curve.raw <= (1 - _RECOVERED) * curve.raw[0]]
        found.append(Falling(title, curve.dimensions, curve.stress, int(enough[0]) if len(enough) else None))
    return found


def chosen_names(labels: Sequence[str], kinds: Sequence[str], most: int) -> Mapping[int, str]:
    """Return place -> label of so many points of a path, the ends of layers and outputs first, then evenly spaced."""
    count = len(labels)
    outputs = [place for place, kind in enumerate(kinds) if kind == "output"]
    hidden = [place for place, kind in enumerate(kinds) if kind == "layer"]
    first = [*outputs[::-1], *hidden[-1:], *hidden[:1]]
    spaced = np.linspace(0, count - 1, max(min(most, count), 1)).round().astype(int).tolist()
    kept = list(dict.fromkeys([*first, *(place for place in spaced if kinds[place] == "layer")]))
    return {place: labels[place] for place in kept[:most]}
