"""The documentation runs, and names what there is."""

import ast
import importlib
import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml

from rssearch import cli, data, models, pruning
from rssearch.config.loading import load_study, parse_study
from rssearch.pruning.allocate import ALLOCATIONS
from rssearch.sampling.sampler import CAPABILITIES

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))


def test_there_are_tutorials() -> None:
    assert TUTORIALS


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run(script: Path, tmp_path: Path, local_ray: str) -> None:
    environment = os.environ | {"RAY_ADDRESS": local_ray}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    accuracies = re.findall(r"accuracy ([\d.]+)%", done.stdout)
    if script.stem == "prune":
        trained, tuned, loaded = (float(accuracy) for accuracy in accuracies)
        assert trained > 30  # twelve classes
        assert tuned == loaded
    if script.stem == "channel_search":
        ratios = [float(share) / 100 for share in re.findall(r"([\d.]+)% of the MACs: accuracy", done.stdout)]
        assert ratios == pytest.approx([0.7, 0.5, 0.3], rel=0.011)
        assert min(map(float, accuracies)) > 30
        assert {path.name for path in tmp_path.glob("*.png")} == {"ratios.png", "channels.png"}
    if script.stem == "study":
        assert "6 trials, of which 4 have finished" in done.stdout
        assert "2 new trials: lfp\n" in done.stdout
        ((before, after),) = re.findall(r"hypervolume ([\d.]+) -> ([\d.]+)", done.stdout)
        assert 0.1 < float(before) <= float(after) < 1
        assert (tmp_path / "front.png").is_file()


def test_the_page_of_methods_names_all_of_them_with_their_allocation_and_options() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = {
        name: [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.split("## From scores")[0].splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert rows.keys() == pruning.METHODS.keys()
    for name, method in pruning.METHODS.items():
        assert rows[name][3] == method.allocation
        if rows[name][5].startswith("`") and method.options:
            for option, values in method.options.items():
                assert f"`{option}: {values[0]}`" in rows[name][5]
                assert all(f"`{value}`" in rows[name][5] for value in values[1:])
    assert all(f"`{allocation}`" in page for allocation in ALLOCATIONS)


def test_the_page_on_reliability_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    commands = re.findall(r"`(?:-s )?(tests/[\w/]+\.py) -k (\w+)`", page)
    assert len(commands) == page.count(" -k ") > 10
    for file, part in commands:
        names = re.findall(r"^def (test_\w+)", (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert any(part in name for name in names), f"{file}: {part}"


README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_readme_has_the_study_that_is_shipped() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    shown, shipped = parse_study(yaml.safe_load(block)), load_study(ROOT / "search_spaces" / "eurosat_methods.yaml")
    assert shown == shipped


def test_the_readme_names_what_there_is() -> None:
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", README, flags=re.MULTILINE))
    named = {what: set(re.findall(r"`([\w:/]+)`", cells)) for what, cells in rows.items()}
    assert named["methods"] == {*pruning.list_methods(), "channel_nas", "slimmable"}
    assert named["networks"] == {*models.list_models(), "torchvision:NAME", "timm:NAME", "smp:ARCH/ENCODER"}
    # Parts of a set are named in the documentation alone.
    whole = {name for name in data.list_datasets() if name.partition(":")[0] == name}
    own = {f"{prefix}PATH" for prefix in data.registry.FOLDERS}
    assert named["datasets"] == {*whole, *own}
    assert named["samplers"] == set(CAPABILITIES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_imports_of_a_page_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = typer.main.get_command(cli.app)
    context = known.make_context("rssearch", [], resilient_parsing=True)
    fenced = "".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))
    indented = "\n".join(re.findall(r"^ {4}(rssearch .*)$", text, flags=re.MULTILINE))
    lines = re.findall(r"^rssearch +(.*?)(?: +#.*| *\\)?$", f"{fenced}{indented}", flags=re.MULTILINE)
    assert lines or page.name != "README.md"
    for line in lines:
        words = line.split()
        command = known.get_command(context, words[0])  # type: ignore[attr-defined]
        assert command is not None, f"{page}: {line}"
        options = {option for parameter in command.params for option in parameter.opts}
        if not hasattr(command, "commands"):
            assert {word for word in words if word.startswith("--")} <= options, f"{page}: {line}"
        else:
            assert words[1] in command.commands, f"{page}: {line}"
    for block in re.findall(r"```python[^\n]*\n(.*?)```", text, flags=re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")


def test_the_reference_names_what_modules_offer() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: (rssearch[\w.]*)\.(\w+)$", page, flags=re.MULTILINE)
    assert len(named) > 40
    for module, name in named:
        try:
            offered = importlib.import_module(f"{module}.{name}").__all__  # a whole module
        except ModuleNotFoundError:
            offered = importlib.import_module(module).__all__
            assert name in offered, f"{module}: {name}"
        assert offered, f"{module}: {name}"


def _script(name: str) -> ModuleType:
    """A script of the folder of pages, as a module."""
    spec = spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_capabilities_are_what_the_program_says() -> None:
    """Write them again with `python docs/capabilities.py`."""
    page = (ROOT / "docs" / "capabilities.md").read_text(encoding="utf-8")
    assert _script("capabilities").written(page) == page
    assert page.count("| `") > 40


def test_the_page_of_keys_and_the_schema_for_editors_are_those_of_the_program() -> None:
    """Write them again with `python docs/keys.py`."""
    files = _script("keys").files()
    assert {path.name for path in files} == {"keys.md", "study.schema.json"}
    for path, text in files.items():
        assert path.read_text(encoding="utf-8") == text, path


def test_the_samplers_of_the_page_on_studies_can_do_what_the_program_says() -> None:
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8").split("## Samplers")[1].split("## Resources")[0]
    rows = {
        name.strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in page.splitlines()
        if line.startswith("| ") and "---" not in line
        for name in line.split("|")[1].split(",")
    }
    del rows["sampler"]
    assert rows.keys() == CAPABILITIES.keys()
    for name, can in CAPABILITIES.items():
        several, learns, choices, continuous, stopped = rows[name]
        assert (several == "yes", learns == "yes") == (can.many_objectives, can.constraints)
        assert (choices != "no", continuous == "yes") == (can.choices, can.continuous)
        assert stopped in ({"as pruned", "not reported"} if can.pruned else {"by their last values"})


def test_links_between_pages_lead_somewhere() -> None:
    pages = PAGES
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"
