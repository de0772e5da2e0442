"""What is wrong with a part of the configuration by the signatures of what it names alone, before any of it is made."""

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig

_TRUTH, _TRUTH_OR_NONE = (bool, "bool"), (bool | None, "bool | None", "Optional[bool]")


def signature_faults(key: str, node: Any) -> list[str]:
    """Return what is wrong with the `_target_`s of a node and below, by their signatures alone."""
    if isinstance(node, ListConfig):
        return [fault for place, item in enumerate(node) for fault in signature_faults(f"{key}[{place}]", item)]
    if not isinstance(node, DictConfig):
        return []
    faults = [fault for name in node for fault in signature_faults(f"{key}.{name}", node[name])]
    if "_target_" not in node:
        return faults
    target = node["_target_"]
    try:
        logging.getLogger("hydra.utils").disabled = True  # it would print the error that is reported here
        called = get_object(str(target))
    except Exception as error:  # a bad target fails in as many ways as imports do
        reason = " ".join(str(error).split())
        remedy = "give module.name, and put the folder of your own modules on PYTHONPATH"
        return [*faults, f"{key}._target_={target} cannot be imported ({reason}); {remedy}"]
    finally:
        logging.getLogger("hydra.utils").disabled = False
    try:
        parameters = inspect.signature(called).parameters
    except ValueError:  # something written in C, which tells nothing before it is called
        return faults
    except TypeError:
        return [*faults, f"{key}._target_={target} is a {type(called).__name__}; give a class or a function"]
    return faults + _arguments(key, node, str(target), parameters)


def _arguments(key: str, node: DictConfig, target: str, parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Return which arguments are unknown, missing, or no truth values where only these are taken."""
    given = [str(name) for name in node if not str(name).startswith("_")]
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = [name for name, each in parameters.items() if each.kind not in variable]
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    choices = ", ".join(named) or "none, and leave it out"
    faults = [
        f"{key}.{name}={node[name]}: {target} has no such argument; choose from {choices}"
        for name in given
        if name not in named and not takes_any
    ]
    faults += [
        f"{key}.{name} must be true or false, got {node[name]!r}"
        for name in given
        if name in named and not _fits(parameters[name], node[name])
    ]
    missing = [name for name in named if parameters[name].default is inspect.Parameter.empty and name not in given]
    if missing and not node.get("_partial_", False) and "_args_" not in node:
        faults.append(f"{key}: {target} needs {', '.join(missing)}; set {key}.{missing[0]}=...")
    return faults


def _fits(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether a value may be an argument by what is said of truth values: any other word would count as true."""
    if parameter.annotation not in (*_TRUTH, *_TRUTH_OR_NONE) or isinstance(value, (bool, DictConfig)):
        return True
    return value is None and (parameter.annotation in _TRUTH_OR_NONE or parameter.default is None)
