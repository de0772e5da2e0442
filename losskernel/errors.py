"""Errors that a user can act on: each message names the key, the value and the remedy."""


class InputError(ValueError):
    """A setting, a dataset or a file does not fit; known before any compute."""


class DivergenceError(RuntimeError):
    """A chain or a training run left the finite numbers."""


class TraceError(RuntimeError):
    """A trace on disk is unfinished, belongs to another configuration, or cannot be written."""


class Interrupted(RuntimeError):
    """The user or a scheduler stopped a run; what was done is on disk and can be continued.

    Attributes:
        reason: what was stopped, and how far it had come.
        number: of the signal; 2 is Ctrl-C.
        remedy: how it is continued; "" where only the caller knows. A caller may set it anew.
    """

    def __init__(self, reason: str, number: int = 2, remedy: str = "") -> None:
        super().__init__(reason, number, remedy)
        self.reason, self.number, self.remedy = reason, number, remedy

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason


def require(condition: bool, message: str) -> None:
    """Raise InputError with `message` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def require_number(key: str, value: object, *, at_least: float | None = None, above: float | None = None) -> None:
    """Raise InputError unless `value` is a finite real number within the stated bound."""
    # bool is a subclass of int, and True is no step size.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(is_number, f"{key} must be a number, got {value!r}; give a value such as {key}=0.001")
    number = float(value)  # pyright: ignore[reportArgumentType]
    # False for infinities and NaN.
    require(number - number == 0.0, f"{key} must be finite, got {value!r}")
    if above is not None:
        require(number > above, f"{key} must be > {above:g}, got {value!r}; raise {key}")
    if at_least is not None:
        require(number >= at_least, f"{key} must be >= {at_least:g}, got {value!r}; raise {key}")


def require_integer(key: str, value: object, *, at_least: int, why: str = "") -> None:
    """Raise InputError unless `value` is a whole number of at least `at_least`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole, f"{key} must be a whole number, got {value!r}; give a value such as {key}={max(at_least, 1)}")
    reason = f" {why}" if why else ""
    require(value >= at_least, f"{key} must be >= {at_least}{reason}, got {value}; raise {key}")  # pyright: ignore[reportOperatorIssue]
