"""A digest of any Python object that two processes agree on: its state, and the code that it would run.

Pickle bytes do not serve: they name functions without their code, and depend on the order of sets and on shared
references. Code of installed packages is known by its name, since their versions are stored with every run; all other
code is known by its bytecode, constants, closures, and the global names that it reads.
"""

import copyreg
import enum
import functools
import hashlib
import inspect
import logging
import sys
import sysconfig
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_INSTALLED = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_PACKAGE = Path(__file__).parents[1].name
# Of a class: what differs between processes, or says nothing of what an instance does.
_SKIPPED = {
    "__dict__",
    "__weakref__",
    "__module__",
    "__doc__",
    "__annotations__",
    "__abstractmethods__",
    "_abc_impl",
    "__slotnames__",
}
_BUILTIN = (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType, types.ModuleType)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range, slice, np.dtype)
_TORCH = (torch.dtype, torch.device, torch.memory_format, torch.layout, torch.Size)


class UnknownIdentity(Exception):
    """An object whose state or code cannot be read; the message says which."""


def object_digest(*values: Any) -> str:
    """Return a short hash of objects; equal in any process for objects that behave alike.

    Args:
        values: data, functions, partials, lambdas, callable objects, networks, ..., and what they refer to.

    Raises:
        UnknownIdentity: a part has neither readable state nor readable code, such as an open file or a generator.
    """
    try:
        return _Digest().of(values).hex()[:16]
    except RecursionError as error:
        raise UnknownIdentity("its parts are nested too deeply") from error


def stored_digest(*values: Any) -> str:
    """Return the digest, or the words "unknown (reason)", which `differences` takes for unequal to everything."""
    try:
        return object_digest(*values)
    except UnknownIdentity as error:
        return f"unknown ({error})"


