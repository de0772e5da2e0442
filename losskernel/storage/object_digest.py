"""A digest of any Python object that two processes agree on: its state, and the code that it would run.

Pickle bytes do not serve: they name functions without their code, and depend on the order of sets and on shared
references. Code of installed packages is known by its name, since their versions are stored with every run; all other
code is known by its bytecode, constants, closures, and the global names that it reads.
"""

import copyreg
import dis
import enum
import functools
import hashlib
import inspect
import logging
import os
import sys
import sysconfig
import types
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_INSTALLED = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_MAPPED_BYTES = 2**28  # of a mapped file beyond which its name, size and time stand for its content
_PACKAGE = Path(__file__).parents[1].name
# Of a class: what differs between processes, or says nothing of what an instance does.
_SKIPPED = {
    *("__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__abstractmethods__", "_abc_impl"),
    *("__slotnames__", "__firstlineno__", "__static_attributes__"),
}
# Where the code of an instance is entered; what none of them reaches does not count.
_ENTRIES = ("forward", "__call__", "__getitem__", "__getitems__", "__len__", "__iter__")
_BUILTIN = (
    *(types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType, types.ModuleType),
    *(types.ClassMethodDescriptorType, types.MethodWrapperType, types.GetSetDescriptorType),
    types.MemberDescriptorType,
)
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

    def _parts(self, value: Any) -> Iterator[bytes | memoryview | str]:
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

    def _numbers(self, value: Any) -> Iterator[bytes | memoryview | str]:
        """Yield type, shape and bytes of numbers, whatever numpy can or cannot hold."""
        if not isinstance(value, Tensor):
            yield from (str(value.dtype), str(value.shape))
            if value.dtype.hasobject:
                yield from map(self.of, value.reshape(-1))
            elif isinstance(value, np.memmap) and value.filename and value.nbytes > _MAPPED_BYTES:
                status = os.stat(value.filename)
                yield f"{os.path.basename(value.filename)} {status.st_size} {status.st_mtime_ns} {value.offset}"
            else:
                yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data if value.size else b""
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
            yield plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b""

    def _network(self, network: nn.Module) -> Iterator[bytes]:
        """Yield the forward code and the whole state of a module, but for what a forward in evaluation mode ignores."""
        yield self.of(type(network))
        yield self.of(type(network).forward)  # of an installed class it may have been replaced
        ignored = {"training", "_compiled_call_impl", *_lightning_attributes(network)}
        for name, value in vars(network).items():
            # Results of a forward, which the next one replaces, such as attention maps or a hook's weight.
            left = name in ignored or any(not part.is_leaf for part in _tensors_in(value))
            computed = f"{name}_g" in network._parameters or f"{name}_orig" in network._parameters
            if not left and not computed:
                # Hooks are kept under numbers that count all hooks of the process.
                yield self.of((name, list(value.values()) if "_hooks" in name else value))

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
        loaded, attributes = _names(function.__code__)
        for name in loaded:
            if name in function.__globals__:
                value = function.__globals__[name]
                yield self.of((name, value))
                if isinstance(value, types.ModuleType) and not _is_installed(value):
                    # Which attributes are read from it the bytecode does not say: all that bear one of the names.
                    yield from (self.of((part, getattr(value, part))) for part in attributes if hasattr(value, part))

    def _class(self, kind: type) -> Iterator[bytes | str]:
        yield from (str(kind.__module__), kind.__qualname__)
        if _is_installed(kind):
            return
        yield from map(self.of, kind.__bases__)
        reached = _reached(kind)
        for name, value in sorted(vars(kind).items()):
            descriptor = isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType))
            if name not in _SKIPPED and not descriptor and (reached is None or name in reached):
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


def _hash(*parts: bytes | memoryview | str) -> bytes:
    result = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        result.update(len(content).to_bytes(8, "little"))
        result.update(content)  # by itself: it may be gigabytes, which no sum of bytes should copy
    return result.digest()


def _is_plain(value: Any) -> bool:
    """Whether it is a list or tuple of plain values, such as the names of a million files: hashed at once."""
    if type(value) not in (list, tuple):
        return False
    return all(type(part) in _PLAIN or (type(part) is tuple and _is_plain(part)) for part in value)


def _names(code: types.CodeType) -> tuple[list[str], list[str]]:
    """Return (global names, attribute names) read by a function and by the functions that it defines, sorted."""
    loaded, attributes = set[str](), set[str]()
    for part in (code, *(const for const in code.co_consts if isinstance(const, types.CodeType))):
        for step in dis.get_instructions(part):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                loaded.add(step.argval)
            elif step.opname in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM", "LOAD_SUPER_ATTR"):
                attributes.add(step.argval)
        if part is not code:
            inner = _names(part)
            loaded |= set(inner[0])
            attributes |= set(inner[1])
    return sorted(loaded), sorted(attributes)


def _reached(kind: type) -> set[str] | None:
    """Return the attributes of a class that its entries reach through any name; None where it has no such entry."""
    known = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
    todo = [name for name in _ENTRIES if name in known and not _is_installed(known[name])]
    if not todo:
        return None
    reached = set[str]()
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached.add(name)
        value = known[name]
        for part in (value, getattr(value, "__func__", None), getattr(value, "fget", None)):
            if isinstance(part, types.FunctionType):
                todo += [other for other in _names(inspect.unwrap(part).__code__)[1] if other in known]
    return reached


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield tensors in an attribute: itself, or in a list, tuple or dictionary."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
    yield from (part for part in parts if isinstance(part, Tensor))


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
    file = Path(getattr(module, "__file__", None) or "")
    return str(file).startswith(_INSTALLED) or bool({"site-packages", "dist-packages"} & set(file.parts))


def _attribute(value: Any, name: str) -> Any:
    for part in name.split("."):
        value = inspect.getattr_static(value, part)
        value = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    return value


@functools.cache
def _state_of_lightning(base: type) -> frozenset[str]:
    return frozenset(vars(base())) - frozenset(vars(nn.Module()))


def _lightning_attributes(network: nn.Module) -> frozenset[str]:
    """Return the attributes in which a LightningModule, of either package, keeps its trainer and the like."""
    bases = [base for base in type(network).__mro__ if base.__name__ == "LightningModule" and _is_installed(base)]
    return _state_of_lightning(bases[-1]) if bases else frozenset()
