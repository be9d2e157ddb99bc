"""What a user can get wrong: each mistake is told in one message before anything is run or written."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from rssearch.backend import tune
from rssearch.errors import unknown
from tests.support.commands import GONE, refused, run, study_with


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that gets as far as Ray was not refused in time."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the study was not refused before Ray")

    monkeypatch.setattr(tune, "connected", refuse)


def test_unknown_names_what_is_near_and_what_there_is() -> None:
    assert str(unknown("method", "lpf", ["taylor", "lfp", "l1"])) == (
        "unknown method 'lpf'. Did you mean 'lfp'? Known: l1, lfp, taylor."
    )
    assert str(unknown("method", 3, ["lfp"])) == "unknown method 3. Known: lfp."


STUDIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": ({"serch": {}}, ["serch: unknown key. Did you mean 'search'?", "Allowed here: data_root,"]),
    "unknown key below": ({"settings/train/epoch": 3}, ["settings.train.epoch: unknown key. Did you mean 'epochs'?"]),
    "missing key": ({"trial": GONE}, ["trial: is required"]),
    "wrong type": ({"settings/train/epochs": "many"}, ["settings.train.epochs: 'many' is not allowed", "integer"]),
    "infinite": ({"settings/train/lr": float("inf")}, ["settings.train.lr: inf is not allowed", "finite"]),
    "name of the study": ({"study": "a/b"}, ["study: a study's name has 1 to 100 letters"]),
    "bucket without a name": ({"storage": "s3://"}, ["storage: a storage is a folder, or a URL such as s3://"]),
    "negative seed": ({"search/seed": -1}, ["search.seed: -1 is not allowed", "greater than or equal to 0"]),
    "negative seed of a trial": ({"space/seed": [-1]}, ["space.seed: -1 is not a whole number of at least 0"]),
    "split": (
        {"settings/split": {"train": 0.9, "val": 0.3, "test": 0.2}},
        ["settings.split: train + val + test must be 1"],
    ),
    "published split": ({"settings/split": "75/25"}, ["settings.split: no published split is called '75/25'", "80/20"]),
    # the space
    "space is a list": ({"space": ["rate"]}, ["space: must be a mapping from a name to a list of choices or a range"]),
    "empty list": ({"space/rate": []}, ["space: rate: the list is empty"]),
    "range upside down": ({"space/rate": {"low": 0.8, "high": 0.2}}, ["space: rate: low 0.8 must be below high 0.2"]),
    "bad key of a range": (
        {"space/rate": {"low": 0.1, "hihg": 0.2}},
        ["space: rate: a range has low, high and one of step or log, not hihg"],
    ),
    "unknown dimension": ({"space/metod": ["l1"]}, ["unknown dimension 'metod'. Did you mean 'method'?"]),
    "unknown setting as a dimension": (
        {"space/finetune.lrr": [0.1]},
        ["settings.finetune.lrr: unknown key. Did you mean 'lr'?"],
    ),
    "bad value of a setting as a dimension": ({"space/finetune.lr": [-1]}, ["settings.finetune.lr: -1 is not allowed"]),
    "unknown method": ({"space/method": ["l1", "lpf"]}, ["unknown method 'lpf'. Did you mean 'lfp'?", "taylor"]),
    "unknown model": ({"space/model": ["resnet21"]}, ["unknown model 'resnet21'. Did you mean 'resnet20'?"]),
    "unknown torchvision model": (
        {"space/model": ["torchvision:resnet181"]},
        ["torchvision model 'resnet181'", "resnet18"],
    ),
    "unknown dataset": ({"space/dataset": ["eurosta"]}, ["unknown dataset 'eurosta'. Did you mean 'eurosat'?"]),
    "no dataset": ({"space/dataset": GONE}, ["space.dataset: is required"]),
    "rate too large": ({"space/rate": [0.5, 1.5]}, ["space.rate: 1.5 is not allowed; it must be a number in [0, 1)"]),
    "rate is a word": ({"space/rate": ["abc"]}, ["space.rate: 'abc' is not allowed"]),
    "rate is a truth value": ({"space/rate": [True]}, ["space.rate: True is not allowed"]),
    "rate and macs_ratio": (
        {"space/macs_ratio": [0.5]},
        ["space: give one of rate, rates, macs_ratio, not rate and macs_ratio"],
    ),
    "neither rate nor macs_ratio": ({"space/rate": GONE}, ["space: give one of rate, rates, macs_ratio"]),
    "unknown list of rates": (
        {"space/rate": GONE, "space/rates": ["lfp-3"]},
        ["space.rates: unknown list of ratios 'lfp-3'. Did you mean 'lfp-", "[0.]+[0.4]*11"],
    ),
    "list of rates of another length": (
        {"space/rate": GONE, "space/rates": ["[0.5]*3"]},
        ["space.rates: resnet20 takes a list of 12 ratios, not 3"],
    ),
    "rates and an allocation": (
        {"space/rate": GONE, "space/rates": ["lfp-2"], "settings/pruning/allocation": "global"},
        ["space.rates: rates for each layer leave nothing to an allocation 'global'"],
    ),
    "steps of a rate": ({"settings/pruning/steps": 2}, ["settings.pruning.steps: several steps need macs_ratio"]),
    "unknown option of a method": (
        {"settings/pruning/options": {"lfp": {"log": "log2"}}},
        ["settings.pruning.options: unknown log of lfp 'log2'", "literal_eps"],
    ),
    "option of a method that has none": (
        {"settings/pruning/options": {"l1": {"log": "log1p"}}},
        ["settings.pruning.options: method 'l1' has no option 'log' ('log1p'); it has none"],
    ),
    "joint for one criterion": (
        {"space/allocation": ["joint"]},
        ["allocation: 'joint' needs the ranks of several criteria; method 'l1' has one"],
    ),
    "attention in a network without a place for it": (
        {"space/method": ["cap"], "space/model": ["mobilenet_v2"]},
        ["space.method: attention can be inserted into", "not into MobileNetV2"],
    ),
    "macs_ratio of zero": (
        {"space/rate": GONE, "space/macs_ratio": [0]},
        ["space.macs_ratio: 0 is not allowed; it must be a number in (0, 1]"],
    ),
    "unknown allocation": ({"space/allocation": ["globl"]}, ["unknown allocation 'globl'. Did you mean 'global'?"]),
    "grid too large": ({"space/seed": {"low": 0, "high": 200_000, "step": 1}}, ["space: the grid has 200001 cells"]),
    # networks
    "option of another network": (
        {"settings/model/stem": "small"},
        ["model 'resnet20' has no option 'stem'", "shortcut"],
    ),
    "unknown weights": (
        {"space/model": ["resnet18"], "settings/model/weights": "IMAGENET1K_V9"},
        ["unknown weights of resnet18 'IMAGENET1K_V9'", "IMAGENET1K_V1"],
    ),
    # data
    "dataset is not there": ({"space/dataset": ["ucmerced"]}, ["ucmerced", "data"]),
    "folder is not there": ({"space/dataset": ["folder:nowhere"]}, ["nowhere"]),
    # search
    "unknown sampler": ({"search/sampler": "tpee"}, ["search.sampler: 'tpee' is not allowed. Did you mean 'tpe'?"]),
    "grid over a continuous range": (
        {"space/rate": {"low": 0.1, "high": 0.5}},
        ["search.sampler: grid needs countable dimensions; rate is a continuous range", "Samplers that can: random"],
    ),
    "one objective only": (
        {"search/sampler": "cmaes"},
        ["search.sampler: cmaes serves one objective, not 2 (val_accuracy, macs)", "Samplers that can: grid"],
    ),
    "numeric ranges only": (
        {"search/sampler": "cmaes", "search/objectives": {"val_accuracy": "max"}, "space/method": ["l1", "l2"]},
        ["search.sampler: cmaes needs numeric ranges; method is a choice"],
    ),
    "direction": (
        {"search/objectives": {"macs": "down"}},
        ["search.objectives.macs: 'down' is not allowed. Allowed: max, min."],
    ),
    "no objective": ({"search/objectives": {}}, ["search.objectives: "]),
    "bound of nothing": ({"search/constraints": {"macs": {}}}, ["search.constraints.macs: give max, min or both"]),
    "bounds upside down": ({"search/constraints": {"macs": {"min": 2, "max": 1}}}, ["macs: min 2 is above max 1"]),
    "metric that nobody reports": ({"search/objectives": {"val_acuracy": "max"}}, ["val_acuracy", "val_accuracy"]),
    "constraint that nobody reports": (
        {"search/constraints": {"flops": {"max": 1}}},
        ["search.constraints.flops", "macs"],
    ),
    # the trial
    "trial without a function": ({"trial": "trials.prune"}, ["trial: a trial is named as package.module:function"]),
    "trial of no module": ({"trial": "trials.prone:run"}, ["trials.prone:run: there is no module 'trials.prone'"]),
    "trial of no package": ({"trial": "nowhere:run"}, ["nowhere:run: there is no module 'nowhere'"]),
    "trial of no function": ({"trial": "trials.prune:ran"}, ["trials.prune has no function 'ran'"]),
    "trial that cannot be imported": ({"trial": "raising:run"}, ["importing raising failed: RuntimeError: not today"]),
    "trial that needs what is missing": ({"trial": "needing:run"}, ["importing needing failed", "'nothing_such'"]),
    "trial with a syntax error": ({"trial": "broken:run"}, ["importing broken failed: SyntaxError"]),
}


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("command", ["plan", "search"])
@pytest.mark.parametrize("name", STUDIES)
def test_a_bad_study(name: str, command: str, tmp_path: Path) -> None:
    changes, fragments = STUDIES[name]
    (tmp_path / "raising.py").write_text("raise RuntimeError('not today')\n")
    (tmp_path / "needing.py").write_text("import nothing_such\n")
    (tmp_path / "broken.py").write_text("def run(:\n")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(study_with(changes)))
    before = sorted(tmp_path.iterdir())
    refused(run(command, "my.yaml"), *fragments)
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


FILES: dict[str, tuple[str | bytes, str]] = {
    "no YAML": ("space: [1", "my.yaml: is not valid YAML: line 1: expected ',' or ']'"),
    "tabs": ("space:\n\trate: [0.5]\n", "my.yaml: is not valid YAML: line 2: "),
    "a key twice": (
        "study: s\nspace:\n  rate: [0.1]\n  rate: [0.2]\n",
        "is not valid YAML: line 4: 'rate' stands twice",
    ),
    "code": (
        "study: !!python/object/apply:os.getcwd []\n",
        "is not valid YAML: line 1: the tag tag:yaml.org,2002:python/object/apply:os.getcwd is not read",
    ),
    "a list": ("- study\n", "my.yaml: must be a mapping with the keys study, trial and space"),
    "empty": ("", "my.yaml: must be a mapping with the keys study, trial and space"),
    "no text": (b"\xff\xfe\x00\x01", "my.yaml: cannot be read: "),
}


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("name", FILES)
def test_a_bad_file(name: str, tmp_path: Path) -> None:
    content, message = FILES[name]
    (tmp_path / "my.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(run("search", "my.yaml"), message)
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "no such file": (["search", "my.yml"], ["my.yml: there is no such file", "Shipped: ", "quickstart"]),
    "a shipped space, misspelt": (["search", "quikstart"], ["Did you mean 'quickstart'?"]),
    "--set without a value": (
        ["search", "quickstart", "--set", "search.trials"],
        ["--set search.trials: must be key.path=value"],
    ),
    "--set of no YAML": (
        ["search", "quickstart", "--set", "study=[1"],
        ["--set study=[1: the value is not valid YAML"],
    ),
    "--set below a value": (["search", "quickstart", "--set", "study.name=x"], ["study.name: 'study' is no mapping"]),
    "--set of an unknown key": (["search", "quickstart", "--set", "search.trails=3"], ["Did you mean 'trials'?"]),
    "--storage of a protocol": (["search", "quickstart", "--storage", "s4://b/x"], ["unknown protocol", "s4://"]),
    "front of no study": (["front", "nowhere"], ["there is no study 'nowhere' in results; there are no studies"]),
    "export of no study": (["export", "nowhere", "--out", "m"], ["there is no study 'nowhere' in results"]),
    "fetch of no dataset": (["data", "fetch", "eurosta"], ["unknown dataset 'eurosta'. Did you mean 'eurosat'?"]),
    "fetch of a folder": (["data", "fetch", "folder:x"], ["dataset 'folder:x'", "does not exist"]),
    "verify of no dataset": (["data", "verify", "eurosta"], ["Did you mean 'eurosat'?"]),
    "verify of what is not there": (["data", "verify", "folder:x"], ["dataset 'folder:x'", "does not exist"]),
    "ui of no record": (["ui"], ["there is no MLflow record at sqlite:///"]),
}


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("name", OPTIONS)
def test_a_bad_option(name: str, tmp_path: Path) -> None:
    arguments, fragments = OPTIONS[name]
    refused(run(*arguments), *fragments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch"], "No such command 'serch'"),
        (["search"], "Missing argument 'SPACE'"),
        (["search", "quickstart", "--freesh"], "No such option: --freesh"),
        (["export", "quickstart"], "Missing option '--out'"),
        (["ui", "--port", "0"], "Invalid value for '--port'"),
        (["ui", "--port", "http"], "Invalid value for '--port'"),
    ],
)
def test_a_bad_command(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run(*arguments)
    assert result.status == 2
    assert result.out == ""
    assert message in " ".join(result.err.split())
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def _images(folder: Path, size: int, count: int) -> None:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(size).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")


def _search_own_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **settings: Any) -> Any:
    """Images are read by the driver, so that Ray is not needed to refuse them."""
    changes = {"space/dataset": ["folder:mine"]} | {f"settings/{name}": value for name, value in settings.items()}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(study_with(changes)))
    monkeypatch.setattr(tune, "connected", lambda *_, **__: nullcontext())
    return run("search", "my.yaml")


def test_images_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("lake", "road"):
        _images(tmp_path / "data" / "mine" / label, 32, 10)
    broken = tmp_path / "data" / "mine" / "lake" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    refused(
        _search_own_images(monkeypatch, tmp_path),
        "dataset 'folder:mine': 1 of 20 images cannot be read:",
        "lake/3.png",
        "on_error: skip",
    )
    result = run("data", "verify", "folder:mine")
    refused(result, "dataset 'folder:mine': 1 of 20 images cannot be read")
    assert "lake/3.png" in result.out


def test_images_of_several_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _images(tmp_path / "data" / "mine" / "lake", 32, 10)
    _images(tmp_path / "data" / "mine" / "road", 40, 10)
    refused(
        _search_own_images(monkeypatch, tmp_path, input_size=None),
        "images differ in size: 32x32 (10), 40x40 (10); set input_size",
    )


def test_refused_images_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _images(tmp_path / "data" / "mine" / "lake", 32, 10)
    _images(tmp_path / "data" / "mine" / "road", 40, 10)
    refused(_search_own_images(monkeypatch, tmp_path, input_size=None), "images differ in size")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("storage", ["file", "file/below"])
def test_a_storage_that_cannot_be_written(storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(tune, "connected", lambda *_, **__: nullcontext())
    refused(run("search", "quickstart", "--storage", storage), "file", "cannot be written: Not a directory")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup. This could happen because\nthe raylet failed")

    monkeypatch.setattr(tune.ray, "init", init)
    result = run("search", "quickstart", "--address", "local")
    refused(result, "Ray did not start on this machine: The current node timed out during startup.")
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:" + "9" * 5000, "x" * 300 + ":1", "ray://", "a b", "\x1b[31m:1"])
def test_an_address_that_is_none(address: str) -> None:
    result = run("search", "quickstart", "--address", address)
    refused(result, "--address ")
    assert len(result.err) < 500
    assert "\x1b" not in result.err


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("/proc/none/x", "/proc/none/x: cannot be written: No such file or directory (/proc)"),
        ("a" * 300, "File name too long"),
        ("/".join(["a" * 200] * 30), "File name too long"),
        ("~nobody-here/x", "there is no home folder of the user 'nobody-here'"),
        ("loop/x", "Symlink loop"),
        ("a\0b", "has a character that no text may have"),
        ("\udcff", "has a character that no text may have"),
        ("", "a storage is a folder, or a URL"),
    ],
)
def test_a_storage_that_the_system_refuses(storage: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    refused(run("search", "quickstart", "--storage", storage), message)
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


@pytest.mark.parametrize("name", ["mlflow.db", "store", "mlartifacts", "MLflow.db-wal", "Store"])
def test_a_study_is_not_called_as_what_a_storage_holds(name: str) -> None:
    refused(run("plan", "quickstart", "--set", f"study={name}"), f"study: {name!r} is the name of something that every")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("010", "'010' is not allowed: must be an integer; write 8 without quotes if that is what is meant"),
        ("1:30", "'1:30' is not allowed: must be an integer; write 90 without quotes"),
        ("1_000", "'1_000' is not allowed: must be an integer"),
        ("0x10", "'0x10' is not allowed: must be an integer; write 16 without quotes"),
        ("'3'", "'3' is not allowed: must be an integer; write 3 without quotes"),
        ("yes", "True is not allowed: must be an integer (YAML reads yes and on as true, no and off as false)"),
        ("2.5", "2.5 is not allowed: must be an integer"),
        ("1e999", "line 1: 1e999 is too large for a number"),
        (".inf", "inf is not allowed: must be a finite number"),
        ("9" * 5000, "9999 is too large: integers have 64 bits"),
        ("9223372036854775808", "9223372036854775808 is too large: integers have 64 bits"),
        ("2020-13-45", "2020-13-45 would be a date in YAML: put it in quotes"),
        ("!!python/name:os.system", "the tag tag:yaml.org,2002:python/name:os.system is not read"),
        ("&a [*a]", "is nested more than 40 levels deep"),
        ("[" * 3000, "it is nested too deeply"),
        ('"\\0"', "has a character that no text may have"),
        ("{1: 2}", "the value is not valid YAML: 1: a key must be text; put it in quotes"),
    ],
)
def test_values_that_look_like_something_else(text: str, message: str) -> None:
    result = run("plan", "quickstart", "--set", f"settings.train.epochs={text}")
    refused(result, message)
    assert len(result.err) < 1000


def test_aliases_that_repeat_one_another_without_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    refused(run("plan", "bomb.yaml"), "it has more than 1000000 values, as aliases repeat them")
    merged = ["a0: &a0 {x: 1}"]
    merged += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    (tmp_path / "merged.yaml").write_text("\n".join(merged))
    refused(run("plan", "merged.yaml"), "a0: unknown key.")


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({f"key{i}": i for i in range(1000)}))
    result = run("plan", "my.yaml")
    refused(result, "my.yaml: study: is required", "and 983 more mistakes")
