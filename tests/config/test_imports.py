"""rssearch.config.imports: user-defined code by its import string, and what names its results."""

from __future__ import annotations

import importlib
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rssearch.config import imports
from rssearch.errors import InputError

_numbers = itertools.count()
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes files into the working directory; `NAME` in paths and sources is a module's name of the test's own."""
    name = f"own{next(_numbers)}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def write(files: dict[str, str]) -> str:
        for path, source in files.items():
            file = tmp_path / path.replace("NAME", name)
            file.parent.mkdir(exist_ok=True)
            file.write_text(source.replace("NAME", name))
        importlib.invalidate_caches()
        imports.fingerprint.cache_clear()
        return name

    yield write
    for known in [module for module in sys.modules if name in module]:
        del sys.modules[known]
    imports.fingerprint.cache_clear()


@pytest.mark.parametrize("text", ["mine:tiny", "pack.mine:Tiny", "_a.b2:c_d"])
def test_import_strings(text: str) -> None:
    assert imports.is_import(text)


@pytest.mark.parametrize("text", ["resnet20", "micronet:1,1,2,3", "folder:a/b", "mine:", ":tiny", "a..b:c", "1a:b"])
def test_what_is_no_import_string(text: str) -> None:
    assert not imports.is_import(text)


def test_what_a_module_has_is_found(write: Write) -> None:
    name = write({"NAME.py": "def tiny(): return 7\n"})
    found, module = imports.load(f"{name}:tiny")
    assert found() == 7
    assert module is sys.modules[name]


def test_mistakes_are_named(write: Write) -> None:
    name = write({"NAME.py": "import gone_far_away\n", "NAMEb.py": "1 / 0\n", "NAMEc.py": ""})
    with pytest.raises(
        InputError, match=f"^{name}d:f: there is no module '{name}d' in /.* or among what is installed$"
    ):
        imports.load(f"{name}d:f")
    with pytest.raises(InputError, match=f"^{name}:f: importing {name} failed: No module named 'gone_far_away'$"):
        imports.load(f"{name}:f")
    with pytest.raises(InputError, match=f"^{name}b:f: importing {name}b failed: ZeroDivisionError: division by zero$"):
        imports.load(f"{name}b:f")
    with pytest.raises(InputError, match=f"^{name}c:f: {name}c has no function 'f'$"):
        imports.load(f"{name}c:f")


def test_a_fingerprint_is_that_of_the_source_and_of_what_it_imports_beside_it(write: Write) -> None:
    files = {
        "NAME.py": "import json, torch, rssearch\ndef f():\n    from NAMEb.inner import g\n    return g()\n",
        "NAMEb/__init__.py": "",
        "NAMEb/inner.py": "from . import deep\nfrom .deep import h as g\n",
        "NAMEb/deep.py": "def h(): return 1\n",
        "NAMEc.py": "def other(): return 2\n",
    }
    target = f"{write(files)}:f"
    before = imports.fingerprint(target)
    assert len(before) == 64
    for file, source in files.items():
        write({file: source + "x = 1\n"})
        changed = imports.fingerprint(target) != before
        assert changed == (file != "NAMEc.py"), file
        write({file: source})
        assert imports.fingerprint(target) == before


def test_a_fingerprint_does_not_depend_on_where_the_files_are(write: Write, tmp_path: Path) -> None:
    name = write({"NAME.py": "def f(): return 1\n"})
    here = imports.fingerprint(f"{name}:f")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / f"{name}.py").rename(moved / f"{name}.py")
    sys.path.insert(0, str(moved))
    del sys.modules[name]
    write({})
    assert imports.fingerprint(f"{name}:f") == here


def test_installed_packages_are_known_by_their_version() -> None:
    import torchvision

    assert imports.fingerprint("torchvision.models:resnet18") == f"torchvision {torchvision.__version__.split('+')[0]}"


def test_what_has_no_source_is_refused() -> None:
    with pytest.raises(InputError, match=r"^math:sqrt: math has no source file"):
        imports.fingerprint("math:sqrt")


def test_a_machine_without_the_modules_gets_their_sources(write: Write, tmp_path: Path) -> None:
    files = {
        "NAME.py": "from NAMEb.deep import h\ndef f(): return h()\n",
        "NAMEb/__init__.py": "",
        "NAMEb/deep.py": "def h(): return 41\n",
    }
    name = write(files)
    found = imports.sources([f"{name}:f", "resnet20", "trials.prune:run", "torchvision.models:resnet18", "folder:x"])
    assert [path for path, _ in found] == [f"{name}.py", f"{name}b/__init__.py", f"{name}b/deep.py"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{name}.py").write_text("def f(): return 'an older one'\n")
    code = (
        "import pickle, sys; from rssearch.config import imports\n"
        "imports.install(pickle.loads(sys.stdin.buffer.read()))\n"
        f"found, module = imports.load('{name}:f')\n"
        f"print(found(), imports.fingerprint('{name}:f'), module.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, input=pickle.dumps(found), capture_output=True, check=True
    )
    answer, fingerprint, file = done.stdout.decode().split()
    assert (answer, fingerprint) == ("41", imports.fingerprint(f"{name}:f"))
    assert not Path(file).exists()  # it is gone with its process


def test_a_machine_that_has_the_modules_keeps_its_own(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write({"NAME.py": "def f(): return 1\n"})
    before = list(sys.path)
    imports.install(imports.sources([f"{name}:f"]))
    assert sys.path == before
