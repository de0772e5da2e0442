"""Error bars of any number computed from a kernel."""

from collections.abc import Callable

import numpy as np

from losskernel.kernel import LossKernel

Statistic = Callable[[LossKernel], dict[str, float]]
# With fewer chains than this, stretches of draws are left out instead of whole chains.
LEAST_PARTS = 4


def jackknife(kernel: LossKernel, statistic: Statistic) -> dict[str, float]:
    """Return the statistic's numbers, each `x` with its standard error `x_se`.

    Delete-one jackknife: chains are independent replicates, so each is left out in turn; with fewer than
    four chains, eight stretches of consecutive draws are. A deletion keeps nearly all draws, so that the
    Monte-Carlo floor of |R| hardly moves, as it would if each chain were judged alone.
    """
    parts = kernel.chains if kernel.chains >= LEAST_PARTS else min(8, kernel.draws // 2)
    values = statistic(kernel)
    if parts < 2:
        return values
    replicates = [statistic(kernel.without(part, parts)) for part in range(parts)]
    result: dict[str, float] = {}
    for name, value in values.items():
        spread = np.array([replicate[name] for replicate in replicates])
        result[name] = value
        result[f"{name}_se"] = float(np.sqrt((parts - 1) / parts * np.square(spread - spread.mean()).sum()))
    return result
