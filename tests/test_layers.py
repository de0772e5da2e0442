import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import losskernel

PACKAGE = Path(losskernel.__file__).parent

# The rooms of the package from the ground up: a room imports only from rows above its own, or from itself.
ROOMS = [
    {"errors"},
    {"config_keys", "signals", "losses"},
    {"storage"},
    {"geometry"},
    {"models"},
    {"data"},
    {"traces"},
    {"kernel"},
    {"figures"},
    {"training"},
    {"sampling"},
    {"representations"},
    {"analyses"},
    {"runs"},
    {"sweeps"},
    {"cli"},
]
ROW = {name: number for number, row in enumerate(ROOMS) for name in row}
# Loaded where they are used, so that nobody waits for what they do not use.
HEAVY = (
    "hydra",
    "omegaconf",
    "wandb",
    "umap",
    "nltk",
    "pytorch_lightning",
    "torch",
    "arviz_stats",
    "sklearn",
    "matplotlib",
)


def _modules() -> dict[str, Path]:
    """Dotted name below the package -> file; the package itself is left out."""
    files = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    names = {".".join(part for part in name.parts if part != "__init__"): path for name, path in files.items()}
    return {name: path for name, path in names.items() if name}


MODULES = _modules()


def _imports(path: Path) -> set[str]:
    """Every absolute import anywhere in a file, dotted; `from a import b` gives a.b where that is a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner.removeprefix("losskernel.") in MODULES else str(node.module))
    return found


def _own(path: Path) -> set[str]:
    """Top-level parts of losskernel that a file imports; the bare package is none of them."""
    inside = {name.removeprefix("losskernel.") for name in _imports(path) if name.startswith("losskernel.")}
    return {name.split(".")[0] for name in inside}


def test_every_module_has_a_place_in_the_layers() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(ROW)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_arrows_point_downwards_only(name: str) -> None:
    own = name.split(".")[0]
    wrong = {other for other in _own(MODULES[name]) if other != own and ROW[other] >= ROW[own]}
    assert not wrong, f"{name} imports {', '.join(sorted(wrong))}, which {own} stands below"


def test_the_reader_of_imports_sees_them() -> None:
    assert {"losskernel.kernel", "losskernel.figures", "losskernel.errors"} <= _imports(MODULES["analyses.separation"])
    assert "umap" in _imports(MODULES["analyses.umap_layout"])  # inside a function
    assert _own(MODULES["kernel.loss_kernel"]) == {"errors", "kernel", "traces"}


def test_only_the_command_line_knows_hydra() -> None:
    users = {
        name
        for name, path in MODULES.items()
        if {"hydra", "omegaconf"} & {each.split(".")[0] for each in _imports(path)}
    }
    assert users
    assert {name.split(".")[0] for name in users} == {"cli"}


def test_only_the_tracker_knows_wandb() -> None:
    users = {name for name, path in MODULES.items() if "wandb" in {each.split(".")[0] for each in _imports(path)}}
    assert users
    assert all(name.startswith("runs.tracking.") for name in users)


def test_only_figures_know_matplotlib_and_plotly() -> None:
    drawing = {"matplotlib", "mpl_toolkits", "plotly"}
    users = {name for name, path in MODULES.items() if drawing & {each.split(".")[0] for each in _imports(path)}}
    assert users
    assert {name.split(".")[0] for name in users} == {"figures"}


def test_lightning_has_one_import_name() -> None:
    # `lightning` is another distribution, whose classes are not those of `pytorch_lightning`.
    users = {name for name, path in MODULES.items() if "lightning" in {each.split(".")[0] for each in _imports(path)}}
    assert not users


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert all(importlib.util.find_spec(name) for name in HEAVY)  # absent for no other reason
    code = f"import sys, losskernel; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_loaded() -> None:
    for name in losskernel.__all__:
        assert getattr(losskernel, name) is not None
    assert dir(losskernel) == sorted(losskernel.__all__)
    with pytest.raises(AttributeError, match="module 'losskernel' has no attribute 'gamma'"):
        _ = losskernel.gamma
