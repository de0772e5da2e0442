"""What was varied between runs: the key on the axis, the keys of the curves, replicates, controls."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from losskernel.config_keys import COMPARED, NBETA, label_of, repetitions, row, symbol_of
from losskernel.figures.shared.presentation import is_finite
from losskernel.figures.shared.sweep_axis import Axis
from losskernel.sweeps.read_runs import Run, short_names

_MOST_CURVES = 8
_MOST_KEYS = 3  # whose values can be read as a name
_ABSENT = "–"


@dataclass(frozen=True)
class Design:
    """How runs are laid out for a comparison.

    Attributes:
        keys: configuration keys that differ, in the configuration's order; the seed is not among them.
        axis: the horizontal axis.
        curves: names of the curves; [""] where there is one.
        place: [runs] index of each run on the axis; None for a control that stands for every place.
        curve: [runs] index of each run's curve; None for a control that stands for every curve.
        control: [runs] whether it was sampled at nβ = 0 beside runs that were not.
        names: [runs] what to call each run.
    """

    keys: list[str]
    axis: Axis
    curves: list[str]
    place: list[int | None]
    curve: list[int | None]
    control: list[bool]
    names: list[str]

    def at(self, curve: int, place: int) -> list[int]:
        """Return the runs at one place of one curve: several where only their seeds or first chains differ."""
        return [run for run in range(len(self.names)) if not self.control[run] and self._meets(run, curve, place)]

    def controls_at(self, curve: int, place: int) -> list[int]:
        """Return the runs of the sweep that are controls of one place of one curve."""
        return [run for run in range(len(self.names)) if self.control[run] and self._meets(run, curve, place)]

    def _meets(self, run: int, curve: int, place: int) -> bool:
        return self.curve[run] in (curve, None) and self.place[run] in (place, None)


def lay_out(runs: Sequence[Run]) -> Design:
    """Find what differs between runs, and how to draw it.

    The numeric key with the most values goes on the axis and the others make curves; where none is numeric, or
    there would be more than eight curves or none with two values, every combination has a place of its own. Runs
    that differ in the seed or the first chain alone are replicates. Keys that change together count as one.
    """
    keys = swept_keys(runs)
    control = [NBETA in keys and run.config.get(NBETA) == 0 for run in runs]
    sampled = [run for run, zero in zip(runs, control, strict=True) if not zero]
    varied = [key for key in keys if len({value_of(run, key) for run in sampled}) > 1]
    main = _axis_key(sampled, varied)
    along, across = ([main], [key for key in varied if key != main]) if main else (varied, [])
    curves = list(dict.fromkeys(_curve(run, across) for run in sampled))
    if main:
        values = sorted({float(run.config[main]) for run in sampled})
        axis = Axis(label_of(main), [number(each) for each in values], values)
        where = [number(run.config[main]) if is_finite(run.config.get(main)) else "" for run in runs]
    else:
        where = _titles(runs, along)
        label = ", ".join(map(label_of, along or repeated_by(runs))) or "run"
        axis = Axis(label, list(dict.fromkeys(each for each, zero in zip(where, control, strict=True) if not zero)))
    return Design(
        keys,
        axis,
        curves,
        [axis.names.index(each) if each in axis.names else None for each in where],
        [
            None if run.config.get(NBETA) == 0 and NBETA in across else _index(curves, _curve(run, across))
            for run in runs
        ],
        control,
        _names(runs, keys),
    )


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys that differ, in the configuration's order.

    Of keys that change together one is named: a class, else the first numeric, else the first.
    """
    every = list(dict.fromkeys(key for run in runs for key in run.config))
    found: dict[tuple[int, ...], str] = {}
    for key in every:
        if row(key).role not in COMPARED or key in repetitions() or not _differ(runs, key):
            continue
        shown = [value_of(run, key) for run in runs]
        pattern = tuple(shown.index(each) for each in shown)
        if pattern not in found or _rank(runs, key) > _rank(runs, found[pattern]):
            found[pattern] = key
    return sorted(found.values(), key=every.index)


