"""Modules that plain PyTorch can evaluate and differentiate: their losses and gradients under sampling are the same."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from losskernel.errors import InputError
from losskernel.losses import cross_entropy
from losskernel.models.evaluation_copy import evaluation_copy, unwrapped
from losskernel.sampling.engine.plain_model import PlainModel, choose_route
from losskernel.sampling.engine.stacked_model import StackedModel
from losskernel.sampling.loss_checks import check_function

FEATURES, CLASSES, BATCH = 12, 3, 6
INPUTS = torch.randn(16, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.randint(0, CLASSES, (16,), generator=torch.Generator().manual_seed(1))


class Apply(nn.Module):
    """A layer, a function of its output, and a last layer."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(FEATURES, 8), nn.Linear(width, CLASSES), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


class Recurrent(nn.Module):
    """A recurrent layer over four steps of three numbers; the classes are read from its last output."""

    def __init__(self, kind: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.cell = kind(3, 5, batch_first=True, **options)
        self.last = nn.Linear(5 * (2 if options.get("bidirectional") else 1), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(x.unflatten(1, (4, 3)))[0][:, -1])


class Attention(nn.Module):
    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.attention, self.last, self.masked = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(12, 3), masked

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.unflatten(1, (3, 4))
        mask = torch.ones(3, 3, dtype=torch.bool, device=x.device).triu(1) if self.masked else None
        return self.last(self.attention(tokens, tokens, tokens, attn_mask=mask, need_weights=False)[0].flatten(1))


class Transformer(nn.Module):
    def __init__(self, masked: bool = False, padded: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True)
        self.encoder, self.last = nn.TransformerEncoder(layer, 2), nn.Linear(12, CLASSES)
        self.masked, self.padded = masked, padded

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=x.dtype) if self.masked else None
        padding = (x.unflatten(1, (3, 4))[..., 0] > 1.5) if self.padded else None
        padding = padding & ~padding.all(1, keepdim=True) if padding is not None else None
        return self.last(self.encoder(x.unflatten(1, (3, 4)), mask, padding).flatten(1))


class Tokens(nn.Module):
    """An embedding of the numbers' sizes, rounded."""

    def __init__(self, bag: bool = False, tied: bool = False, **options: Any) -> None:
        super().__init__()
        self.table = (nn.EmbeddingBag if bag else nn.Embedding)(10, 4, **options)
        self.last = nn.Linear(4, 10 if tied else CLASSES, bias=False)
        if tied:
            self.last.weight = self.table.weight
        self.bag = bag

    def forward(self, x: Tensor) -> Tensor:
        rows = (3 * x.abs()).long().clamp(max=9)
        vectors = self.table(rows) if self.bag else self.table(rows).mean(1)
        return self.last(vectors)[:, :CLASSES]


class Guarded(Apply):
    """Refuses NaN, as many networks do."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.isnan(x).any():
            raise ValueError("NaN")
        return super().forward(x)


class Branching(Apply):
    """Takes one of two ways by the size of a weight."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden = hidden.tanh() if float(self.first.weight.sum()) > 0 else 2 * hidden.sigmoid()
        return self.last(hidden)


class Slots(Apply):
    """Fills its output slot by slot."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros(len(x), 8, dtype=x.dtype, device=x.device)
        for slot in range(8):
            hidden[:, slot] = self.first(x)[:, slot].relu()
        return self.last(hidden)


class RowsByMask(Apply):
    """Changes the rows that a mask picks."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).clone()
        mask = x[:, 0] > 0
        hidden[mask] = hidden[mask].tanh()
        return self.last(hidden)


class ChangesInputs(Apply):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5).add_(1)
        return super().forward(x)


class Loop(Apply):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        for _ in range(int(hidden.shape[0] > 0) + 2):
            hidden = hidden + 0.1 * hidden.tanh()
        return self.last(hidden)


