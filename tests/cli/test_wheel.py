"""The wheel alone is enough: it carries the registry, and the command line works far from a checkout."""

import json
import shutil
import subprocess
import sys
import textwrap
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


def far_away(installed: Path, cwd: Path, *commands: list[str]) -> str:
    """Call the installed command line, outside the checkout, with several command lines in one process."""
    code = """
        import json, sys
        import losskernel, losskernel.cli, hydra_plugins.losskernel_launchers as launchers
        print(losskernel.__file__, losskernel.cli.CONF, launchers.__file__)
        for words in json.loads(sys.argv.pop()):
            sys.argv = ["losskernel", *words]
            try:
                losskernel.cli.main()
            except SystemExit as end:
                print("exit code", end.code)
    """
    words = ("-c", textwrap.dedent(code), json.dumps(commands))
    done = run_python(*words, cwd=cwd, env={"PYTHONPATH": str(installed)})
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


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


@pytest.mark.slow
def test_the_installed_command_line_finds_its_registry_and_its_launchers(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    recipe = "# @package _global_\ndefaults:\n  - override /model: mlp\n  - override /dataset: digits\nname: own\n"
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(recipe)
    slurm = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu"]
    said = far_away(
        installed,
        tmp_path,
        ["--cfg", "job", "experiment=digits"],
        ["--config-dir", str(tmp_path / "mine"), "experiment=own", "--cfg", "job"],
        [*slurm, "--cfg", "hydra", "-p", "hydra.launcher"],
        # The launcher itself, as far as its first check: this machine need not have SLURM.
        ["-m", *slurm, "hydra.launcher.timeout_min=1", "paths.sweep=swept"],
        ["--help"],
    )
    paths = [installed / "losskernel" / "__init__.py", installed / "losskernel" / "conf"]
    assert said.splitlines()[0].split() == [*map(str, paths), str(installed / "hydra_plugins/losskernel_launchers.py")]
    assert "name: digits" in said
    assert "_target_: losskernel.models.MLP" in said
    assert "name: own" in said  # one's own registry beside the installed one
    assert "_target_: losskernel.data.digits" in said
    assert "partition: gpu" in said
    assert "losskernel: hydra.launcher.timeout_min=1 leaves no time before the signal" in said
    assert "experiment: attribution, attribution_toy, audit, cifar10n, digits" in said
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "swept"}


def test_the_installed_package_brings_the_wordnet_of_imagenet(installed: Path, tmp_path: Path) -> None:
    code = "from losskernel.data.taxonomy import wordnet; print(wordnet(['n02084071']).name('n02084071'))"
    done = run_python("-c", code, cwd=tmp_path, env={"PYTHONPATH": str(installed)})
    assert done.stdout.strip() == "dog", done.stderr
    (licence,) = installed.glob("losskernel-*.dist-info/licenses/losskernel/data/taxonomy/WORDNET-LICENSE")
    assert "Princeton University" in licence.read_text()


def test_the_installed_package_names_its_commands(installed: Path) -> None:
    (entry_points,) = installed.glob("losskernel-*.dist-info/entry_points.txt")
    text = entry_points.read_text()
    assert "losskernel = losskernel.cli:main" in text
    assert "losskernel-analyse = losskernel.cli:analyse" in text
