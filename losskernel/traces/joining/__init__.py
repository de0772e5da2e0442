"""Chains of one kernel that several jobs sampled: what must agree between them, and the trace of all of them."""

from losskernel.traces.joining.compatibility import few, inward, unlike
from losskernel.traces.joining.join import join
from losskernel.traces.joining.provenance import JOINED, as_one_job, digest, span

__all__ = ["JOINED", "as_one_job", "digest", "few", "inward", "join", "span", "unlike"]