class Adapters(nn.Module):
    """A frozen layer with a low-rank addition, as fine-tuning leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(FEATURES, CLASSES).requires_grad_(False)
        self.down, self.up = nn.Linear(FEATURES, 2, bias=False), nn.Linear(2, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class ExtraState(Apply):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: dict[str, int]) -> None: ...


class WithBuffer(Apply):
    def __init__(self, buffer: Tensor) -> None:
        super().__init__(torch.relu)
        self.register_buffer("kept", buffer)


class Checkpointed(Apply):
    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        return self.last(checkpoint(lambda part: self.first(part).relu(), x, use_reentrant=False))


class Narrow(Apply):
    """Fails where its weight is negative, which chains do not reach."""

    def __init__(self) -> None:
        super().__init__(torch.relu)
        self.sigma = nn.Parameter(torch.full((CLASSES,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.distributions.Normal(super().forward(x), self.sigma).log_prob(torch.zeros(CLASSES, dtype=x.dtype))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return 2 * x * gradient


def layer(kind: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    network = Apply(torch.relu)
    network.first = kind(network.first)  # type: ignore[assignment]
    return network


def hooked() -> nn.Module:
    network = Apply(torch.relu)
    network.first.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    return network


def scripted(network: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated, and still met
        return torch.jit.script(network)


def plain_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))


ZOO: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(FEATURES, CLASSES),
    "relu": lambda: Apply(torch.relu),
    "gelu": lambda: Apply(nn.GELU()),
    "prelu": lambda: Apply(nn.PReLU()),
    "softmax": lambda: Apply(nn.Softmax(1)),
    "dropout": lambda: Apply(nn.Dropout(0.5)),
    "batch norm": lambda: Apply(nn.BatchNorm1d(8)),
    "layer norm": lambda: Apply(nn.LayerNorm(8)),
    "group norm": lambda: Apply(nn.GroupNorm(2, 8)),
    "rms norm": lambda: Apply(nn.RMSNorm(8)),
    "instance norm": lambda: Apply(nn.Sequential(nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2), nn.Flatten())),
    "glu": lambda: Apply(nn.GLU(1), 4),
    "cosine": lambda: Apply(lambda h: F.normalize(h, dim=1)),
    "sorted features": lambda: Apply(lambda h: h.sort(1).values),
    "top k": lambda: Apply(lambda h: h.topk(4, 1).values, 4),
    "cumulative sum": lambda: Apply(lambda h: h.cumsum(1)),
    "einsum": lambda: Apply(lambda h: torch.einsum("bi,bj->bij", h, h).flatten(1), 64),
    "fft": lambda: Apply(lambda h: torch.fft.rfft(h).abs(), 5),
    "where": lambda: Apply(lambda h: torch.where(h > 0, h, 0.1 * h)),
    "masked fill": lambda: Apply(lambda h: h.masked_fill(h < 0, 0.0)),
    "in-place": lambda: Apply(lambda h: h.clone().mul_(2).relu_()),
    "custom autograd": lambda: Apply(Square.apply),
    "scale above zero": Narrow,
    "rnn": lambda: Recurrent(nn.RNN),
    "gru": lambda: Recurrent(nn.GRU),
    "lstm": lambda: Recurrent(nn.LSTM),
    "lstm, two layers": lambda: Recurrent(nn.LSTM, num_layers=2, dropout=0.5),
    "gru, both ways": lambda: Recurrent(nn.GRU, bidirectional=True),
    "attention": lambda: Attention(False),
    "causal attention": lambda: Attention(True),
    "transformer": lambda: Transformer(),
    "causal transformer": lambda: Transformer(masked=True),
    "padded transformer": lambda: Transformer(padded=True),
    "embedding": lambda: Tokens(),
    "padded embedding": lambda: Tokens(padding_idx=0),
    "sparse embedding": lambda: Tokens(sparse=True),
    "bag of embeddings": lambda: Tokens(bag=True),
    "sparse bag": lambda: Tokens(bag=True, sparse=True),
    "tied embedding": lambda: Tokens(tied=True),
    "guard against NaN": lambda: Guarded(torch.relu),
    "branch on a value": lambda: Branching(torch.relu),
    "slots": lambda: Slots(torch.relu),
    "rows by a mask": lambda: RowsByMask(torch.relu),
    "changes its inputs": lambda: ChangesInputs(torch.relu),
    "loop": lambda: Loop(torch.relu),
    "checkpointing": lambda: Checkpointed(torch.relu),
    "old weight norm": lambda: layer(nn.utils.weight_norm),
    "old spectral norm": lambda: layer(nn.utils.spectral_norm),
    "weight norm": lambda: layer(parametrizations.weight_norm),
    "spectral norm": lambda: layer(parametrizations.spectral_norm),
    "orthogonal": lambda: layer(parametrizations.orthogonal),
    "hook": hooked,
    "adapters": Adapters,
    "extra state": lambda: ExtraState(torch.relu),
    "buffer in 16 bits": lambda: WithBuffer(torch.ones(3).bfloat16()),
    "sparse buffer": lambda: WithBuffer(torch.eye(3).to_sparse()),
    "data parallel": lambda: nn.DataParallel(plain_mlp()),
    "compiled": lambda: torch.compile(plain_mlp(), backend="eager"),
    "scripted": lambda: scripted(plain_mlp()),
}


def built(kind: str, dtype: torch.dtype, convolution: bool) -> nn.Module:
    torch.manual_seed(0)
    network = unwrapped(ZOO[kind]())
    if convolution:  # which keeps chains from being stacked
        front = nn.Sequential(nn.Unflatten(1, (FEATURES, 1, 1)), nn.Conv2d(FEATURES, FEATURES, 1), nn.Flatten())
        network = nn.Sequential(front, network)
    return network.to(dtype)


def by_plain_pytorch(network: nn.Module, moving: list[str], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (mean loss's gradient [P], losses [B])."""
    network = evaluation_copy(network)
    weights = dict(network.named_parameters())
    for name in moving:
        weights[name].requires_grad_(True)
    losses = cross_entropy(network(inputs.clone()), targets)
    losses.mean().backward()
    parts = [
        weights[name].grad if weights[name].grad is not None else torch.zeros_like(weights[name]) for name in moving
    ]
    return torch.cat([part.to_dense().flatten() for part in parts]), losses.detach()


