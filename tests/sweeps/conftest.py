"""Settings of the tests that write run folders."""

from collections.abc import Iterator

import pytest

from losskernel.runs import folder


@pytest.fixture(autouse=True, scope="module")
def _small_pictures() -> Iterator[None]:
    """Save pictures with few pixels: writing them takes much of the time of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "DPI", 50)
        yield
