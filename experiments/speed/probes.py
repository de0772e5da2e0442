"""Images per second of probe evaluation with Inception-v1: the plain eager loop, and losskernel's."""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import GoogLeNet

from losskernel.losses import cross_entropy
from losskernel.sampling.engine.stacked_model import StackedModel, choose_block

CLASSES, PROBES, DRAWS = 1000, 10_000, 4 * 500
Evaluate = Callable[[], Tensor]


def network() -> nn.Module:
    """Inception-v1 with random weights and the BatchNorm statistics of one pass: activations keep their size."""
    torch.manual_seed(0)
    model = GoogLeNet(num_classes=CLASSES, aux_logits=False, init_weights=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    with torch.no_grad():
        model.train()(torch.randn(64, 3, 64, 64))
    return model.eval()


def eager(model: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor, block: int) -> Evaluate:
    """The plain evaluation loop."""

    @torch.no_grad()
    def evaluate() -> Tensor:
        starts = range(0, len(inputs), block)
        return torch.cat([cross_entropy(model(inputs[s : s + block]), targets[s : s + block]) for s in starts])

    return evaluate


def lowered(evaluate: Evaluate, device: torch.device, dtype: torch.dtype) -> Evaluate:
    """The same under autocast."""

    def within() -> Tensor:
        with torch.autocast(device.type, dtype):
            return evaluate().float()

    return within


def ours(stack: StackedModel, inputs: Tensor, targets: Tensor, block: int, dtype: torch.dtype | None) -> Evaluate:
    """What sampling does at every draw: the weights' part once, then all blocks."""
    weights = stack.start[None].to(inputs.device)

    def evaluate() -> Tensor:
        of = stack.evaluator(stack.views(weights), dtype)
        starts = range(0, len(inputs), block)
        return torch.cat([of(inputs[s : s + block], targets[s : s + block]) for s in starts], dim=1)[0]

    return evaluate


def gradients(stack: StackedModel, inputs: Tensor, targets: Tensor) -> Evaluate:
    """The gradient of one sampler step."""
    weights = stack.start[None].to(inputs.device)
    return lambda: stack.gradient(stack.views(weights), inputs[None], targets[None])[0]


def plain_gradients(model: nn.Module, inputs: Tensor, targets: Tensor) -> Evaluate:
    """The same by plain autograd."""
    parameters = list(model.parameters())

    def evaluate() -> Tensor:
        found = torch.autograd.grad(cross_entropy(model(inputs), targets).mean(), parameters)
        return torch.cat([part.flatten() for part in found])

    return evaluate


def of_losses(found: Tensor, expected: Tensor) -> float:
    """The largest relative difference of per-sample losses."""
    return ((found - expected) / expected).abs().max().item()


def of_gradients(found: Tensor, expected: Tensor) -> float:
    """The relative distance of two gradients."""
    return ((found.flatten() - expected).norm() / expected.norm()).item()


def compare(
    rows: dict[str, Evaluate],
    count: int,
    repeats: int,
    clock: Callable[[], float],
    difference: Callable[[Tensor, Tensor], float] = of_losses,
) -> dict[str, float]:
    """Print images/s of every row, its ratio to the first and how far its results lie from the first's.

    Repeats go round all rows, so that a drift of the machine meets each alike; ratios are medians of those within
    a round.
    """
    found = {name: work() for name, work in rows.items()}
    first = next(iter(rows))
    times = {name: [] for name in rows}
    for _ in range(repeats):
        for name, work in rows.items():
            began = clock()
            work()
            times[name].append(clock() - began)
    print("| row | images/s | least disturbed | times the first | relative difference |\n|---|---|---|---|---|")
    rates = {}
    for name, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(times[first], own, strict=True))
        apart = difference(found[name], found[first])
        rates[name] = count / statistics.median(own)
        print(f"| {name} | {rates[name]:.0f} | {count / min(own):.0f} | {ratio:.2f} | {apart:.1e} |")
    return rates


def on_cpu(model: nn.Module, pixels: int, count: int, repeats: int, clock: Callable[[], float]) -> None:
    """Probes and gradients on the CPU."""
    device = torch.device("cpu")
    inputs, targets = torch.randn(count, 3, pixels, pixels), torch.arange(count) % CLASSES
    block = choose_block(model, inputs[:1], device)
    print(f"\n## {pixels} pixels, blocks of {block}, {torch.get_num_threads()} threads\n\nProbes:\n")
    stack = StackedModel(model, cross_entropy, 1, [name for name, _ in model.named_parameters()])
    plain = eager(model, inputs, targets, block)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    rows = {
        "plain eager loop": plain,
        "plain eager loop, channels last": eager(last, inputs.to(memory_format=torch.channels_last), targets, block),
        "losskernel, float32": ours(stack, inputs, targets, block, None),
        "plain eager loop, bfloat16": lowered(plain, device, torch.bfloat16),
        "losskernel, bfloat16": ours(stack, inputs, targets, block, torch.bfloat16),
    }
    compare(rows, count, repeats, clock)
    batch = min(64, count)
    print(f"\nGradients of a minibatch of {batch}:\n")
    rows = {
        "plain autograd": plain_gradients(model, inputs[:batch], targets[:batch]),
        "losskernel": gradients(stack, inputs[:batch], targets[:batch]),
    }
    compare(rows, batch, repeats, clock, of_gradients)


def on_cuda(model: nn.Module, pixels: int, count: int, repeats: int) -> None:
    """Probes on an accelerator, and the time of the paper's run projected from it."""
    device = torch.device("cuda")
    model = model.to(device)
    inputs, targets = torch.randn(count, 3, pixels, pixels, device=device), torch.arange(count, device=device) % CLASSES
    block = choose_block(model, inputs[:1], device)
    print(f"\n## {pixels} pixels, blocks of {block}, {torch.cuda.get_device_name(device)}\n")
    stack = StackedModel(model, cross_entropy, 1, [name for name, _ in model.named_parameters()]).to(device)
    plain = eager(model, inputs, targets, block)
    compiled = eager(torch.compile(model), inputs, targets, block)
    full, half = (ours(stack, inputs, targets, block, dtype) for dtype in (None, torch.bfloat16))

    def with_tf32(allowed: bool, work: Evaluate) -> Evaluate:
        def within() -> Tensor:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
            return work()

        return within

    rows = {
        "plain eager loop, float32": with_tf32(False, plain),
        "plain eager loop, TF32": with_tf32(True, plain),
        "plain eager loop, bfloat16": lowered(plain, device, torch.bfloat16),
        "compiled, TF32": with_tf32(True, compiled),
        "compiled, bfloat16": lowered(compiled, device, torch.bfloat16),
        "losskernel, float32": with_tf32(False, full),
        "losskernel, TF32": with_tf32(True, full),
        "losskernel, bfloat16": half,
    }

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    rates = compare(rows, count, repeats, clock)
    print(f"\nProbes of {PROBES:,} images x {DRAWS:,} draws:")
    for name, rate in rates.items():
        print(f"- {name}: {PROBES * DRAWS / rate / 3600:.1f} h")


def main() -> None:
    """Measure what this machine has, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; medians are shown")
    parser.add_argument("--processor-time", action="store_true", help="for a shared machine, with --threads 1")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = network()
    if torch.cuda.is_available():
        on_cuda(model, 224, 2048, arguments.repeats)
        return
    clock = time.process_time if arguments.processor_time else time.perf_counter
    on_cpu(model, 64, 512, arguments.repeats, clock)
    on_cpu(model, 224, 32, arguments.repeats, clock)


if __name__ == "__main__":
    main()
