"""Waiting for jobs: the dead, the requeued, the held, and a scheduler that says nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from losskernel.cli.launchers.queue import GONE, SlurmQueue, Watch


class Cluster:
    """A scheduler that plays a part: at each look the next line of states; the last stays."""

    def __init__(self, *looks: Mapping[str, str] | None, results: Mapping[str, int] = {}, grace: float = 30) -> None:
        self._looks, self._results, self._now, self._look = looks, results, 0.0, -1
        self.said: list[str] = []
        self.asked: list[Sequence[str]] = []
        ids = sorted({job for look in looks for job in look or ()} | set(results))
        self.watch = Watch(ids, self.ask, self.has_result, grace=grace, say=self.said.append, clock=lambda: self._now)

    def ask(self, ids: Sequence[str]) -> Mapping[str, str] | None:
        self.asked.append(ids)
        return self._looks[min(self._look, len(self._looks) - 1)]

    def has_result(self, job: str) -> bool:
        return self._look >= self._results.get(job, 10**6)

    def wait(self, seconds: float = 10) -> dict[str, str]:
        self._look = 0

        def sleep(_: float) -> None:
            assert self._look < 100, "it waits for ever"
            self._now += seconds
            self._look += 1

        return self.watch.wait(15, sleep)

    @property
    def looks(self) -> int:
        return self._look + 1


def test_all_are_waited_for_though_one_died_at_once() -> None:
    at_first = {"7_0": "FAILED", "7_1": "RUNNING"}
    cluster = Cluster(*[at_first] * 8, at_first | {"7_1": "COMPLETED"}, results={"7_1": 8})
    assert cluster.wait() == {"7_0": "FAILED"}
    assert cluster.looks == 9  # its own grace time is long over when the other ends
    assert cluster.said == [
        "job 7_0 is FAILED, without result; for 30 s it may be requeued",
        "1 of 2 jobs have ended",
    ]


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", GONE])
def test_the_last_one_to_die_has_its_grace_time(state: str) -> None:
    look: dict[str, str] = {"7": "RUNNING"}
    after: dict[str, str] = {} if state == GONE else {"7": state}
    cluster = Cluster(look, after)
    assert cluster.wait() == {"7": state}
    assert cluster.looks == 5  # seen dead at the second look, and given up 30 s later


def test_one_that_is_requeued_after_its_death_counts_as_what_it_ends_as() -> None:
    dead, alive = {"7": "FAILED"}, {"7": "RUNNING"}
    cluster = Cluster(
        alive, dead, dead, {"7": "PENDING"}, alive, alive, alive, alive, {"7": "COMPLETED"}, results={"7": 8}
    )
    assert cluster.wait() == {}
    assert cluster.said[1:] == ["job 7 is in the queue again", "1 of 1 jobs have ended"]


def test_a_second_death_has_a_grace_time_of_its_own() -> None:
    dead, alive = {"7": "FAILED"}, {"7": "RUNNING"}
    cluster = Cluster(dead, dead, alive, dead)
    assert cluster.wait() == {"7": "FAILED"}
    assert cluster.looks == 7


def test_one_that_left_a_result_and_is_at_work_again_is_waited_for() -> None:
    over = {"7_0": "COMPLETED", "7_1": "RUNNING"}
    again = {"7_0": "PENDING", "7_1": "COMPLETED"}
    both = {"7_0": "COMPLETED", "7_1": "COMPLETED"}
    cluster = Cluster(over, over, again, again, again, both, results={"7_0": 1, "7_1": 2})
    assert cluster.wait() == {}
    assert cluster.looks == 6
    assert Cluster({"7": "COMPLETING"}, results={"7": 0}).wait() == {}  # it is only tidied away


def test_a_silent_scheduler_ends_nobody() -> None:
    cluster = Cluster({"7": "RUNNING"}, *[None] * 20, {"7": "RUNNING"}, {"7": "COMPLETED"}, results={"7": 22})
    assert cluster.wait(seconds=100) == {}
    assert cluster.said == [
        "the scheduler does not answer; waiting goes on",
        "the scheduler answers again",
        "1 of 1 jobs have ended",
    ]
    assert Cluster(None, results={"7": 2}).wait() == {}  # results speak for themselves
    once = Cluster({"7": "RUNNING"}, None, {"7": "RUNNING"}, {"7": "COMPLETED"}, results={"7": 3})
    assert once.wait() == {}
    assert not any("answer" in line for line in once.said)


def test_a_dead_one_is_not_given_up_while_nobody_answers() -> None:
    cluster = Cluster({"7": "FAILED"}, *[None] * 9, {"7": "RUNNING"}, {}, results={"7": 11})
    assert cluster.wait() == {}


def test_a_held_one_is_named_once_and_waited_for() -> None:
    held = {"7": "HELD"}
    cluster = Cluster(held, held, held, {"7": "RUNNING"}, {"7": "COMPLETED"}, results={"7": 4})
    assert cluster.wait() == {}
    assert cluster.said[0] == "job 7 is held; `scontrol release 7` lets it go on"
    assert len(cluster.said) == 2


def test_only_those_without_result_are_asked_after() -> None:
    cluster = Cluster({"7_0": "RUNNING", "7_1": "RUNNING"}, {}, results={"7_0": 1, "7_1": 2})
    cluster.wait()
    assert cluster.asked == [["7_0", "7_1"], ["7_1"], []]


# --- what SLURM says


def slurm(
    squeue: tuple[int, str, str], sacct: tuple[int, str, str] = (1, "", "accounting storage is disabled")
) -> SlurmQueue:
    return SlurmQueue("12", lambda command: squeue if command[0] == "squeue" else sacct)


FORGOTTEN = (1, "", "slurm_load_jobs error: Invalid job id specified\n")


def test_squeue_is_read() -> None:
    said = (
        "12_0|RUNNING|None\n12_1|PENDING|Resources\n12_2|PENDING|launch failed requeued held\n"
        "12_3|PENDING|JobHeldUser\n12_4|REQUEUE_HOLD|None\n12_5|FAILED|NonZeroExitCode\n"
    )
    known = slurm((0, said, ""))([])
    assert known is not None
    assert list(known.values()) == ["RUNNING", "PENDING", "HELD", "HELD", "HELD", "FAILED"]
    assert slurm((0, "12|COMPLETED|None\n", ""))(["12"]) == {"12": "COMPLETED"}


def test_what_slurm_has_forgotten_the_accounting_may_know() -> None:
    records = "12_0|OUT_OF_MEMORY\n12_1|CANCELLED by 1000\n12_2|RUNNING\n"
    ids = ["12_0", "12_1", "12_2", "12_3"]
    ends = {"12_0": "OUT_OF_MEMORY", "12_1": "CANCELLED"}
    assert slurm(FORGOTTEN, (0, records, ""))(ids) == ends  # what is at work for it alone is a record left behind
    assert slurm((0, "12_2|RUNNING|None\n", ""), (0, records, ""))(ids) == ends | {"12_2": "RUNNING"}
    assert slurm(FORGOTTEN)(ids) == {}


def test_silence_is_not_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm((1, "", "slurm_load_jobs error: Unable to contact slurm controller"))(["12"]) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert SlurmQueue("12")(["12"]) is None  # no squeue at all
