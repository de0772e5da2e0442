"""Per-sample losses: (outputs, targets) -> [B], differentiable and safe under torch.func.vmap."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from losskernel.errors import require


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared error, summed over output dimensions: outputs [B, ...], targets [B, ...] -> [B].

    Raises:
        InputError: outputs and targets hold different numbers of values (broadcasting would hide it).
    """
    require(
        outputs.numel() == targets.numel(),
        f"squared_error needs as many outputs as targets, got shapes {tuple(outputs.shape)} and "
        f"{tuple(targets.shape)}; give the model as many outputs as a target has values",
    )
    # [B, values], so that targets [B] pair with outputs [B, 1] sample by sample.
    difference = outputs.reshape(outputs.shape[0], -1) - targets.reshape(targets.shape[0], -1)
    return 0.5 * difference.square().sum(1)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats that keeps tiny losses: logits [B, K], classes [B] (int64) -> [B].

    softplus(logsumexp over j != y of (z_j - z_y)) equals -log softmax(z)_y, but where the margin passes
    about 17 nats float32 log_softmax rounds to exactly 0, and a kernel of zeros has no correlation.

    Raises:
        InputError: logits are not [B, K] with K >= 2, or the targets are not whole numbers.
    """
    require(
        outputs.ndim == 2 and outputs.shape[1] >= 2,
        f"cross_entropy needs logits [batch, classes >= 2], got shape {tuple(outputs.shape)}; "
        "set the model's outputs to the number of classes",
    )
    require(
        not targets.is_floating_point(),
        f"cross_entropy needs class numbers as targets, got {targets.dtype}; convert them with .long()",
    )
    targets = targets.long()[:, None]
    own = targets == torch.arange(outputs.shape[1], device=outputs.device)
    # z_j - z_y, [B, K]
    margins = outputs - outputs.gather(1, targets)
    # Beyond its threshold softplus(x) is x; at the default of 20 that is off by 2e-9, which float64 can tell.
    return softplus(torch.logsumexp(margins.masked_fill(own, -torch.inf), dim=1), threshold=40)
