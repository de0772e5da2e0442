"""How kernels fare level by level of a hierarchy."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from losskernel.figures.shared.kernel_names import OWN, printed
from losskernel.figures.shared.style import INK, MUTED, OKABE_ITO, SINGLE, paper

# Black is the loss kernel's; shapes as well as colours, for grey prints.
_OTHERS = (*OKABE_ITO[1:4], *OKABE_ITO[4:6], "#7918FF", "#6D310C")
_MARKS = ("s", "^", "D", "v", "P", "X", "<", ">")
_SPREAD = 0.05  # of a level: error bars of several curves stand side by side


def depth_profile(
    levels: Sequence[str],
    curves: Mapping[str, np.ndarray],
    errors: Mapping[str, np.ndarray],
    chance: np.ndarray | None,
    ylabel: str,
) -> Figure:
    """A curve per kernel over the levels of a hierarchy, the loss kernel's in front, with what chance gives in grey.

    levels: L names, from the classes up. curves: name -> [L]. errors: name -> [L] standard errors, for those that
    have them. chance: [L] or None.

    Raises:
        ValueError: no level or no curve, or not one number per level.
    """
    count = len(levels)
    if count == 0 or not curves:
        raise ValueError("levels and curves must not be empty; give one curve per kernel")
    for name, values in [*curves.items(), *errors.items(), *([("chance", chance)] if chance is not None else [])]:
        if np.shape(values) != (count,):
            raise ValueError(f"{name!r} must have one number per level ({count}), got shape {np.shape(values)}")
    places = np.arange(count)
    with paper():
        figure = Figure(figsize=(SINGLE, 2.9), layout="constrained")
        axes = figure.subplots()
        if chance is not None:
            axes.plot(places, chance, color="#B3B3B3", linewidth=2.5, zorder=1, label="chance")
        others = [name for name in curves if name not in OWN]
        styles = {name: (_OTHERS[k % len(_OTHERS)], _MARKS[k % len(_MARKS)]) for k, name in enumerate(others)}
        styles |= {name: (colour, "o") for name, colour in zip(OWN, (OKABE_ITO[0], INK, MUTED), strict=True)}
        for number, (name, values) in enumerate(curves.items()):
            colour, mark = styles[name]
            first = name == next(iter(curves))
            shift = _SPREAD * (number - (len(curves) - 1) / 2)
            look = {"color": colour, "marker": mark, "markersize": 4, "linewidth": 1.6 if name in OWN else 0.9}
            bars = errors.get(name, np.zeros(count))
            axes.errorbar(
                places + shift, values, bars, elinewidth=0.8, zorder=4 if first else 3, label=printed(name), **look
            )
        axes.set_xticks(places, list(levels), fontsize=6.5)
        axes.set_ylim(0)
        axes.set_xlabel("level of the hierarchy (groups)")
        axes.set_ylabel(ylabel)
        title = "bars: standard errors" if any(np.any(np.asarray(each) > 0) for each in errors.values()) else None
        figure.legend(loc="outside lower center", ncols=2, title=title, title_fontsize=6.5, columnspacing=1.2)
    return figure
