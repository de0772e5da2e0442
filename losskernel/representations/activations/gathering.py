"""Activations of all probes, gathered in as few passes as their bytes allow."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from losskernel.errors import InputError, require


class Piece(NamedTuple):
    """Some columns of a layer's activations [N, d]."""

    name: str
    start: int
    stop: int
    width: int  # of the layer

    @property
    def last(self) -> bool:
        """Whether the layer ends here."""
        return self.stop == self.width


def passes(widths: Mapping[str, int], inputs: int, itemsize: int, budget: int) -> list[list[Piece]]:
    """Return which columns of which layers each pass over the probes gathers.

    Layers are taken in order and cut where the budget ends, except those kept whole as factors (`is_factor`).

    Args:
        widths: layer -> numbers a probe.
        inputs: N.
        itemsize: bytes of a number.
        budget: bytes of a pass.
    """
    most = max(1, budget // (inputs * itemsize))  # columns of a pass
    planned: list[list[Piece]] = [[]]
    free = most
    for name, width in widths.items():
        start = 0
        while start < width:
            whole = is_factor(width, inputs) and width <= most
            if free == 0 or (whole and width > free):
                planned.append([])
                free = most
            stop = min(width, start + free)
            planned[-1].append(Piece(name, start, stop, width))
            free -= stop - start
            start = stop
    return planned


def is_factor(width: int, inputs: int) -> bool:
    """Whether [N, d] is no larger than the triangle of its products."""
    return 2 * width <= inputs


class Columns:
    """The activations [N, w] of a piece while a pass fills them."""

    def __init__(self, piece: Piece, ids: Sequence[object] | np.ndarray) -> None:
        self.piece, self._ids = piece, ids
        self._values = self._sums = torch.empty(0)
        self.constant = True
        self._filled = 0

    def add(self, values: Tensor) -> None:
        """Copy the piece's columns of the next probes' activations [b, ...].

        Raises:
            InputError: a number is not finite, or the layer has another width.
        """
        flat = values.reshape(len(values), -1)
        name, width = self.piece.name, self.piece.width
        fits = flat.shape[1] == width
        require(fits, f"{name} has {flat.shape[1]} numbers a probe, its graph {width}; take its own graph")
        flat = flat[:, self.piece.start : self.piece.stop]
        self._check(flat)
        if not self._filled:
            kind = torch.float64 if flat.dtype == torch.float64 else torch.float32
            self._values = torch.empty(len(self._ids), flat.shape[1], dtype=kind, device=flat.device)
            self._sums = torch.zeros(flat.shape[1], dtype=torch.float64, device=flat.device)
        end = self._filled + len(flat)
        self._values[self._filled : end] = flat
        self._sums += flat.double().sum(0)
        self.constant = self.constant and bool((self._values[self._filled : end] == self._values[0]).all())
        self._filled = end

    def centred(self) -> Tensor:
        """Return the activations [N, w] less their mean over the probes, and forget them.

        Raises:
            InputError: the network did not evaluate the layer for every probe.
        """
        name, count = self.piece.name, len(self._ids)
        require(self._filled == count, f"{name} was evaluated for {self._filled} of {count} probes; leave it out")
        values, self._values = self._values, torch.empty(0)
        return values.sub_((self._sums / len(values)).to(values.dtype))

    def _check(self, flat: Tensor) -> None:
        finite = torch.isfinite(flat).all(1)
        if not bool(finite.all()):
            first = self._ids[self._filled + int(torch.nonzero(~finite)[0])]
            raise InputError(
                f"activations of {self.piece.name} are not finite, first at probe {first}; check the weights and inputs"
            )