@pytest.mark.parametrize(
    "dtype",
    [pytest.param(torch.float32, marks=pytest.mark.slow, id="float32"), pytest.param(torch.float64, id="float64")],
)
@pytest.mark.parametrize("convolution", [False, True], ids=["stacked", "lone"])
@pytest.mark.parametrize("kind", ZOO)
def test_losses_and_gradients_are_those_of_plain_pytorch(kind: str, convolution: bool, dtype: torch.dtype) -> None:
    network = built(kind, dtype, convolution)
    inputs, targets = INPUTS.to(dtype), TARGETS
    check_function(network, cross_entropy, inputs, targets)
    moving = [name for name, weight in network.named_parameters() if weight.requires_grad]
    chains = 1 if convolution else 2
    minibatch = inputs[:BATCH].expand(chains, -1, -1), targets[:BATCH].expand(chains, -1)

    def build(model: type[StackedModel]) -> StackedModel:
        return model(network, cross_entropy, chains, moving)

    with torch.no_grad():
        model = build(choose_route(build, minibatch, (inputs, targets)).model)
        views = model.views(model.start.repeat(chains, 1))
        gradient, _ = model.gradient(views, *minibatch)
        losses = model.evaluator(views)(inputs, targets)
    wanted, _ = by_plain_pytorch(network, moving, inputs[:BATCH], targets[:BATCH])
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    for chain in range(chains):
        assert (gradient[chain] - wanted).norm() <= tolerance * wanted.norm()
        torch.testing.assert_close(
            losses[chain], by_plain_pytorch(network, moving, inputs, targets)[1], rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("kind", ["lstm", "branch on a value", "scripted"])
def test_the_hessian_of_plain_evaluation_is_that_of_differences(kind: str) -> None:
    network = built(kind, torch.float64, False)
    moving = [name for name, _ in network.named_parameters()]
    model = PlainModel(network, cross_entropy, 2, moving)
    batch = INPUTS[:BATCH].expand(2, -1, -1), TARGETS[:BATCH].expand(2, -1)
    start = model.start.repeat(2, 1)
    direction = torch.randn(start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ahead, behind = (model.gradient(model.views(start + sign * 1e-5 * direction), *batch)[0] for sign in (1, -1))
    with torch.no_grad():
        exact = model.hessian_product(model.views(start), *batch, direction)
    torch.testing.assert_close(exact, (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-7)


def test_a_branch_that_another_chain_takes_is_seen() -> None:
    """A recording would keep the way that was taken first."""
    network = built("branch on a value", torch.float64, True)
    moving = [name for name, _ in network.named_parameters()]
    other = copy.deepcopy(network)
    with torch.no_grad():
        for weight in other.parameters():
            weight.neg_()

    def build(kind: type[StackedModel]) -> StackedModel:
        return kind(network, cross_entropy, 1, moving)

    batch = INPUTS[None, :BATCH], TARGETS[None, :BATCH]
    model = build(choose_route(build, batch, (INPUTS, TARGETS)).model)
    gradient, _ = model.gradient(model.views(-model.start[None]), *batch)
    torch.testing.assert_close(gradient[0], by_plain_pytorch(other, moving, INPUTS[:BATCH], TARGETS[:BATCH])[0])


def test_a_forward_that_changes_weights_is_refused_by_their_name() -> None:
    network = Tokens(max_norm=1.0).double()

    def build(kind: type[StackedModel]) -> StackedModel:
        return kind(network, cross_entropy, 1, ["table.weight", "last.weight"])

    network(INPUTS)  # as training leaves it: no row is longer than allowed
    with torch.no_grad(), pytest.raises(InputError, match=r"forward changes its weight table\.weight"):
        choose_route(build, (INPUTS[None], TARGETS[None]), (INPUTS, TARGETS))
