"""Parts that a careless user might write; the configurations of the tests name them as `_target_`."""

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.analyses import Result


def _data(loss: object, **options: object) -> lk.Data:
    inputs = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    train = TensorDataset(inputs, inputs.sum(1))
    probes = TensorDataset(*(part[:20] for part in train.tensors))
    settings = {"labels": {"task": ["a", "b"] * 10}} | options
    return lk.Data(train=train, probes=probes, loss=loss, **settings)  # pyright: ignore[reportArgumentType]


def _mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs[:, 0] - targets).square().mean()


def _nan(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs[:, 0] * float("nan")


def _broken(outputs: Tensor, targets: Tensor) -> Tensor:
    raise KeyError("weight")


def scalar_loss() -> lk.Data:
    return _data(_mean)


def nan_loss() -> lk.Data:
    return _data(_nan)


def broken_loss() -> lk.Data:
    return _data(_broken)


def short_labels() -> lk.Data:
    return _data(lk.losses.squared_error, labels={"task": ["a", "b"]})


def empty_probes() -> lk.Data:
    none = torch.zeros(0, 4)
    train = TensorDataset(torch.zeros(10, 4), torch.zeros(10))
    return lk.Data(train=train, probes=TensorDataset(none, none[:, 0]), loss=lk.losses.squared_error)


def with_truths(plain: bool = False, late: bool | None = None, free: object = False) -> lk.Data:
    return _data(lk.losses.squared_error)


def not_data() -> list[int]:
    return [1, 2]


class Breaks:
    """An analysis with a bug."""

    def __call__(self, kernel: lk.LossKernel, traces: lk.LossTraces) -> Result:
        raise ZeroDivisionError("no probes left")


class Pages:
    """An analysis that makes a page."""

    def __call__(self, kernel: object, traces: object) -> Result:

        return Result(pages={"plain": "<html><body class='x'>hello</body></html>"})
