"""The one table of configuration keys: what each decides, and what it is called.

Resuming, joining, comparing, naming, recording, calibrating and prefetching ask this table; none of them keeps a list
of its own. A key below another one (`dataset.workers`) has the role of its nearest row; a key without any row decides
the chains, so that a difference in what nobody knows is refused rather than passed over.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Any


class Role(Enum):
    """What a value changes."""

    CHAINS = "the numbers of every chain"
    SELECTION = "which chains of a kernel a run samples"
    INPUTS = "what analyses may read besides the traces"
    ANALYSES = "what is computed from the traces"
    EXECUTION = "how it is executed, no number"
    OUTPUT = "where results go and what they are called, no number"
    COMMAND = "the command line alone"


class Use(Flag):
    """Further uses of a key."""

    NONE = 0
    CALIBRATION = auto()  # calibrated sampler settings hold for its value alone
    DOWNLOAD = auto()  # its value may name a file or package to fetch
    PER_JOB = auto()  # each job of a sweep around a finished run has its own
    HEADING = auto()  # shown on pages of a sweep around a finished run, where all other keys agree
    CLASS_NAME = auto()  # recorded in W&B by the name of its class: `model_name`
    SHORT_NAME = auto()  # recorded in W&B, where it is a number, by its last word: `localization`
    QUIET = auto()  # left out of the command line that a page repeats


class Build(Enum):
    """How a key becomes a field of a Study."""

    PART = "one object of a group"
    PARTS = "name -> object, of a group of which several may be chosen"
    VALUE = "its value"


@dataclass(frozen=True)
class ConfigKey:
    """A row of the table.

    Attributes:
        name: dotted, as on the command line.
        role: what its value changes.
        use: further uses.
        build: how it becomes a field of a Study; None where it does not.
        field: the field, where it is called otherwise than the key.
        identity: parts of a trace's identity that it decides.
        absent: the value of configurations that were written before the key existed.
        label: its name on an axis; "" for its last word.
        symbol: its name in a legend or a run's name; "" for its label or last word.
        repetition: its name before a value, and of several, where it tells repetitions of one setting apart.
    """

    name: str
    role: Role
    use: Use = Use.NONE
    build: Build | None = None
    field: str = ""
    identity: tuple[str, ...] = ()
    absent: Any = None
    label: str = ""
    symbol: str = ""
    repetition: tuple[str, str] | None = None


NBETA = "sampler.nbeta"
CHECKPOINT = "checkpoint"

_PART, _PARTS, _VALUE = Build.PART, Build.PARTS, Build.VALUE
_NAMED, _SHORT, _QUIET = Use.CLASS_NAME, Use.SHORT_NAME, Use.QUIET
_FETCHED, _CALIBRATED = Use.DOWNLOAD, Use.CALIBRATION

# The model comes first: the seed makes its initial weights before anything else draws a number.
KEYS: list[ConfigKey] = [
    ConfigKey("model", Role.CHAINS, _NAMED | _FETCHED | _CALIBRATED, _PART, identity=("model",)),
    ConfigKey(
        "dataset", Role.CHAINS, _NAMED | _FETCHED | _CALIBRATED, _PART, "data", identity=("model", "data", "sampler")
    ),
    ConfigKey("dataset.workers", Role.EXECUTION),
    ConfigKey("dataset.cache", Role.EXECUTION),
    ConfigKey("dataset.seed", Role.CHAINS, label="data seed", repetition=("data seed", "data seeds")),
    ConfigKey("wrapper", Role.CHAINS, _FETCHED, _PARTS, "wrappers", identity=("model", "data", "sampler"), absent={}),
    ConfigKey("training", Role.CHAINS, _CALIBRATED, _PART, identity=("model",)),
    ConfigKey(CHECKPOINT, Role.CHAINS, _FETCHED | _CALIBRATED | Use.PER_JOB, _VALUE, identity=("model",)),
    ConfigKey("sampler", Role.CHAINS, _NAMED, _PART, identity=("sampler",)),
    ConfigKey("sampler.localization", Role.CHAINS, _SHORT, label="localization γ", symbol="γ"),
    ConfigKey(NBETA, Role.CHAINS, _SHORT, label="inverse temperature nβ", symbol="nβ"),
    ConfigKey("sampler.step_size", Role.CHAINS, _SHORT, label="step size ε", symbol="ε"),
    ConfigKey("schedule", Role.CHAINS, build=_PART, identity=("sampler",)),
    ConfigKey("schedule.chains", Role.SELECTION, _SHORT),
    ConfigKey("schedule.burn_in", Role.CHAINS, _SHORT, label="burn-in, steps"),
    ConfigKey("schedule.draws", Role.CHAINS, _SHORT, label="draws per chain"),
    ConfigKey("schedule.thinning", Role.CHAINS, _SHORT, label="thinning, steps"),
    ConfigKey("schedule.batch_size", Role.CHAINS, _SHORT, label="batch size"),
    # Earlier versions measured as much as any share allows, which agrees but for noise.
    ConfigKey("schedule.step_check_share", Role.CHAINS, absent=0.1),
    ConfigKey("seed", Role.CHAINS, Use.HEADING, _VALUE, identity=("model", "data"), repetition=("seed", "seeds")),
    ConfigKey(
        "chain_offset",
        Role.SELECTION,
        build=_VALUE,
        absent=0,
        label="first chain",
        repetition=("chains from", "jobs"),
    ),
    ConfigKey("baselines", Role.INPUTS, _FETCHED, _PARTS),
    ConfigKey("points", Role.INPUTS, _FETCHED, _PARTS),
    ConfigKey("analysis", Role.ANALYSES, _FETCHED, _PARTS, "analyses"),
    ConfigKey("label", Role.ANALYSES, _FETCHED | Use.HEADING),
    ConfigKey("control", Role.ANALYSES, Use.PER_JOB, _VALUE),
    ConfigKey("on_fail", Role.ANALYSES, build=_VALUE),
    ConfigKey("trainer", Role.EXECUTION, build=_PART),
    ConfigKey("chains_per_fit", Role.EXECUTION, build=_VALUE),
    ConfigKey("threads", Role.EXECUTION, _QUIET),
    ConfigKey("progress", Role.EXECUTION, _QUIET, _VALUE),
    ConfigKey("state_every", Role.EXECUTION, build=_VALUE),
    ConfigKey("logger", Role.OUTPUT, _QUIET),
    ConfigKey("name", Role.OUTPUT, Use.HEADING),
    ConfigKey("paths", Role.OUTPUT, _QUIET | Use.PER_JOB),
    ConfigKey("hydra", Role.OUTPUT, _QUIET),
    ConfigKey("calibrated", Role.COMMAND),
    ConfigKey("experiment", Role.COMMAND),
    ConfigKey("into", Role.COMMAND),
    ConfigKey("rounds", Role.COMMAND),
    ConfigKey("gradients", Role.COMMAND),
]

# Roles whose keys a resumed run must repeat, jobs of one kernel must share, and a comparison may vary.
RESUMED = (Role.CHAINS, Role.SELECTION)
JOINED = (Role.CHAINS,)
COMPARED = (Role.CHAINS, Role.SELECTION, Role.INPUTS)
# Roles whose keys a finished run must repeat to count as done.
DONE = (Role.CHAINS, Role.SELECTION, Role.INPUTS, Role.ANALYSES, Role.COMMAND)

# Where classes lay in earlier versions, and where they lie now: stored configurations name the former.
MOVED = {
    "losskernel.baselines.": "losskernel.representations.baselines.",
    "losskernel.influence.": "losskernel.representations.baselines.",
    "losskernel.perturbations.": "losskernel.representations.baselines.",
    "losskernel.retraining.": "losskernel.representations.baselines.",
    "losskernel.sources.": "losskernel.representations.sources.",
    "losskernel.suspicion.": "losskernel.representations.scores.",
    "losskernel.cli.sweeps.": "losskernel.cli.",
    "losskernel.tracking.": "losskernel.runs.tracking.",
    "losskernel.wandb_tracker.": "losskernel.runs.tracking.",
    "losskernel.samplers.": "losskernel.",
}


def row(key: str) -> ConfigKey:
    """Return the nearest row of a dotted key: its own, else that of a part it lies in."""
    rows = {known.name: known for known in KEYS}
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        if (known := rows.get(".".join(parts[:end]))) is not None:
            return known
    return ConfigKey(key, Role.CHAINS)


def with_use(use: Use, below: str = "") -> list[str]:
    """Return the names of keys with a use, in the table's order; of those below a part of the configuration."""
    return [known.name for known in KEYS if use in known.use and known.name.startswith(below)]


