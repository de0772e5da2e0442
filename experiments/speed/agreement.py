"""Proof that the implementations of the speed benchmark take the same steps."""

import copy
import importlib.util

import torch
from baselines import BATCH, HIDDEN, Fused, Toy, loop_step, run_devinterp
from torch import Tensor, nn
from torch.utils.data import DataLoader


def check(toy: Toy, chains: int = 3, steps: int = 50) -> bool:
    """Whether the loop, the fused step and (without noise) devinterp reach the same weights."""
    state = Fused(toy, chains, steps)
    state.randomise(torch.Generator().manual_seed(1))
    rows, noise = state.rows.clone(), state.pulls.clone()
    with torch.no_grad():
        for batch, pull in zip(*state.prepare(), strict=True):
            state.step(batch, pull)
    train_x, train_y = toy.train.tensors
    difference = 0.0
    for chain in range(chains):
        model, center = fresh(toy)
        for step in range(steps):
            split = 5 * HIDDEN
            first = noise[step, chain, :split].view(5, HIDDEN)
            rest = noise[step, chain, split:-1].view(1, HIDDEN), noise[step, chain, -1:]
            batch = rows[step, chain]
            loop_step(model, center, train_x[batch], train_y[batch], [first[:4].T, first[4], *rest])
        w1, b1, w2, b2 = model.parameters()
        reached = torch.cat([w1.T.flatten(), b1, w2.flatten(), b2])
        difference = max(difference, (reached - state.w[chain]).abs().max().item())
    moved = (state.w - state.center).abs().max().item()
    passed = difference < 1e-5 < moved
    print(f"loop and fused differ by {difference:.1e} after {steps} steps; weights moved by {moved:.2f}")
    if importlib.util.find_spec("devinterp") is not None:
        seen: list[list[Tensor]] = []
        loader = DataLoader(toy.train, BATCH, shuffle=False)
        run_devinterp(toy, loader, 1, 10, 0.0, lambda model: seen.append(copies(model)))
        model, center = fresh(toy)
        for x, y in (batch for batch, _ in zip(loader, range(10), strict=False)):
            loop_step(model, center, x, y, [torch.zeros_like(w) for w in center])
        drift = max((a - b).abs().max().item() for a, b in zip(seen[-1], model.parameters(), strict=True))
        passed &= drift < 1e-5
        print(f"loop and devinterp differ by {drift:.1e} after 10 steps without noise")
    return passed


def fresh(toy: Toy) -> tuple[nn.Module, list[Tensor]]:
    """A copy of the trained model, and its weights w*."""
    return copy.deepcopy(toy.model), copies(toy.model)


def copies(model: nn.Module) -> list[Tensor]:
    """The weights of a model as they are now."""
    return [w.detach().clone() for w in model.parameters()]
