"""How long to sample: chains, burn-in, draws, thinning, batch size."""

from dataclasses import dataclass, fields

from losskernel.errors import require, require_integer

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Schedule:
    """The lengths of a sampling run; every chain takes `burn_in + draws * thinning` steps.

    Attributes:
        chains: independent chains, each with its own minibatches and noise.
        burn_in: sampler steps before the first draw's thinning interval; not recorded as draws.
        draws: recorded draws per chain; at each, the losses of all probes are stored.
        thinning: sampler steps from one draw to the next; a draw is the weights after its last step.
        batch_size: training samples per minibatch and chain.
        probe_batch_size: probes per forward pass when losses are recorded; None decides by memory and caches.
            Changes speed and rounding only.
        probe_precision: type in which the forward pass of probes multiplies, "float32" (the model's own),
            "bfloat16" or "float16" (autocast); never that of gradients. What it does to R is measured.

    Raises:
        InputError: a length is not a whole number or is too small to estimate a covariance; the precision is
            unknown.
    """

    chains: int = 4
    burn_in: int = 500
    draws: int = 400
    thinning: int = 5
    batch_size: int = 64
    probe_batch_size: int | None = None
    probe_precision: str = "float32"

    def __post_init__(self) -> None:
        least = {"burn_in": 0, "draws": 2}
        for field in fields(self):
            why = "to estimate a covariance" if field.name == "draws" else ""
            value = getattr(self, field.name)
            if field.type is str or (value is None and field.default is None):
                continue
            require_integer(f"schedule.{field.name}", value, at_least=least.get(field.name, 1), why=why)
        require(
            self.probe_precision in PRECISIONS,
            f"schedule.probe_precision must be one of {', '.join(PRECISIONS)}, got {self.probe_precision!r}; "
            "leave it float32 where losses must be exact",
        )

    @property
    def steps(self) -> int:
        """Sampler steps per chain."""
        return self.burn_in + self.draws * self.thinning
