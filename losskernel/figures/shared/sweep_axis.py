"""The axis of a sweep: its values on a line, logarithmic where they span more than a decade."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

_MOST_NAMES = 9
_MOST_UPRIGHT = 20
_LETTERS = 28  # that fit below a panel of a third of a page
_LONGEST = 28  # letters of a name that is no number


@dataclass(frozen=True)
class Axis:
    """Where the runs of a sweep stand.

    label: what was swept. names: [V] of its values. values: [V] the values themselves, ascending, or None for
    categories, which stand one apart.
    """

    label: str
    names: list[str]
    values: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.values is not None and len(self.values) != len(self.names):
            raise ValueError(f"values must be one per name, got {len(self.values)} for {len(self.names)} names")

    @property
    def logarithmic(self) -> bool:
        """Whether no value is negative and the positive ones span more than a decade."""
        values = list(self.values or ())
        positive = [value for value in values if value > 0]
        return bool(positive) and min(values) >= 0 and max(positive) > 10 * min(positive)

    @property
    def places(self) -> np.ndarray:
        """Coordinates [V]; on a logarithmic axis a zero stands one gap left of the least positive value."""
        if self.values is None:
            return np.arange(len(self.names), dtype=float)
        places = np.asarray(self.values, dtype=float)
        if self.logarithmic and places[0] == 0:
            positive = places[places > 0]
            gap = positive[1] / positive[0] if len(positive) > 1 else 10.0
            places = np.where(places == 0, positive[0] / gap, places)
        return places

    def shifted(self, share: float) -> np.ndarray:
        """Coordinates [V] moved by a share of the gap between places, so that bars of several curves can be told."""
        places = self.places
        if len(places) < 2:
            return places + share
        gap = float(np.median(np.diff(np.log(places) if self.logarithmic else places)))
        return places * np.exp(share * gap) if self.logarithmic else places + share * gap

    def span(self, first: int, last: int) -> tuple[float, float]:
        """Coordinates of a stretch of places, a little wider than its ends, so that their markers lie inside."""
        places = np.log(self.places) if self.logarithmic else self.places
        pad = 0.18 * float(np.median(np.diff(places))) if len(places) > 1 else 0.5
        ends = np.array([places[first] - pad, places[last] + pad])
        low, high = np.exp(ends) if self.logarithmic else ends
        return float(low), float(high)

    def draw(self, axes: Axes, named: bool, most: int = _MOST_NAMES) -> None:
        """Set limits, scale and ticks; the label and the ticks' names, at most so many, only where `named`."""
        places = self.places
        if self.logarithmic:
            axes.set_xscale("log")
            margin = (places[-1] / places[0]) ** 0.06
            axes.set_xlim(places[0] / margin, places[-1] * margin)
        else:
            margin = 0.06 * (places[-1] - places[0]) or 0.5
            axes.set_xlim(places[0] - margin, places[-1] + margin)
        axes.xaxis.set_minor_locator(NullLocator())
        ticks, names = self._ticks(most)
        axes.set_xticks(ticks, names if named else [""] * len(names))
        if named:
            axes.set_xlabel(plain(self.label))
            if self.values is None and self._crowded(self.printed(), most):
                axes.tick_params(axis="x", labelrotation=90, labelsize=6)

    def _ticks(self, most: int) -> tuple[np.ndarray, list[str]]:
        """Return the values and their names; of numbers that would be too many, round ones, of others some."""
        places, names = self.places, self.printed()
        if self.values is None:
            step = -(-len(places) // _MOST_UPRIGHT)
            return places[::step], names[::step]
        if len(places) <= most and self._apart(names, most):
            return places, names
        if not self.logarithmic:
            round_ones = MaxNLocator(most - 1).tick_values(places[0], places[-1])
            inside = round_ones[(round_ones >= places[0]) & (round_ones <= places[-1])]
            return inside, [f"{value:g}".replace("-", "−") for value in inside]
        least = min(value for value in self.values if value > 0)
        powers = np.arange(np.ceil(np.log10(least) - 1e-9), np.floor(np.log10(places[-1]) + 1e-9) + 1)
        powers = [round(power) for power in powers[:: -(-len(powers) // most)]]
        zero = [0] if self.values[0] == 0 else []
        ticks = np.concatenate([places[zero], 10.0 ** np.array(powers)])
        return ticks, [*(names[place] for place in zero), *(f"$10^{{{power}}}$" for power in powers)]

    def _crowded(self, names: list[str], most: int) -> bool:
        """Whether names below the places have no room side by side."""
        long = max(map(len, names)) > 12
        return long or len(names) > most or not self._apart([f"{name} " for name in names], most)

    def _apart(self, names: list[str], most: int) -> bool:
        """Whether the names of neighbouring places stand a letter apart, below a panel narrower if it names fewer."""
        places = np.log(self.places) if self.logarithmic else self.places
        lengths = np.array([len(re.sub(r"\\!|\\times|[${}^]", "", name)) for name in names], dtype=float)
        letters = _LETTERS if most >= _MOST_NAMES else 0.75 * _LETTERS
        room = np.diff(places) / max(float(np.ptp(places)), 1e-300) * letters
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


def shortened(name: str, longest: int = _LONGEST) -> str:
    """Return a name that fits beside a figure: of a long one both ends, of which one tells it from its like."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def plain(text: str) -> str:
    """Return a text as matplotlib shows it letter by letter: a dollar sign opens no formula."""
    return text.replace("$", r"\$")


def _printed(name: str) -> str:
    """Return a number without computers' notation: 5e-04 is 5×10⁻⁴."""
    found = re.fullmatch(r"(-?[\d.]+)e([+-]\d+)", name)
    if found is None:
        return name.replace("-", "−")
    return rf"${found.group(1)}\!\times\!10^{{{int(found.group(2))}}}$"
