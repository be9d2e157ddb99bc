"""The direction of imports, read from the sources: those in functions and under TYPE_CHECKING count as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import rssearch

ROOT = Path(rssearch.__file__).parent
# From the ground up: a room imports from lower floors alone. CONTRIBUTING.md says what each is for.
FLOORS = (
    ("errors", "lazy"),
    ("device", "eager", "escaping", "metrics"),
    ("agent", "scores", "storage"),
    ("config",),
    ("cost", "front", "imaging"),
    ("data", "models"),
    ("sampling", "train"),
    ("pruning",),
    ("nas", "papers"),
    ("trial",),
    ("backend", "report"),
    ("bundle", "trials"),
    ("tracking",),
    ("study",),
    ("testing",),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# The one room, or the few, that may import a library.
DOORS = {
    "ray": {"backend"},
    "mlflow": {"tracking"},
    "optuna": {"sampling"},
    "matplotlib": {"pruning", "report"},  # fronts, and the picture of a network's channels
    "plotly": {"report"},
    "thop": {"cost"},
    "typer": {"cli"},
}
WITHOUT_TORCH = {
    "agent",
    "errors",
    "lazy",
    "escaping",
    "metrics",
    "scores",
    "storage",
    "config",
    "imaging",
    "front",
    "sampling",
    "cli",
}


def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of this package, and the top-level names of others, that a module imports anywhere."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(known[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return frozenset(name if name.startswith("rssearch") else name.partition(".")[0] for name in found)


def arrows() -> Iterator[tuple[str, str]]:
    for module in modules():
        yield from ((module, other) for other in imported(module) if other != module and other.startswith("rssearch"))


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module) for module in modules()} - {"", "__main__"}
    assert rooms == FLOOR.keys()


def test_imports_run_downward() -> None:
    wrong = [
        f"{module} -> {other}"
        for module, other in arrows()
        if (a := room_of(module)) and (b := room_of(other)) and a != "__main__" and a != b and FLOOR[a] <= FLOOR[b]
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {module: {b for a, b in arrows() if a == module} for module in modules()}
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    assert not left


def test_a_study_knows_no_trial() -> None:
    """It finds them by their import strings, as it finds a user's own."""
    assert not [(a, b) for a, b in arrows() if room_of(b) == "trials" and room_of(a) not in ("trials", "")]


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_one_door(library: str) -> None:
    users = {room_of(module) for module in modules() if library in imported(module)}
    assert users == DOORS[library]


def test_the_lower_rooms_need_no_torch() -> None:
    assert not [m for m in modules() if room_of(m) in WITHOUT_TORCH and "torch" in imported(m)]
    assert "torch" not in imported("rssearch.bundle.predict") | imported("rssearch.bundle.__main__")


PACKAGES = [module for module, path in modules().items() if path.name == "__init__.py"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_offers(package: str) -> None:
    """Every name of `__all__` can be imported from it, as ``from package import *`` does."""
    names = import_module(package).__all__
    assert names
    assert len(set(names)) == len(names)
    for name in names:
        exec(f"from {package} import {name}", {})  # also of lazy names, and of modules


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_takes_the_place_of_what_its_package_offers(package: str) -> None:
    """A submodule is an attribute of its package once anybody has imported it."""
    lazy = getattr(import_module(package), "_MODULES", {})
    assert not lazy.keys() & {name.removeprefix(f"{package}.") for name in modules()}


def test_a_circle_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two files that import each other, one in a function and one for its types."""
    package = tmp_path / "rssearch"
    package.mkdir()
    (package / "storage.py").write_text("def late():\n    from rssearch import config\n")
    (package / "config.py").write_text("if TYPE_CHECKING:\n    import rssearch.storage\n")
    monkeypatch.setitem(globals(), "ROOT", package)
    imported.cache_clear()
    try:
        with pytest.raises(AssertionError):
            test_no_modules_import_each_other_in_a_circle()
        with pytest.raises(AssertionError):
            test_imports_run_downward()
    finally:
        imported.cache_clear()