def repeated_by(runs: Sequence[Run]) -> list[str]:
    """Return the keys that tell repetitions apart and that differ between these runs.

    A dataset's seed is named only where it is not the run's own, which it follows by default.
    """
    follows = all(value_of(run, "dataset.seed") == value_of(run, "seed") for run in runs)
    return [key for key in repetitions() if _differ(runs, key) and not (follows and key == "dataset.seed")]


def repetition(run: Run, keys: Sequence[str]) -> str:
    """Return which repetition a run is, by some keys: `seed 1, chains from 4`."""
    return ", ".join(f"{repetitions()[key][0]} {value_of(run, key)}" for key in keys)


def repeated_over(runs: Sequence[Run]) -> str:
    """Return what means are over: `seeds`."""
    return " and ".join(repetitions()[key][1] for key in repeated_by(runs)) or "repetitions"


def value_of(run: Run, key: str) -> str:
    """Return a run's value of a key as text: a class by its last name, a list of one number over and over as 4 × 64."""
    value = run.config.get(key, _ABSENT)
    if key == "chain_offset":  # runs of before there was one have none
        value = first_chain(run)
    if is_finite(value):
        return number(value)
    if isinstance(value, list) and len(value) > 1 and is_finite(value[0]) and value.count(value[0]) == len(value):
        return f"{len(value)} × {number(value[0])}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text.rsplit(".", 1)[-1] if key.endswith("_target_") else text


def first_chain(run: Run) -> int:
    """Return the number of a run's first chain."""
    offset = run.config.get("chain_offset")
    return offset if isinstance(offset, int) else 0


def number(value: float) -> str:
    """Return a number in as few characters as say it."""
    return f"{value:g}"


def _axis_key(runs: Sequence[Run], varied: list[str]) -> str | None:
    """Return the numeric key with the most values, if it makes curves; of several the configuration's first."""
    numeric = [key for key in varied if _all_numbers(runs, key)]
    main = max(numeric, key=lambda key: len({run.config[key] for run in runs}), default=None)
    if main is None:
        return None
    others = [key for key in varied if key != main]
    curves = {_curve(run, others) for run in runs}
    pairs = {(_curve(run, others), run.config[main]) for run in runs}
    return main if len(curves) <= _MOST_CURVES and len(pairs) > len(curves) else None


def _curve(run: Run, keys: list[str]) -> str:
    return ", ".join(f"{symbol_of(key, label_of(key))} = {value_of(run, key)}" for key in keys)


def _index(names: list[str], name: str) -> int | None:
    return names.index(name) if name in names else None


def _titles(runs: Sequence[Run], keys: list[str]) -> list[str]:
    """Return what stands below each run on an axis without numbers."""
    if not keys and (repeated := repeated_by(runs)):
        return [", ".join(value_of(run, key) for key in repeated) for run in runs]
    if not 0 < len(keys) <= _MOST_KEYS:
        return short_names(runs)
    shown = [_shown(runs, key) for key in keys]
    return [", ".join(values) for values in zip(*shown, strict=True)]


def _shown(runs: Sequence[Run], key: str) -> list[str]:
    """Return the runs' values of a key for a figure; of paths what is not the same in all."""
    parts = [value_of(run, key).split("/") for run in runs]
    while all(len(own) > 1 and own[0] == parts[0][0] for own in parts):
        parts = [own[1:] for own in parts]
    return ["/".join(own) for own in parts]


def _names(runs: Sequence[Run], keys: list[str]) -> list[str]:
    """Return what to call each run: its values, with the keys' labels where there are several."""
    if not 0 < len(keys) <= _MOST_KEYS:
        return _titles(runs, keys)
    names = [_curve(run, keys) for run in runs] if len(keys) > 1 else _shown(runs, keys[0])
    repeated = repeated_by(runs)
    return [
        ", ".join([name, repetition(run, repeated)]) if repeated else name
        for name, run in zip(names, runs, strict=True)
    ]


def _rank(runs: Sequence[Run], key: str) -> int:
    return 2 if key.endswith("_target_") else int(_all_numbers(runs, key))


def _differ(runs: Sequence[Run], key: str) -> bool:
    return len({value_of(run, key) for run in runs}) > 1


def _all_numbers(runs: Sequence[Run], key: str) -> bool:
    return all(is_finite(run.config.get(key)) for run in runs)
