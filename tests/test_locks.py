"""Two processes never write one run's folder; a lock dies with its process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import losskernel_command

from losskernel.errors import TraceError
from losskernel.locks import LOCK, only_one

pytest.importorskip("fcntl", reason="this system has no locks on files")

HOLDER = """
import sys, time
from pathlib import Path
from losskernel.locks import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> "subprocess.Popen[str]":
    """Another process that works in the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process  # pyright: ignore[reportReturnType]
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_by_name_until_the_first_is_dead(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    message = rf"is being written by process {holder.pid} on \S+; wait for it, or choose another folder with paths\.run"
    with pytest.raises(TraceError, match=message), only_one(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)  # it cannot tidy up
    holder.wait()
    with only_one(tmp_path):
        assert "process" in (tmp_path / LOCK).read_text()
    assert (tmp_path / LOCK).read_text() == ""


def test_the_command_line_says_it_in_one_line(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    words = ("training.steps=5", "schedule=none", "analysis=[]", "points=none", "logger=none", "progress=false")
    done = losskernel_command(*words, f"paths.run={tmp_path}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"losskernel: {tmp_path} is being written by process {holder.pid}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "config.yaml").exists()
