"""The toy of the speed benchmark, and the ways of sampling it that losskernel is compared with."""

import copy
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

STEP_SIZE, NBETA, LOCALIZATION = 1e-3, 100.0, 100.0
BATCH, THINNING, HIDDEN, TRAIN, PROBES = 64, 5, 32, 1024, 300
SHRINK = 1 - STEP_SIZE * LOCALIZATION / 2  # what localization leaves of w - w* after one step


@dataclass(frozen=True)
class Toy:
    """A trained network, its training set x [n, 4], y [n, 1] and the probes x [N, 4], y [N, 1]."""

    model: nn.Sequential
    train: TensorDataset
    probes: TensorDataset


def make_toy(seed: int = 0) -> Toy:
    """Train the two-task arithmetic network (a + b and a * b, task given one-hot) to near its minimum."""
    torch.manual_seed(seed)

    def examples(count: int) -> TensorDataset:
        pair = torch.rand(count, 2) * 2 - 1
        task = torch.arange(count) % 2
        target = torch.where(task == 0, pair.sum(1), pair.prod(1))
        return TensorDataset(torch.cat([pair, nn.functional.one_hot(task, 2)], 1), target[:, None])

    model = nn.Sequential(nn.Linear(4, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    train = examples(TRAIN)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(500):
        optimizer.zero_grad()
        half_square(model(train.tensors[0]), train.tensors[1]).mean().backward()
        optimizer.step()
    return Toy(model.eval().requires_grad_(True), train, examples(PROBES))


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Per-sample loss 1/2 (f - y)^2, [B, 1] and [B, 1] -> [B]."""
    return (outputs - targets).square().mul(0.5).squeeze(-1)


# --- loop: one chain after another, one module, autograd -------------------------------------------------


def loop_step(model: nn.Module, center: list[Tensor], x: Tensor, y: Tensor, noise: list[Tensor]) -> None:
    """One SGLD step of one chain on the minibatch x [B, 4], y [B, 1]."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(half_square(model(x), y).mean(), parameters)
    with torch.no_grad():
        for w, g, w0, xi in zip(parameters, gradients, center, noise, strict=True):
            w.add_(NBETA * g + LOCALIZATION * (w - w0), alpha=-STEP_SIZE / 2).add_(xi, alpha=STEP_SIZE**0.5)


def loop(toy: Toy, chains: int, steps: int) -> Tensor:
    """Sample every chain in turn; probe losses [C, D, N]."""
    (train_x, train_y), (probe_x, probe_y) = toy.train.tensors, toy.probes.tensors
    losses = torch.empty(chains, steps // THINNING, len(probe_x))
    center = [w.detach().clone() for w in toy.model.parameters()]
    for chain in range(chains):
        model = copy.deepcopy(toy.model)
        generator = torch.Generator().manual_seed(chain)
        for step in range(steps):
            rows = torch.randint(len(train_x), (BATCH,), generator=generator)
            noise = [torch.randn(w.shape, generator=generator) for w in center]
            loop_step(model, center, train_x[rows], train_y[rows], noise)
            if (step + 1) % THINNING == 0:
                with torch.no_grad():
                    losses[chain, step // THINNING] = half_square(model(probe_x), probe_y)
    return losses


# --- fused: all chains at once, gradients by hand, one buffer --------------------------------------------


class Fused:
    """All chains of the toy in one buffer w [C, P], advanced by batched matrix products.

    With r = f - y, mask m = [hidden > 0] and inputs x that carry a constant 1, every gradient follows from
    Q = (x r) m^T: dW1 = Q * w2 and dw2 = sum over inputs of Q * W1; so the backward pass is one product.
    Samples lie along the last axis, because a product with a single output column is slow, and every large
    intermediate has its buffer, because fresh memory costs more than the arithmetic on it.
    """

    def __init__(self, toy: Toy, chains: int, block: int):
        first, last = toy.model[0], toy.model[2]
        weights = [torch.cat([first.weight.T, first.bias[None]]).flatten(), last.weight.flatten(), last.bias]
        self.center = torch.cat(weights).detach()  # [P], W1 as [5, H] with the bias as its last row, w2, b2
        self.w = self.center.repeat(chains, 1)
        self.gradient = torch.empty_like(self.w)
        self.w1, self.w2, self.b2 = self._views(self.w)
        self.g1, self.g2, self.gb = self._views(self.gradient)
        x, y = toy.train.tensors
        self.table = torch.cat([x, torch.ones(len(x), 1), y], 1).T.contiguous()  # [6, n]
        x, y = toy.probes.tensors
        self.probes = torch.cat([x, torch.ones(len(x), 1)], 1).T.contiguous().expand(chains, -1, -1)
        self.probe_targets = y.T  # [1, N]
        self.rows = torch.empty(block, chains, BATCH, dtype=torch.int64)
        self.picked = torch.empty(6, self.rows.numel())
        self.pulls = torch.empty(block, *self.w.shape)
        self.hidden = torch.empty(chains, HIDDEN, BATCH)
        self.residual = torch.empty(chains, 1, BATCH)
        self.scaled = torch.empty(chains, 5, BATCH)
        self.probe_hidden = torch.empty(chains, HIDDEN, len(x))
        self.probe_outputs = torch.empty(chains, 1, len(x))

    @staticmethod
    def _views(flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """W1 [C, 5, H], w2 [C, 1, H], b2 [C, 1, 1] inside a buffer [C, P]."""
        split = 5 * HIDDEN
        return flat[:, :split].view(-1, 5, HIDDEN), flat[:, None, split:-1], flat[:, None, -1:]

    def randomise(self, generator: torch.Generator) -> None:
        """Draw the minibatches and the noise of a whole block of steps."""
        self.rows.random_(self.table.shape[1], generator=generator)
        self.pulls.normal_(generator=generator)

    def prepare(self) -> tuple[Tensor, Tensor]:
        """Minibatches [T, C, 6, B], and what each step adds to SHRINK * w, [T, C, P], of the block."""
        torch.index_select(self.table, 1, self.rows.flatten(), out=self.picked)
        self.pulls.mul_(STEP_SIZE**0.5).add_(self.center, alpha=1 - SHRINK)
        return self.picked.view(6, *self.rows.shape).permute(1, 2, 0, 3), self.pulls

    def forward(self, x: Tensor, hidden: Tensor, outputs: Tensor) -> None:
        """Write the hidden units [C, H, B] and the outputs [C, 1, B] for inputs [C, 5, B]."""
        torch.bmm(self.w1.transpose(1, 2), x, out=hidden).relu_()
        torch.baddbmm(self.b2, self.w2, hidden, out=outputs)

    def step(self, batch: Tensor, pull: Tensor) -> None:
        """Advance every chain on its minibatch [C, 6, B], with pull [C, P] from `prepare`."""
        x, hidden, residual = batch[:, :5], self.hidden, self.residual
        self.forward(x, hidden, residual)
        residual -= batch[:, 5:]
        torch.mul(x, residual, out=self.scaled)
        q = torch.bmm(self.scaled, hidden.sign_().transpose(1, 2))  # [C, 5, H]
        torch.mul(q, self.w2, out=self.g1)
        torch.sum(q.mul_(self.w1), 1, keepdim=True, out=self.g2)
        torch.sum(residual, 2, keepdim=True, out=self.gb)
        torch.add(pull, self.w, alpha=SHRINK, out=self.w)
        self.w.add_(self.gradient, alpha=-STEP_SIZE / 2 * NBETA / BATCH)

    def probe_losses(self) -> Tensor:
        """Per-sample losses [C, N] of the probes, in a buffer that the next call overwrites."""
        self.forward(self.probes, self.probe_hidden, self.probe_outputs)
        return self.probe_outputs.sub_(self.probe_targets).square_().mul_(0.5).squeeze(1)


@torch.inference_mode()
def fused(toy: Toy, chains: int, steps: int) -> Tensor:
    """Sample all chains together; probe losses [C, D, N]."""
    block = min(steps, THINNING * max(1, 64 // chains))  # few random-number calls, yet a block fits in cache
    state = Fused(toy, chains, block)
    generator = torch.Generator().manual_seed(0)
    losses = torch.empty(steps // THINNING, chains, len(toy.probes))
    for start in range(0, steps, block):
        state.randomise(generator)
        count = min(block, steps - start)
        for t, batch, pull in zip(range(start + 1, start + count + 1), *state.prepare(), strict=False):
            state.step(batch, pull)
            if t % THINNING == 0:
                losses[t // THINNING - 1] = state.probe_losses()
    return losses.transpose(0, 1)


# --- devinterp: its own sampler, with a callback that records the probes ---------------------------------


class RowBatches(Dataset):
    """A TensorDataset that hands out a whole minibatch by one indexing, instead of sample by sample."""

    def __init__(self, dataset: TensorDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, ...]:
        return self.dataset[rows]


def as_is(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Collate nothing: the minibatch is whole already."""
    return batch


def mean_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean minibatch loss, in devinterp's calling convention."""
    return half_square(model(batch[0]), batch[1]).mean()


def devinterp(toy: Toy, chains: int, steps: int) -> Tensor:
    """devinterp's sampler on the ordinary DataLoader of its documentation; probe losses [C, D, N]."""
    return run_devinterp(toy, DataLoader(toy.train, BATCH, shuffle=True), chains, steps)


def devinterp_rows(toy: Toy, chains: int, steps: int) -> Tensor:
    """The same, helped by a loader that does not collate sample by sample; probe losses [C, D, N]."""
    loader = DataLoader(RowBatches(toy.train), BATCH, shuffle=True, collate_fn=as_is)
    return run_devinterp(toy, loader, chains, steps)


def run_devinterp(
    toy: Toy, loader: DataLoader, chains: int, steps: int, noise_level: float = 1.0, observe=None
) -> Tensor:
    """Call devinterp with the benchmark's hyperparameters; `observe(model)` sees every step's model."""
    from devinterp.optim.sgmcmc import SGMCMC
    from devinterp.slt.sampler import sample

    probe_x, probe_y = toy.probes.tensors
    losses = torch.empty(chains, steps // THINNING, len(probe_x))

    def record(*, model: nn.Module, chain: int, draw: int, **_) -> None:
        if observe is not None:
            observe(model)
        if (draw + 1) % THINNING == 0:
            losses[chain, draw // THINNING] = half_square(model(probe_x), probe_y)

    settings = {"lr": STEP_SIZE, "nbeta": NBETA, "localization": LOCALIZATION, "noise_level": noise_level}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on learning coefficients, which are not estimated here
        sample(
            model=toy.model, loader=loader, callbacks=[record], evaluate=mean_loss,
            sampling_method=SGMCMC.sgld, optimizer_kwargs=settings, num_draws=steps, num_chains=chains,
            num_burnin_steps=0, num_steps_bw_draws=1, init_loss=1.0, cores=1, seed=0, verbose=False,
        )  # fmt: skip
    return losses
