"""Checks that a sample's loss is a function of the weights and of that sample alone, before anything is sampled.

The loss kernel is the covariance of such functions (arXiv 2509.26537, section 3). A loss that also depends on the
samples evaluated beside it, or on chance, has another covariance for every block size and seed.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.global_state import kept_random_state
from losskernel.errors import InputError, require
from losskernel.models.evaluation_copy import evaluation_copy
from losskernel.sampling.engine.stacked_model import Loss, check_losses, stackable

SAMPLES = 16  # compared among others
_FEW = 3  # of networks whose evaluation takes long
_ALONE = 4  # of them by themselves; two where there are few
_RARE = 32  # where random numbers are drawn: noise that seldom acts needs more of them
# Rounding, relative to losses and outputs: other batch sizes take other routes through the libraries.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 2e-4}
_COARSE = 5e-2  # of networks with parts in 16 bits


class _Evaluation(NamedTuple):
    """One pass over the samples of some rows."""

    rows: Sequence[int]
    losses: Tensor  # [rows]
    outputs: Tensor  # [rows, ...]; the losses where the network returns no tensor of that length


class _Part(NamedTuple):
    """What one module was given and what it returned for one sample."""

    name: str
    kind: str  # its class
    given: list[Tensor]
    returned: list[Tensor]


def check_function(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
    """Evaluate samples twice, alone, permuted, in other blocks and beside padding; the losses must agree.

    The caller's random state is kept.

    Args:
        model: the network; copied, never changed.
        loss: (outputs, targets) -> [B].
        inputs: [n, ...] of which the first SAMPLES are used, of large networks fewer.
        targets: [n, ...].

    Raises:
        InputError: the loss of a sample depends on chance or on other samples; names the module or the loss.
    """
    with kept_random_state(), torch.no_grad():
        count = SAMPLES if stackable(model) else _FEW
        subject = _Subject(evaluation_copy(model).to(inputs.device), loss, inputs[:count], targets[:count])
        subject.check_repeats()
        subject.check_companions()


class _Subject:
    """A network and a loss on a few samples."""

    def __init__(self, network: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        self._network, self._loss, self._inputs, self._targets = network, loss, inputs, targets
        self._whole = list(range(len(inputs)))
        check_losses(network, loss, inputs[:2].clone(), targets[:2])
        try:
            self._first = self._evaluate(self._whole)
        except (RuntimeError, TypeError, IndexError):
            check_losses(network, loss, inputs.clone(), targets)  # says what fails, as a target out of range
            raise
        kinds = {tensor.dtype for tensor in (*network.parameters(), *network.buffers()) if tensor.is_floating_point()}
        self._rounding = max(_ROUNDING.get(kind, _COARSE) for kind in {*kinds, self._first.losses.dtype})

    def check_repeats(self) -> None:
        """Raise InputError if the same samples have other losses at the same weights."""
        before = _random_state()
        repeats = [self._evaluate(self._whole)]
        draws = _random_state() != before
        more = _RARE if draws else int(len(self._whole) > _FEW)
        for again in itertools.chain(repeats, (self._evaluate(self._whole) for _ in range(more))):
            if (row := self._differing(self._first, again)) is None:
                continue
            place = self._whole, row
            # Noise that seldom acts shows its module only after some tries.
            parts = (self._first_difference(place, place) for _ in range(_RARE if draws else 1))
            part = next(filter(None, parts), self._loss_name())
            raise InputError(
                f"{part} is random in evaluation mode: the loss of sample {row} is "
                f"{float(self._first.losses[row]):.6g}, then {float(again.losses[row]):.6g} at the same weights; make "
                "it deterministic (nn.Dropout instead of a call of dropout, no noise unless self.training)"
            )

    def check_companions(self) -> None:
        """Raise InputError if a sample's loss changes with the samples evaluated beside it."""
        whole, count = self._whole, len(self._whole)
        groups = [
            # In another order, and beside copies as blocks are padded with.
            [*whole[::-1], *[whole[-1]] * (count if count > _FEW else 1)],
            whole[: count // 2],
            whole[count // 2 :],
            *([row] for row in whole[:: count // _ALONE or 2]),
        ]
        for rows in filter(None, groups):
            other = self._attempt(rows)
            if (row := self._differing(self._first, other)) is not None:
                places = (whole, row), (rows, rows.index(row))
                part = self._first_difference(*places)
                raise InputError(
                    f"{part or self._loss_name()} mixes samples: the loss of sample {row} is "
                    f"{float(self._first.losses[row]):.6g} among {count} samples, and "
                    f"{float(other.losses[rows.index(row)]):.6g} among {len(rows)}; a sample's loss may depend on the "
                    f"weights and on that sample alone ({_remedy(part)})"
                )

    def _evaluate(self, rows: Sequence[int]) -> _Evaluation:
        index = torch.as_tensor(rows, device=self._inputs.device)
        outputs = self._network(self._inputs[index])
        losses = self._loss(outputs, self._targets[index])
        aligned = isinstance(outputs, Tensor) and outputs.ndim > 0 and len(outputs) == len(rows)
        return _Evaluation(rows, losses, outputs if aligned else losses)

    def _attempt(self, rows: Sequence[int]) -> _Evaluation:
        try:
            result = self._evaluate(rows)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"model and loss fail on {len(rows)} of {len(self._whole)} samples that they take together: {reason}; "
                "a sample's loss may not need others beside it"
            ) from error
        require(
            result.losses.shape == (len(rows),),
            f"for {len(rows)} samples model and loss return losses of shape {tuple(result.losses.shape)}, for "
            f"{len(self._whole)} one each; keep the batch axis (squeeze(1) instead of squeeze())",
        )
        return result

    def _differing(self, first: _Evaluation, second: _Evaluation) -> int | None:
        """Return the sample whose loss or outputs differ most between two evaluations; None if all agree."""
        worst, most = None, 1.0
        # Rounding of a loss follows the outputs that it is computed from.
        typical = _typical(first.losses) + _typical(first.outputs)
        for whole, part in ((first.losses, second.losses), (first.outputs, second.outputs)):
            ratio = self._distance(whole[list(second.rows)].double(), part.double(), typical)
            ratio = ratio.flatten(1).amax(1) if ratio.ndim > 1 else ratio
            if float(ratio.max()) > most:
                worst, most = second.rows[int(ratio.argmax())], float(ratio.max())
        return worst

    def _first_difference(self, first: tuple[Sequence[int], int], second: tuple[Sequence[int], int]) -> str | None:
        """Return the first module whose result for one sample differs between two passes; None: the loss does.

        Args:
            first: rows of a pass, and the position of the sample among them.
            second: of the other pass.
        """
        parts = list(zip(self._recorded(*first), self._recorded(*second), strict=False))
        kinds = {part.name: part.kind for part, _ in parts}
        for ours, theirs in parts:
            if ours.name == theirs.name and self._differ(ours.returned, theirs.returned):
                # Where its inputs differ already, code of the module around it made the difference.
                name = ours.name.rpartition(".")[0] if self._differ(ours.given, theirs.given) else ours.name
                return f"{name} ({kinds[name]})" if name else f"{type(self._network).__name__}.forward"
        return None

    def _distance(self, ours: Tensor, theirs: Tensor, typical: float) -> Tensor:
        """Return how far entries are apart, in units of what rounding may do to them."""
        allowed = self._rounding * (ours.abs().maximum(theirs.abs()) + typical) + torch.finfo(torch.float64).tiny
        ratio = ((ours - theirs).abs() / allowed).nan_to_num(nan=torch.inf)
        return ratio.masked_fill((ours == theirs) | (ours.isnan() & theirs.isnan()), 0.0)

    def _differ(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
        for one, other in zip(ours, theirs, strict=False):
            if one.shape != other.shape or float(self._distance(one, other, _typical(one)).max()) > 1:
                return True
        return False

    def _recorded(self, rows: Sequence[int], position: int) -> list[_Part]:
        """Return what each module did with one sample, in the order in which they finished."""
        parts: list[_Part] = []

        def of_sample(values: Any) -> list[Tensor]:
            tensors = [
                value for value in (values if isinstance(values, tuple) else (values,)) if isinstance(value, Tensor)
            ]
            real = [value for value in tensors if value.ndim and len(value) == len(rows) and not value.is_complex()]
            # Copies: a later operation may change them in place.
            return [value[position].detach().double().clone() for value in real if value.numel()]

        def keep(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
            given: list[Tensor] = []

            def before(_: nn.Module, inputs: Any) -> None:
                given[:] = of_sample(inputs)

            def after(module: nn.Module, _: Any, output: Any) -> None:
                parts.append(_Part(name, type(module).__name__, list(given), of_sample(output)))

            return before, after

        hooks = []
        for name, module in self._network.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                before, after = keep(name)
                hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        try:
            self._evaluate(rows)
        finally:
            for hook in hooks:
                hook.remove()
        return parts

    def _loss_name(self) -> str:
        return f"data.loss ({getattr(self._loss, '__name__', type(self._loss).__name__)})"


def _remedy(part: str | None) -> str:
    """Return what helps against a module that mixes samples."""
    if part is None:
        return "for in-batch contrast or class weights, use fixed references"
    if "BatchNorm" in part:
        return "train BatchNorm with track_running_stats=True, or use GroupNorm or LayerNorm"
    return "use fixed or running statistics in evaluation mode"


def _typical(values: Tensor) -> float:
    """Return the median size of entries that are neither zero nor infinite: masked logits of -1e9 do not count."""
    sizes = values.detach().double().abs()
    sizes = sizes[sizes.isfinite() & (sizes > 0)]
    return float(sizes.median()) if sizes.numel() else 0.0


def _random_state() -> tuple[bytes, str, int]:
    """Return the states of the global generators, to be compared."""
    kind, keys, position, *_ = cast(Any, np.random.get_state(legacy=True))  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), f"{kind}{position}{hash(keys.tobytes())}", hash(random.getstate())
