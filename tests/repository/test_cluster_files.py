"""The files and commands of docs/clusters.md are what Ray, KubeRay and we take; `test_cluster` runs some."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml

from rssearch import cli
from rssearch.config import shipped
from tests.support.buckets import s3  # noqa: F401

ROOT = Path(__file__).parents[2]
CLUSTERS = ("cluster.yaml", "cluster.local.yaml")
PAGES = ("README.md", "docs/clusters.md")


def prepared(name: str, **places: str) -> dict[str, Any]:
    """A cluster's file with its places filled in, as Ray completes and checks it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = (ROOT / name).read_text(encoding="utf-8")
    for place, value in places.items():
        text = text.replace(place, value)
    config: dict[str, Any] = prepare_config(yaml.safe_load(text))
    validate_config(config)
    return config


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_accepts_the_file_and_it_brings_what_the_installation_needs(name: str) -> None:
    config = prepared(name)
    mounts = {Path(remote).name: local for remote, local in config["file_mounts"].items()}
    assert all(remote == local and (ROOT / local).exists() for remote, local in mounts.items())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {pattern.removesuffix("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    texts = {project["project"]["readme"], *project["project"]["license-files"]}
    assert mounts.keys() == packages | {"trials", "search_spaces"} | texts | {"pyproject.toml", "constraints.txt"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {part for line in tracked.splitlines() for part in Path(line).parts}
    assert not names & {pattern.removeprefix("**/") for pattern in config["rsync_exclude"]}


def test_both_clusters_are_set_up_alike() -> None:
    aws, own = (prepared(name) for name in CLUSTERS)
    for key in ("file_mounts", "rsync_exclude", "worker_start_ray_commands"):
        assert aws[key] == own[key]
    assert aws["setup_commands"][-3:] == own["setup_commands"]
    start = aws["head_start_ray_commands"]
    assert own["head_start_ray_commands"] == [start[0], f"RAY_enable_autoscaler_v2=0 {start[1]}"]


@pytest.fixture(scope="module")
def iam() -> Iterator[None]:
    """AWS's own policies, for the simulated AWS that starts after this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
        yield


@pytest.mark.usefixtures("iam", "s3")
def test_aws_gives_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.aws import config as aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray puts the key that it makes
    monkeypatch.setattr(aws, "time", SimpleNamespace(sleep=lambda seconds: None))  # the real AWS is slower
    config = AWSNodeProvider.fillout_available_node_types_resources(prepared("cluster.yaml", IMAGE="ami-760aaa0f"))
    config = aws.bootstrap_aws(config)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 4}
    assert types["gpu"]["resources"].items() >= {"CPU": 8, "GPU": 1}.items()
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for kind, node_type in (("head", "head"), ("worker", "gpu")):
        tags = {"ray-node-type": kind, "ray-user-node-type": node_type, "ray-node-name": node_type}
        provider.create_node(types[node_type]["node_config"], tags, 1)
        (node,) = provider.non_terminated_nodes({"ray-node-type": kind})
        made = provider._get_node(node).meta.data
        wanted = types[node_type]["node_config"]
        assert (made["InstanceType"], made["ImageId"]) == (wanted["InstanceType"], "ami-760aaa0f")


def test_a_submitted_job_takes_the_code_along_and_nothing_else(tmp_path: Path) -> None:
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    tree, package = tmp_path / "tree", tmp_path / "package.zip"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    links = [name for name in tracked if (ROOT / name).is_symlink()]
    for name in links:
        tree.mkdir(exist_ok=True)
        (tree / name).symlink_to((ROOT / name).readlink())
    for name in (name for name in tracked if (ROOT / name).is_file()):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    for folder in (
        "results/s/store",
        "data/eurosat",
        ".git/objects",
        ".venv/lib",
        "rssearch/__pycache__",
        ".mypy_cache",
    ):
        (tree / folder).mkdir(parents=True)
        (tree / folder / "large").write_bytes(bytes(10 << 20))
    create_package(str(tree), package, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    left = {"docs", "tests", "benchmarks"}
    assert set(zipfile.ZipFile(package).namelist()) >= {"search.py", "trials/prune.py", "rssearch/data/__init__.py"}
    files = {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}
    behind = {
        f"{link}{name.removeprefix(f'rssearch/{link}')}"
        for link in links
        for name in tracked
        if f"rssearch/{link}/" in name
    }
    assert links == ["search_spaces", "trials"]
    assert files == {name for name in tracked if name and name.split("/")[0] not in left} - {*links} | behind
    assert package.stat().st_size < 3 << 20


def test_the_rayjob_has_the_fields_of_its_schema_and_our_versions() -> None:
    job = yaml.safe_load((ROOT / "kubernetes" / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec.keys() <= {
        "entrypoint",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }
    (ray,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == ray
    assert f"FROM rayproject/ray:{ray}-" in (ROOT / "kubernetes" / "Dockerfile").read_text(encoding="utf-8")
    assert cluster.keys() <= {
        "rayVersion",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    }
    (worker,) = cluster["workerGroupSpecs"]
    assert worker.keys() == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert cluster["headGroupSpec"].keys() == {"rayStartParams", "template"}
    for group in (cluster["headGroupSpec"], worker):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"]["requests"] == container["resources"]["limits"]
    check(shlex.split(spec["entrypoint"]))


def commands(page: str) -> Iterator[str]:
    """The commands of a page: in its code blocks and tables."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for line in text.splitlines():
        found = [line.strip()] if line.startswith("    ") else re.findall(r"`([^`]+)`", line) * line.startswith("| ")
        for command in found:
            for part in command.partition(" # ")[0].split(" && "):
                if re.match(r"(rssearch|ray(?! job)|ray job|kubectl|docker) \w+ \S", part.strip()):
                    yield part.strip()


def check(arguments: list[str]) -> None:
    """A command of ours or of Ray's has these arguments and options; its files and spaces exist."""
    program, *rest = arguments
    for file in rest:
        if file.endswith((".yaml", "Dockerfile")) and file != "my_study.yaml":
            assert (ROOT / file).is_file(), file
    if program in ("kubectl", "docker"):
        return
    if program == "rssearch":
        context = parsed(typer.main.get_command(cli.app), rest)
        if (space := context.params.get("space")) not in (None, "SPACE", "my_study.yaml"):
            assert shipped.find(space).is_file()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, of Pydantic
        from ray.scripts.scripts import cli as ray

    context = parsed(ray, rest)
    match context.info_name:
        case "submit" if "script" in context.params:
            assert context.params["script"] == "search.py"
            check(["rssearch", "search", *context.params["script_args"]])
        case "submit":
            python, script, *search = context.params["entrypoint"]
            assert (python, script) == ("python", "search.py")
            check(["rssearch", "search", *search])
        case "exec":
            inner = shlex.split(context.params["cmd"])
            if inner[0] in ("rssearch", "ray"):
                check(inner)


def parsed(command: Any, arguments: list[str]) -> Any:
    """The context of the innermost command that the arguments name. Raises click's UsageError for a wrong option."""
    while hasattr(command, "commands"):
        command, name, arguments = command.commands[arguments[0]], arguments[0], arguments[1:]
    return command.make_context(name, list(arguments))


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_the_pages_can_be_typed(page: str) -> None:
    found = list(commands(page))
    assert len(found) >= 10
    for command in found:
        check(shlex.split(command))


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("rssearch search nothing", "no shipped space of that name"),
        ("rssearch search quickstart --stroage x", "--stroage"),
        ("ray submit cluster.yaml search.py quickstart --stroage x", "--stroage"),
        ("ray up --yess cluster.yaml", "--yess"),
        ("ray up no.yaml", "no.yaml"),
        ("ray exec cluster.yaml 'rssearch front'", "(?i)missing"),
    ],
)
def test_a_command_that_cannot_be_typed_is_noticed(command: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        check(shlex.split(command))


def test_search_is_the_script_that_is_submitted() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "search.py"), "nothing"], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing: there is no such file, and no shipped space of that name.")
    assert json.dumps("quickstart")[1:-1] in done.stderr
