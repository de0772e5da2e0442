"""The wheel alone is enough: it carries the registry, and the command line works far from a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from command import run_python

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of the checkout."""
    if shutil.which("uv") is None:
        pytest.skip("building the wheel needs uv on the PATH")
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        ["uv", "build", "--wheel", "--quiet", "--out-dir", str(out), str(CHECKOUT)], capture_output=True, text=True
    )
    if "Failed to fetch" in done.stderr or "Could not connect" in done.stderr:
        pytest.skip(f"uv cannot fetch the build backend hatchling: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed into; its dependencies are those of this interpreter."""
    target = tmp_path_factory.mktemp("installed")
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--offline", "--python", sys.executable]
    done = subprocess.run([*command, "--target", str(target), str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def far_away(installed: Path, cwd: Path, *arguments: str) -> str:
    """Run the interpreter outside the checkout with the installed package first on its path."""
    done = run_python(*arguments, cwd=cwd, env={"PYTHONPATH": str(installed)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_code_registry_and_type_marker(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    yaml = {f"losskernel/conf/{path.relative_to(CHECKOUT / 'conf')}" for path in (CHECKOUT / "conf").rglob("*.yaml")}
    assert "losskernel/conf/config.yaml" in yaml
    assert yaml <= names
    package = CHECKOUT / "losskernel"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    # Hydra looks for launchers in a namespace of its own alone.
    places = {f"losskernel/{path.relative_to(package)}".replace("losskernel/cli/plugins/", "") for path in files}
    assert "hydra_plugins/losskernel_launchers.py" in places
    assert places <= names
    assert "losskernel/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0].split("-")[0] for name in names}
    assert tops == {"losskernel", "hydra_plugins"}  # no tests, no outputs


def test_the_installed_command_line_finds_its_registry(installed: Path, tmp_path: Path) -> None:
    where = far_away(
        installed, tmp_path, "-c", "import losskernel, losskernel.cli as c; print(losskernel.__file__, c.CONF)"
    )
    assert where.split() == [str(installed / "losskernel" / name) for name in ("__init__.py", "conf")]
    said = far_away(installed, tmp_path, "-m", "losskernel.cli", "--cfg", "job", "experiment=digits")
    assert "name: digits" in said
    assert "_target_: losskernel.models.MLP" in said
    help_text = far_away(installed, tmp_path, "-m", "losskernel.cli", "--help")
    assert "experiment: attribution, attribution_toy, audit, digits, digits_cnn" in help_text
    assert os.listdir(tmp_path) == []


def test_the_installed_package_brings_the_wordnet_of_imagenet(installed: Path, tmp_path: Path) -> None:
    code = "from losskernel.data.taxonomy import wordnet; print(wordnet(['n02084071']).name('n02084071'))"
    assert far_away(installed, tmp_path, "-c", code).strip() == "dog"
    (licence,) = installed.glob("losskernel-*.dist-info/licenses/losskernel/data/taxonomy/WORDNET-LICENSE")
    assert "Princeton University" in licence.read_text()


def test_ones_own_registry_stands_beside_the_installed_one(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    recipe = "# @package _global_\ndefaults:\n  - override /model: mlp\n  - override /dataset: digits\nname: own\n"
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(recipe)
    arguments = ("--config-dir", str(tmp_path / "mine"), "experiment=own", "--cfg", "job")
    said = far_away(installed, tmp_path, "-m", "losskernel.cli", *arguments)
    assert "name: own" in said
    assert "_target_: losskernel.data.digits" in said


def test_the_installed_package_names_its_commands(installed: Path) -> None:
    (entry_points,) = installed.glob("losskernel-*.dist-info/entry_points.txt")
    text = entry_points.read_text()
    assert "losskernel = losskernel.cli:main" in text
    assert "losskernel-analyse = losskernel.cli:analyse" in text


def test_the_installed_launchers_are_found(installed: Path, tmp_path: Path) -> None:
    module = far_away(installed, tmp_path, "-c", "import hydra_plugins.losskernel_launchers as m; print(m.__file__)")
    assert module.strip() == str(installed / "hydra_plugins" / "losskernel_launchers.py")
    words = ("hydra/launcher=slurm", "hydra.launcher.partition=gpu", "--cfg", "hydra", "-p", "hydra.launcher")
    assert "partition: gpu" in far_away(installed, tmp_path, "-m", "losskernel.cli", *words)
    # The plugin itself, as far as the first thing that it says: this machine need not have SLURM.
    sweep = ("-m", *words[:2], "hydra.launcher.timeout_min=1", "paths.sweep=swept")
    done = run_python("-m", "losskernel.cli", *sweep, cwd=tmp_path, env={"PYTHONPATH": str(installed)})
    assert "losskernel: hydra.launcher.timeout_min=1 leaves no time before the signal" in done.stderr