def with_build(build: Build) -> dict[str, str]:
    """Return key -> field of a Study of the keys that are built in one way."""
    return {known.name: known.field or known.name for known in KEYS if known.build is build}


def label_of(key: str) -> str:
    """Return the name of a key on an axis."""
    exact = {known.name: known.label for known in KEYS}
    return exact.get(key) or key.removesuffix("._target_").rsplit(".", 1)[-1].replace("_", " ")


def symbol_of(key: str, otherwise: str) -> str:
    """Return the symbol of a key, or another name where it has none."""
    return next((known.symbol for known in KEYS if known.name == key and known.symbol), otherwise)


def deciding(part: str) -> list[str]:
    """Return the names of keys that decide a part of a trace's identity."""
    return [known.name for known in KEYS if part in known.identity]


def repetitions() -> dict[str, tuple[str, str]]:
    """Return the keys that tell repetitions of one setting apart -> (name before a value, name of several)."""
    return {known.name: known.repetition for known in KEYS if known.repetition}


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return a nested configuration with dotted keys; lists count as one value."""
    result: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{above}{name}"
        result |= flat(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return result


def part_of(config: Mapping[str, Any], roles: Collection[Role], above: str = "") -> dict[str, Any]:
    """Return the part of a nested configuration whose keys have one of some roles, nested as it was."""
    result: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{above}{name}"
        below = any(known.name.startswith(f"{key}.") and known.role is not row(key).role for known in KEYS)
        if isinstance(value, Mapping) and below:
            if kept := part_of(value, roles, f"{key}."):
                result[name] = kept
        elif row(key).role in roles:
            result[name] = value
    return result


def with_absent(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in which keys that older versions did not know have the value they stand for."""
    whole = dict(config)
    for known in (known for known in KEYS if known.absent is not None):
        group, _, name = known.name.rpartition(".")
        if not group:
            whole[name] = whole.get(name) or known.absent
        elif whole.get(group):  # a group that was not chosen stays so
            whole[group] = {name: known.absent, **whole[group]}
    return whole


def current_classes(config: Any) -> Any:
    """Return a stored configuration whose `_target_` values name classes where they lie in this version."""
    if isinstance(config, Mapping):
        return {key: _moved(value) if key == "_target_" else current_classes(value) for key, value in config.items()}
    if isinstance(config, list):
        return [current_classes(value) for value in config]
    return config


def _moved(target: Any) -> Any:
    old = next((prefix for prefix in MOVED if str(target).startswith(prefix)), None)
    return target if old is None else MOVED[old] + str(target).removeprefix(old)
