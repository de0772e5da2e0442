"""Chains of one kernel that several jobs sampled: what must agree between them, and the trace of all of them."""

from losskernel.joining.agreement import few, flat, inward, unlike
from losskernel.joining.chains import join
from losskernel.joining.provenance import JOINED, as_one_job, digest, span

__all__ = ["JOINED", "as_one_job", "digest", "few", "flat", "inward", "join", "span", "unlike"]
