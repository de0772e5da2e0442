"""Training as Lightning sees it: a network with its loss and optimiser, and minibatches; each from any step on."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import IterableDataset

from losskernel.data.augmentation import Augmented
from losskernel.data.base import Data, size
from losskernel.data.loading import MinibatchLoader
from losskernel.data.minibatch_order import NOISE, TRAINING_STREAM, MinibatchIndices, generator
from losskernel.errors import DivergenceError
from losskernel.training.settings import Training


class Supervised(pl.LightningModule):
    """A model, its mean loss, and an optimiser whose learning rate falls.

    Args:
        model: trained in place.
        data: has the loss.
        training: has the optimiser.
        state: of an interrupted training, to go on from there.

    Attributes:
        step: steps done.
    """

    def __init__(self, model: nn.Module, data: Data, training: Training, state: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.model, self._data, self._training, self._state = model, data, training, state
        self.step = 0
        if state is not None:
            model.load_state_dict(state["weights"])
            self.step = int(state["step"])

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, stepped once a batch."""
        optimizer = self._training.optimizer(self.model.parameters())
        decay = self._training.decay(optimizer)
        if self._state is not None:
            optimizer.load_state_dict(self._state["optimizer"])
            decay.load_state_dict(self._state["decay"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the minibatch's mean loss."""
        loss = self._data.loss(self.model(batch[0]), batch[1]).mean()
        if self.step % 50 == 0 and not loss.isfinite():
            raise DivergenceError(
                f"the training loss is {loss.item()} at step {self.step}; lower training.optimizer.lr or check the data"
            )
        self.step += 1
        return loss


class Minibatches(IterableDataset[Any]):
    """Reshuffled minibatches without end, changed by the augmentation if there is one.

    Args:
        data: has the training set.
        training: has the batch size and the augmentation.
        seed: of order and augmentation.
        state: of an interrupted training, to go on from there.
    """

    def __init__(self, data: Data, training: Training, seed: int, state: dict[str, Any] | None = None) -> None:
        self._next, self._random = (0, {}) if state is None else (int(state["step"]), state["random"])
        indices = MinibatchIndices(seed, [TRAINING_STREAM], size(data.train), training.batch_size, self._next)
        self._noise: Generator | None = None
        if training.augment is not None:
            self._noise = generator(seed, NOISE, TRAINING_STREAM)
            data = replace(data, train=Augmented(data.train, training.augment, self._noise), train_ids=None)
        self._before: dict[int, Tensor] = {}
        self._load = MinibatchLoader(data, indices, torch.device("cpu"))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._restore()  # only now: whoever iterates draws random numbers before the first minibatch
        while True:
            if self._noise is not None:
                self._before[self._next] = self._noise.get_state()
                self._before.pop(self._next - 2, None)
            self._next += 1
            inputs, targets = self._load()
            yield inputs[0], targets[0]

    def random_before(self, step: int) -> dict[str, Tensor]:
        """Return where all random numbers stand before a step, whose minibatch may have been loaded already."""
        found = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            found["cuda"] = torch.cuda.get_rng_state()
        if self._noise is not None:
            found["augmentation"] = self._before[step] if step < self._next else self._noise.get_state()
        return found

    def _restore(self) -> None:
        """Put random numbers back to where they stood: those of the augmentation, and those that dropout draws."""
        if self._noise is not None and "augmentation" in self._random:
            self._noise.set_state(self._random["augmentation"])
        if "cpu" in self._random:
            torch.set_rng_state(self._random["cpu"])
        if "cuda" in self._random and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(self._random["cuda"])

    def close(self) -> None:
        """End the processes that load samples; Lightning's own references would keep them for long."""
        self._load.close()
