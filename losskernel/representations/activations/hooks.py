"""A network that torch.fx cannot follow: what its modules return, in the order in which they do."""

import copy
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from losskernel.errors import require
from losskernel.representations.activations.graph import INPUTS, Graph, is_activation


class HookedNetwork:
    """A copy of a network in eval mode whose modules hand over what they return."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._calls: Counter[str] = Counter()
        self._seen: Callable[[str, Any], None] = lambda name, value: None
        for name, module in self.model.named_modules():
            if name:
                module.register_forward_hook(self._hook(name))

    def evaluate(self, inputs: Tensor, wanted: Collection[str] | None, keep: Callable[[str, Tensor], None]) -> None:
        """Hand over what the wanted modules return, None for all, as each is evaluated.

        What is handed over may be overwritten by the next module.
        """

        def seen(name: str, value: Any) -> None:
            if wanted is None or name in wanted:
                keep(name, value)

        self._calls.clear()
        self._seen = seen
        with torch.no_grad():
            self.model(inputs)

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, entering: tuple[Any, ...], leaving: Any) -> None:
            call = self._calls[name]
            self._calls[name] += 1
            self._seen(f"{name}_{call}" if call else name, leaving)

        return hook


def hooked_graph(model: nn.Module, inputs: Tensor, reason: str) -> Graph:
    """Return the modules that return one tensor, a chain in the order of evaluation.

    Args:
        model: the network.
        inputs: some, [B, ...].
        reason: why torch.fx cannot follow the network.

    Raises:
        InputError: no module returns a floating tensor [B, ...].
    """
    # Tensors stay alive, so that no two share memory by chance.
    seen: list[tuple[str, Tensor, int]] = [(INPUTS, inputs, inputs._version)]
    aliases: dict[str, str] = {}

    def keep(name: str, value: Any) -> None:
        if not is_activation(value, len(inputs)):
            return
        last, before, version = seen[-1]
        if _same(value, before) and value._version == version:
            aliases[name] = last
        else:
            seen.append((name, value, value._version))

    network = HookedNetwork(model)
    network.evaluate(inputs, None, keep)
    names = tuple(name for name, _, _ in seen[1:])
    kind = type(model).__name__
    require(len(names) > 0, f"{kind} has no module that returns a tensor [B, ...]; make its layers modules")
    return Graph(
        names,
        {name: (before,) for before, name in zip((INPUTS, *names), names, strict=False)},
        {name: value.numel() // len(inputs) for name, value, _ in seen[1:]},
        {name: name for name in names},
        {name: target for name, target in aliases.items() if target != INPUTS},
        children=tuple(name for name, _ in network.model.named_children()),
        untraced=f"{kind} cannot be followed by torch.fx ({reason})",
    )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers in the same memory."""
    return one.numel() == other.numel() and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
