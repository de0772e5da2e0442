"""The axis of a sweep: its values on a line, logarithmic where they span more than a decade."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from losskernel.errors import require
from losskernel.figures.shared.lettering import plain, shortened
from losskernel.figures.shared.presentation import minus

_MOST_NAMES = 9
_MOST_UPRIGHT = 20
_LETTERS = 28  # that fit below a panel of a third of a page


@dataclass(frozen=True)
class Axis:
    """Where the V values of a sweep lie along an axis."""

    label: str  # what was swept
    names: list[str]  # [V] of the values
    values: Sequence[float] | None = None  # [V], ascending; None for categories, which lie one apart

    def __post_init__(self) -> None:
        got, names = len(self.names if self.values is None else self.values), len(self.names)
        require(got == names, f"values must be one per name, got {got} for {names} names")

    @property
    def logarithmic(self) -> bool:
        """Whether no value is negative and the positive ones span more than a decade."""
        values = list(self.values or ())
        positive = [value for value in values if value > 0]
        return bool(positive) and min(values) >= 0 and max(positive) > 10 * min(positive)

    @property
    def positions(self) -> np.ndarray:
        """Coordinates [V]; on a logarithmic axis a zero lies one gap left of the least positive value."""
        if self.values is None:
            return np.arange(len(self.names), dtype=float)
        positions = np.asarray(self.values, dtype=float)
        if self.logarithmic and positions[0] == 0:
            positive = positions[positions > 0]
            gap = positive[1] / positive[0] if len(positive) > 1 else 10.0
            positions = np.where(positions == 0, positive[0] / gap, positions)
        return positions

    @property
    def _on_paper(self) -> np.ndarray:
        """Coordinates [V] as they lie on paper, along a logarithmic axis their logarithms."""
        return np.log(self.positions) if self.logarithmic else self.positions

    def shifted(self, share: float) -> np.ndarray:
        """Coordinates [V] moved by a share of the gap between values, to set several curves' bars side by side."""
        spots = self._on_paper
        moved = spots + share * (float(np.median(np.diff(spots))) if len(spots) > 1 else 1.0)
        return np.exp(moved) if self.logarithmic else moved

    def span(self, first: int, last: int) -> tuple[float, float]:
        """Coordinates of a stretch of values, a little wider than its ends, so that their markers lie inside."""
        pad = 0.18 if len(self.names) > 1 else 0.5
        return float(self.shifted(-pad)[first]), float(self.shifted(pad)[last])

    def draw(self, axes: Axes, named: bool, most: int = _MOST_NAMES) -> None:
        """Set limits, scale and ticks; the label and the ticks' names, at most so many, only where `named`."""
        first, last = self._on_paper[[0, -1]]
        margin = 0.06 * (last - first) or 0.5
        limits = np.array([first - margin, last + margin])
        axes.set(xscale="log" if self.logarithmic else "linear")
        axes.set(xlim=np.exp(limits) if self.logarithmic else limits)
        axes.xaxis.set_minor_locator(NullLocator())
        ticks, names = self._ticks(most)
        axes.set_xticks(ticks, names if named else [""] * len(names))
        if named:
            axes.set_xlabel(plain(self.label))
            if self.values is None and self._crowded(self.printed(), most):
                axes.tick_params(axis="x", labelrotation=90, labelsize=6)

    def _ticks(self, most: int) -> tuple[np.ndarray, list[str]]:
        """Return the values and their names; of numbers that would be too many, round ones, of others some."""
        positions, names = self.positions, self.printed()
        if self.values is None:
            step = -(-len(positions) // _MOST_UPRIGHT)
            return positions[::step], names[::step]
        if len(positions) <= most and self._apart(names, most):
            return positions, names
        if not self.logarithmic:
            round_ones = MaxNLocator(most - 1).tick_values(positions[0], positions[-1])
            ticks = round_ones[(round_ones >= positions[0]) & (round_ones <= positions[-1])]
            return ticks, [minus(f"{value:g}") for value in ticks]
        least = min(value for value in self.values if value > 0)
        powers = np.arange(np.ceil(np.log10(least) - 1e-9), np.floor(np.log10(positions[-1]) + 1e-9) + 1)
        powers = [round(power) for power in powers[:: -(-len(powers) // most)]]
        zero = [0] if self.values[0] == 0 else []
        ticks = np.concatenate([positions[zero], 10.0 ** np.array(powers)])
        return ticks, [*(names[index] for index in zero), *(f"$10^{{{power}}}$" for power in powers)]

    def _crowded(self, names: list[str], most: int) -> bool:
        """Whether the names below the axis have no room side by side."""
        long = max(map(len, names)) > 12
        return long or len(names) > most or not self._apart([f"{name} " for name in names], most)

    def _apart(self, names: list[str], most: int) -> bool:
        """Whether neighbouring names are a letter apart, below a panel that is narrower if it names fewer."""
        positions = self._on_paper
        lengths = np.array([len(re.sub(r"\\!|\\times|[${}^]", "", name)) for name in names], dtype=float)
        letters = _LETTERS if most >= _MOST_NAMES else 0.75 * _LETTERS
        room = np.diff(positions) / max(float(np.ptp(positions)), 1e-300) * letters
        return bool((room > (lengths[:-1] + lengths[1:]) / 2 + 1).all())

    def printed(self) -> list[str]:
        """Return the values' names as a paper prints them: powers of ten throughout where some need them."""
        if self.values is None:
            return [plain(shortened(name)) for name in self.names]
        powers = [value > 0 and abs(np.log10(value) - np.round(np.log10(value))) < 1e-9 for value in self.values]
        some = any(value > 0 and not 0.01 <= value < 1000 for value in self.values)
        if some and all(powers):
            return [f"$10^{{{round(float(np.log10(value)))}}}$" for value in self.values]
        return [_printed(name) for name in self.names]


def _printed(name: str) -> str:
    """Return a number without computers' notation: 5e-04 is 5×10⁻⁴."""
    parts = re.fullmatch(r"(-?[\d.]+)e([+-]\d+)", name)
    if parts is None:
        return minus(name)
    return rf"${parts.group(1)}\!\times\!10^{{{int(parts.group(2))}}}$"
