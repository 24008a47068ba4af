"""The floors of the package: what may import what, how large files and functions get, and what each is called."""

import ast
from collections import Counter
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hf_editable"
# From the top floor down: a folder imports from itself and from the folders after it.
FLOORS = [
    "cli", "cli.commands", "cli.shared", "app", "operations", "operations.bulk", "operations.store",
    "operations.gate", "operations.corrections", "evaluation", "reporting", "measures", "correction", "training",
    "modeling", "mining", "editors.neurons", "editors", "editors.problems", "decoding", "tail", "patches", "data",
    "models", "hub", "runs", "numerics", "",
]  # fmt: skip
ROOT_FILES = {"__init__", "__main__", "configuration", "checks", "errors"}
# Only its folder gives such a name a sense, so it may stand in several.
REPEATED = {"__init__", "base", "report", "files", "registry", "plan", "run"}
MOST_LINES, MOST_FUNCTION_LINES, MOST_FILES = 400, 60, 13


def modules() -> dict[str, Path]:
    """The package's files by their dotted names within it."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    """The modules of the package that a file imports, anywhere in it, those for annotations included."""
    found = set()
    package = name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [alias.name.removeprefix("hf_editable.") for alias in node.names if "hf_editable" in alias.name]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif (node.module or "").split(".")[0] == "hf_editable":
                base = []
            else:
                continue
            inside = (node.module or "").removeprefix("hf_editable").strip(".")
            base = [*base, *(inside.split(".") if inside else [])]
            wanted = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        found |= {first for each in wanted if (first := resolve(each, known))}
    return found - {name}


def resolve(name: str, known: set[str]) -> str | None:
    """Where a dotted name is: a module, the face of a package, or a definition in one of them."""
    before = name.rpartition(".")[0]
    for module in (name, f"{name}.__init__", before, f"{before}.__init__".lstrip(".")):
        if module in known:
            return module
    return None


def folder(module: str) -> str:
    return module.rpartition(".")[0]


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    files = modules()
    return {name: imports(name, path, set(files)) for name, path in files.items()}


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports from a floor to a higher one."""
    wrong = []
    for module, imported in graph.items():
        if module in ("__init__", "__main__"):  # the face of the whole
            continue
        for other in imported - {"__init__"}:  # the version
            mine, theirs = FLOORS.index(folder(module)), FLOORS.index(folder(other))
            if theirs < mine:
                wrong.append(f"{module} -> {other}")
    return sorted(wrong)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other, as Tarjan finds them."""
    order, low, stack, found = {}, {}, [], []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return found


def test_every_folder_has_a_floor():
    folders = {folder(module) for module in modules()}
    assert folders == set(FLOORS)


def test_no_file_imports_from_a_higher_floor(graph):
    assert upward(graph) == []


def test_no_circle_of_imports(graph):
    # The package's face hands every name on, lazily; the version is all that others take from it.
    inner = {module: others - {"__init__"} for module, others in graph.items() if module != "__init__"}
    assert circles(inner) == []


def test_the_walk_sees_annotations_circles_and_upward_imports(tmp_path):
    (tmp_path / "a.py").write_text(
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from ..modeling.mixin import EditableMixin\n"
    )
    known = {"modeling.mixin", "modeling.__init__", "numerics.a"}
    found = imports("numerics.a", tmp_path / "a.py", known)
    assert found == {"modeling.mixin"}
    assert upward({"numerics.a": found}) == ["numerics.a -> modeling.mixin"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_names_stand_once():
    names = Counter(name.rpartition(".")[2] for name in modules())
    folders = Counter(floor.rpartition(".")[2] for floor in FLOORS if floor)
    repeated = {name for name, count in (names + folders).items() if count > 1}
    assert repeated <= REPEATED


def test_nothing_else_at_the_root():
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_FILES
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} - {"py.typed", "README.md"} == {
        f"{name}.py" for name in ROOT_FILES
    }


def test_about_a_dozen_files_a_folder():
    counts = Counter(folder(name) for name in modules() if not name.endswith("__init__"))
    # One file a command, and they are many.
    assert {place: count for place, count in counts.items() if count > MOST_FILES and place != "cli.commands"} == {}


@pytest.mark.parametrize("place", ["hf_editable", "scripts", "tests"])
def test_files_and_functions_are_short(place):
    long = []
    for path in sorted((ROOT / place).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > MOST_LINES:
            long.append(f"{path.name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > MOST_FUNCTION_LINES:
                    long.append(f"{path.name}: {node.name}, {length} lines")
    assert long == []


def test_no_module_is_called_utils():
    assert not {name for name in modules() if name.rpartition(".")[2] in ("utils", "helpers", "common", "misc")}
