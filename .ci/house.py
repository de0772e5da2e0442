"""Measure the structure of the package: files, code lines, entries, functions, comments, names, importers.

usage: python .ci/house.py [--rooms | --long | --single | --repeated]

Without an option it prints each measure beside its bound and exits 1 if a bound is broken.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "losskernel"
LONG = 40  # lines from which a function counts as long, its docstring included
_LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING}


@dataclass(frozen=True)
class Source:
    """One file of the package."""

    path: Path

    @cached_property
    def text(self) -> str:
        """Its source."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    @property
    def module(self) -> str:
        """Its dotted name."""
        return ".".join(self.path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")

    @property
    def room(self) -> str:
        """The entry at the top of the package that it lies in."""
        return self.path.relative_to(PACKAGE).parts[0]

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        """Its tokens."""
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    @property
    def comments(self) -> int:
        """Comment lines, those behind code included."""
        return sum(token.type == tokenize.COMMENT for token in self.tokens)

    @property
    def code(self) -> int:
        """Lines that hold code: neither blank, comment nor docstring."""
        documented: set[int] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[0] if node.body else None
                if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                    documented |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
        lines: set[int] = set()
        for token in self.tokens:
            if token.type not in _LAYOUT and token.type != tokenize.COMMENT:
                lines |= set(range(token.start[0], token.end[0] + 1))
        return len(lines - documented)

    @property
    def functions(self) -> list[tuple[int, str]]:
        """(lines, name) of each function, the docstring included."""
        found = [node for node in ast.walk(self.tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        return [((node.end_lineno or node.lineno) - node.lineno + 1, node.name) for node in found]

    def imports(self, modules: set[str]) -> set[str]:
        """Modules of the package that it imports, wherever the import stands."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.add(inner if inner in modules else str(node.module))
        return found & modules


def importers(sources: list[Source]) -> dict[str, set[str]]:
    """Module -> modules that import it. Packages that only pass a name on (`__init__`) do not count as importers."""
    modules = {source.module for source in sources}
    found: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        if source.path.name != "__init__.py":
            for module in source.imports(modules):
                found[module].add(source.module)
    return found


def single(sources: list[Source]) -> list[tuple[str, str]]:
    """(module, importer) of each file that exactly one other file imports."""
    users = importers(sources)
    files = [source.module for source in sources if source.path.name != "__init__.py"]
    return [(module, *users[module]) for module in files if len(users[module]) == 1]


def repeated(sources: list[Source]) -> dict[str, list[str]]:
    """Base name -> files, for each name that occurs more than once; drawings named after their question are meant."""
    names: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        if source.path.name != "__init__.py":
            names[source.path.name].append(str(source.path.relative_to(PACKAGE)))
    return {name: files for name, files in names.items() if len(files) > 1 and not _drawn(files)}


def _drawn(files: list[str]) -> bool:
    """Whether they are figures/<question>/x.py and analyses/<question>/x.py."""
    rooms = sorted(Path(file).parts[0] for file in files)
    return rooms == ["analyses", "figures"] and len({Path(file).parts[1:] for file in files}) == 1


def main() -> int:
    """Print the measures; return 1 if a bound is broken."""
    sources = [Source(path) for path in sorted(PACKAGE.rglob("*.py"))]
    functions = [(lines, name, source.module) for source in sources for lines, name in source.functions]
    long = sorted((entry for entry in functions if entry[0] > LONG), reverse=True)
    match sys.argv[1:]:
        case ["--long"]:
            print(*(f"{lines:4d} {module}.{name}" for lines, name, module in long), sep="\n")
        case ["--single"]:
            print(*(f"{module} <- {user}" for module, user in single(sources)), sep="\n")
        case ["--repeated"]:
            print(*(f"{name}: {', '.join(files)}" for name, files in repeated(sources).items()), sep="\n")
        case ["--rooms"]:
            rooms = Counter(source.room for source in sources)
            alone = Counter(module.split(".")[1] for module, _ in single(sources))
            print(f"{'room':20}{'files':>6}{'code':>7}{'/100':>6}{'long':>5}{'one importer':>13}")
            for room, files in sorted(rooms.items()):
                own = [source for source in sources if source.room == room]
                code, comments = (sum(getattr(source, name) for source in own) for name in ("code", "comments"))
                longer = sum(lines > LONG for source in own for lines, _ in source.functions)
                print(f"{room:20}{files:6}{code:7}{100 * comments / max(code, 1):6.1f}{longer:5}{alone[room]:13}")
        case []:
            code, comments = (sum(getattr(source, name) for source in sources) for name in ("code", "comments"))
            entries = [path for path in PACKAGE.iterdir() if path.name not in {"__pycache__", "py.typed", "conf"}]
            readme = len((ROOT / "README.md").read_text(encoding="utf-8").splitlines())
            rows = [
                ("files", len(sources), 300),
                ("code lines", code, 23_000),
                ("entries at the top", len(entries), 19),
                ("median function, lines", statistics.median(lines for lines, *_ in functions), 8),
                (f"functions over {LONG} lines", len(long), 30),
                ("base names that repeat", len(repeated(sources)), 12),
                ("files imported by one other", len(single(sources)), 40),
                ("lines of README", readme, 130),
            ]
            for name, value, bound in rows:
                print(f"{name:30}{value:>8g}  at most {bound:>6}  {'ok' if value <= bound else 'BROKEN'}")
            density = 100 * comments / code
            verdict = "ok" if density >= 7 else "BROKEN"
            print(f"{'comments per 100 code lines':30}{density:8.2f}  at least      7  {verdict}")
            return int(density < 7 or any(value > bound for _, value, bound in rows))
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