class _Digest:
    """One pass over objects that may refer to one another."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}  # id -> number in the order of first sight
        self._alive: list[Any] = []  # an id may be given anew once its object is gone

    def of(self, value: Any) -> bytes:
        """Return the digest of one object."""
        if isinstance(value, (*_PLAIN, *_TORCH)):
            return _hash(type(value).__name__, repr(value))
        if _is_plain(value):
            return _hash("plain", repr(value))
        # Tuples are compared by value: which equal ones are one object differs between processes.
        if not isinstance(value, tuple):
            if id(value) in self._seen:  # a cycle, or a second reference
                return _hash("seen", str(self._seen[id(value)]))
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)
        return _hash(type(value).__qualname__, *self._parts(value))

    def _parts(self, value: Any) -> Iterator[bytes | str]:
        """Yield what an object is made of."""
        if isinstance(value, (Tensor, np.ndarray, np.generic)):
            yield from self._numbers(value)
        elif isinstance(value, torch.jit.ScriptModule):
            yield from (self.of(str(module.code)) for module in value.modules() if hasattr(module, "code"))
            yield self.of(value.state_dict())
        elif isinstance(value, nn.Module):
            yield from self._network(value)
        elif isinstance(value, logging.Logger):  # writes, but does not change what is computed
            yield value.name
        elif isinstance(value, Mapping):
            # In their order: that of a network's modules matters, and the same program gives the same.
            yield from (part for key, entry in value.items() for part in (self.of(key), self.of(entry)))
            yield from self._instance(value)
        elif isinstance(value, (list, tuple)):
            yield from map(self.of, value)
            yield from self._instance(value)
        elif isinstance(value, (set, frozenset)):
            yield from sorted(_Digest().of(entry) for entry in value)
        elif isinstance(value, functools.partial):
            yield from map(self.of, (value.func, value.args, sorted(value.keywords.items())))
        elif isinstance(value, types.MethodType):
            yield from map(self.of, (value.__func__, value.__self__))
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, types.CodeType):
            yield from self._code(value)
        elif isinstance(value, (staticmethod, classmethod)):
            yield self.of(value.__func__)
        elif isinstance(value, property):
            yield from map(self.of, (value.fget, value.fset))
        elif isinstance(value, _BUILTIN):
            yield from (str(getattr(value, "__module__", "")), getattr(value, "__qualname__", value.__name__))
            if not isinstance(owner := getattr(value, "__self__", None), (types.ModuleType, type(None))):
                yield self.of(owner)  # a method of one object
        elif isinstance(value, weakref.ReferenceType):
            yield self.of(value())
        elif isinstance(value, enum.Enum):
            yield from (self.of(type(value)), value.name)
        else:
            yield self.of(type(value))
            yield from self._state(value)

    def _numbers(self, value: Any) -> Iterator[bytes | str]:
        """Yield type, shape and bytes of numbers, whatever numpy can or cannot hold."""
        if not isinstance(value, Tensor):
            yield from (str(value.dtype), str(value.shape))
            whole = value.dtype.hasobject
            yield from map(self.of, value.reshape(-1)) if whole else (np.ascontiguousarray(value).tobytes(),)
            return
        if value.is_meta:
            raise UnknownIdentity("a tensor on the meta device has no values")
        yield from (str(value.dtype), str(tuple(value.shape)), str(value.layout))
        value = value.detach().cpu()
        if value.is_sparse:
            value = value.coalesce()
            yield from map(self.of, (value.indices(), value.values()))
        elif value.layout != torch.strided:
            yield self.of(value.to_sparse())
        elif value.is_quantized:
            yield from map(self.of, (value.int_repr(), str(value.qscheme()), value.dequantize()))
        else:
            plain = value.resolve_conj().resolve_neg().contiguous()
            # As bytes: numpy has no bfloat16.
            yield plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else ""

    def _network(self, network: nn.Module) -> Iterator[bytes]:
        """Yield the forward code and the whole state of a module, but for what a forward in evaluation mode ignores."""
        yield self.of(type(network))
        yield self.of(type(network).forward)  # of an installed class it may have been replaced
        ignored = {"training", *_lightning_attributes(network)}
        for name, value in vars(network).items():
            if name in ignored:
                continue
            # Hooks are kept under numbers that count all hooks of the process.
            yield self.of((name, list(value.values()) if name.endswith("_hooks") else value))

    def _function(self, function: types.FunctionType) -> Iterator[bytes | str]:
        yield function.__qualname__
        if _is_installed(function):
            yield str(function.__module__)
            return
        yield from map(self.of, (function.__code__, function.__defaults__, function.__kwdefaults__))
        for cell in function.__closure__ or ():
            try:
                yield self.of(cell.cell_contents)
            except ValueError:
                yield b"empty"
        names = list(_names(function.__code__))
        for name in names:
            if name in function.__globals__:
                value = function.__globals__[name]
                yield self.of((name, value))
                if isinstance(value, types.ModuleType) and not _is_installed(value):
                    # Which attributes are read from it the bytecode does not say: all that bear one of the names.
                    yield from (self.of((other, getattr(value, other))) for other in names if hasattr(value, other))

    def _class(self, kind: type) -> Iterator[bytes | str]:
        yield from (str(kind.__module__), kind.__qualname__)
        if _is_installed(kind):
            return
        yield from map(self.of, kind.__bases__)
        for name, value in sorted(vars(kind).items()):
            descriptor = isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType))
            if name not in _SKIPPED and not descriptor:
                yield self.of((name, value))

    def _code(self, code: types.CodeType) -> Iterator[bytes]:
        yield code.co_code
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        yield from map(self.of, (*counts, code.co_consts, code.co_names, code.co_varnames, code.co_freevars))

    def _instance(self, value: Any) -> Iterator[bytes]:
        """Yield class and attributes of an instance of a subclass of a built-in container."""
        if type(value) not in (dict, list, tuple):
            yield from map(self.of, (type(value), vars(value) if hasattr(value, "__dict__") else None))

    def _state(self, value: Any) -> Iterator[bytes]:
        """Yield the state that pickle would keep."""
        try:
            reducer = copyreg.dispatch_table.get(type(value))
            reduced = value.__reduce_ex__(4) if reducer is None else reducer(value)
        except Exception as error:
            raise UnknownIdentity(f"{type(value).__module__}.{type(value).__qualname__}: {error}") from error
        if isinstance(reduced, str):  # the name of a global object
            yield reduced.encode()
            return
        build, arguments, *more = reduced
        yield from map(self.of, (build, arguments))
        # State; then list and dictionary items, which come as iterators.
        yield from (self.of(part if not isinstance(part, Iterator) else list(part)) for part in more[:3])


def _hash(*parts: bytes | str) -> bytes:
    result = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        result.update(len(content).to_bytes(8, "little") + content)
    return result.digest()


def _is_plain(value: Any) -> bool:
    """Whether it is a list or tuple of plain values, such as the names of a million files: hashed at once."""
    if type(value) not in (list, tuple):
        return False
    return all(type(part) in _PLAIN or (type(part) is tuple and _is_plain(part)) for part in value)


def _names(code: types.CodeType) -> Iterable[str]:
    """Return the global and attribute names in a function's code and in the functions that it defines, sorted."""
    inner = [names for part in code.co_consts if isinstance(part, types.CodeType) for names in _names(part)]
    return sorted({*code.co_names, *inner})


def _is_installed(value: Any) -> bool:
    """Whether the name says all: of the standard library, an installed package or losskernel, and found there."""
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    module = sys.modules.get(str(name))
    if module is None or not _is_library(module):
        return False
    if isinstance(value, types.ModuleType):
        return True
    # Functions that a library makes inside others have closures of their own, which no name can say.
    try:
        return inspect.unwrap(_attribute(module, value.__qualname__)) is inspect.unwrap(value)
    except AttributeError:
        return False


def _is_library(module: types.ModuleType) -> bool:
    root = str(module.__name__).partition(".")[0]
    if root == _PACKAGE or root in sys.builtin_module_names or root in sys.stdlib_module_names:
        return True
    return str(getattr(module, "__file__", None) or "").startswith(_INSTALLED)


def _attribute(value: Any, name: str) -> Any:
    for part in name.split("."):
        value = inspect.getattr_static(value, part)
        value = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    return value


@functools.cache
def _lightning_names() -> frozenset[str]:
    import pytorch_lightning as pl

    return frozenset(vars(pl.LightningModule())) - frozenset(vars(nn.Module()))


def _lightning_attributes(network: nn.Module) -> frozenset[str]:
    """Return the attributes in which a LightningModule keeps its trainer and the like."""
    lightning = sys.modules.get("pytorch_lightning")
    return _lightning_names() if lightning and isinstance(network, lightning.LightningModule) else frozenset()
