"""The kernel of a layer's activations, summed up over columns, never held but as its triangle."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

# From so many inputs on kernels are in single precision, as where they are compared.
MANY = 4096
# Blocks of products: so many that little is computed below the diagonal, but of some rows and not too many numbers.
_BLOCKS, _ROWS, _NUMBERS = 16, 64, 2**24


class Triangle:
    """The entries of X Xᵀ on and above the diagonal, row by row, [N (N + 1) / 2], summed over pieces of X's columns."""

    def __init__(self, inputs: int, double: bool) -> None:
        self._inputs = inputs
        self._double = double or inputs < MANY
        self.values = np.zeros(inputs * (inputs + 1) // 2, np.float64 if self._double else np.float32)

    def add(self, columns: Tensor) -> None:
        """Add the products of centred activations [N, w]; they are multiplied where they are."""
        step = max(1, min(max(_ROWS, self._inputs // _BLOCKS), _NUMBERS // self._inputs))
        for start in range(0, self._inputs, step):
            block = self._products(columns, start, min(start + step, self._inputs)).cpu().numpy()
            for place, row in enumerate(block):
                # Row i begins where those before it, of N, N - 1, ... entries, end.
                first = first_entry(start + place, self._inputs)
                self.values[first : first + len(row) - place] += row[place:]

    def _products(self, columns: Tensor, start: int, stop: int) -> Tensor:
        """Return rows start to stop from column start on, [stop - start, N - start]."""
        if not self._double or columns.dtype == torch.float64:
            return columns[start:stop] @ columns[start:].T
        product = torch.zeros(stop - start, self._inputs - start, dtype=torch.float64, device=columns.device)
        for part in columns[start:].split(max(1, _NUMBERS // self._inputs), dim=1):
            exact = part.double()
            product += exact[: stop - start] @ exact.T
        return product


def first_entry(row: Any, inputs: int) -> Any:
    """Return where a row, or each of several, begins in a triangle."""
    return row * inputs - row * (row - 1) // 2
