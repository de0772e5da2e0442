from dataclasses import FrozenInstanceError, fields

import pytest

from losskernel import Schedule
from losskernel.errors import InputError


def test_a_chain_takes_its_burn_in_and_one_thinning_interval_a_draw() -> None:
    assert Schedule(chains=3, burn_in=7, draws=11, thinning=5, batch_size=2).steps == 7 + 11 * 5


def test_no_burn_in_and_two_draws_are_enough() -> None:
    assert Schedule(chains=1, burn_in=0, draws=2, thinning=1, batch_size=1, probe_batch_size=1).steps == 2


def test_a_schedule_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError, match="draws"):
        Schedule().draws = 7  # pyright: ignore[reportAttributeAccessIssue]


LENGTHS = [field.name for field in fields(Schedule) if field.name not in ("probe_precision", "step_check_share")]


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("value", [2.0, "2", True, None])
def test_a_length_must_be_a_whole_number(name: str, value: object) -> None:
    if value is None and name == "probe_batch_size":
        assert Schedule(probe_batch_size=None).probe_batch_size is None  # decided where the probes are known
        return
    with pytest.raises(InputError, match=f"schedule.{name} must be a whole number, got {value!r}; give a value"):
        Schedule(**{name: value})


@pytest.mark.parametrize("name", ["chains", "thinning", "batch_size", "probe_batch_size"])
def test_a_length_must_be_at_least_one(name: str) -> None:
    with pytest.raises(InputError, match=f"schedule.{name} must be >= 1, got 0; raise schedule.{name}"):
        Schedule(**{name: 0})


def test_the_burn_in_must_not_be_negative() -> None:
    with pytest.raises(InputError, match=r"schedule.burn_in must be >= 0, got -1"):
        Schedule(burn_in=-1)


def test_one_draw_has_no_covariance() -> None:
    message = "schedule.draws must be >= 2 to estimate a covariance, got 1; raise schedule.draws"
    with pytest.raises(InputError, match=message):
        Schedule(draws=1)


def test_the_precision_of_probes_is_one_of_three() -> None:
    assert Schedule().probe_precision == "float32"
    message = r"schedule.probe_precision must be one of float32, bfloat16, float16, got 'float8'; leave it float32"
    with pytest.raises(InputError, match=message):
        Schedule(probe_precision="float8")


@pytest.mark.parametrize(
    ("share", "message"), [(-0.1, "must be >= 0, got -0.1"), ("0.1", "must be a number"), (1e400, "must be finite")]
)
def test_the_share_of_the_step_checks_is_a_number(share: float, message: str) -> None:
    with pytest.raises(InputError, match=f"schedule.step_check_share {message}"):
        Schedule(step_check_share=share)
