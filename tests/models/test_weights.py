"""Files of weights: what is read, what is refused and with which words, and what goes into a network."""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rssearch import models
from rssearch.errors import InputError
from rssearch.models import weights

State = dict[str, Tensor]


def state(name: str = "resnet20", classes: int = 10, **options: Any) -> State:
    torch.manual_seed(3)
    return models.create(name, classes, **options).state_dict()


def prefixed(prefix: str, tensors: State) -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def saved(folder: Path, content: Any, name: str = "my.pt") -> str:
    torch.save(content, folder / name)
    return str(folder / name)


def same(model: nn.Module, tensors: State) -> bool:
    found = model.state_dict()
    return found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module.", "_orig_mod.", "net.backbone."])
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model", "net"])
def test_the_usual_checkpoints_are_read(tmp_path: Path, key: str | None, prefix: str) -> None:
    tensors = state()
    content: Any = prefixed(prefix, tensors)
    if key is not None:
        content = {key: content, "epoch": 3, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5)}
    assert same(models.create("resnet20", 10, weights=saved(tmp_path, content)), tensors)


@pytest.mark.parametrize("name", ["a.pth", "a.ckpt", "a.bin", "a.pth.tar", "A.PT"])
def test_endings(tmp_path: Path, name: str) -> None:
    assert same(models.create("resnet20", 10, weights=saved(tmp_path, state(), name)), state())


def test_safetensors_and_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "my.safetensors"
    save_file(state(), path)
    found = weights.read(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert same(models.create("resnet20", 10, weights=str(path)), state())


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.zeros(1)})
    before = weights.read(path).sha256
    saved(tmp_path, {"a": torch.ones(1)})
    assert weights.read(path).sha256 != before


def test_half_precision_becomes_that_of_the_network(tmp_path: Path) -> None:
    half = {name: t.half() if t.is_floating_point() else t for name, t in state().items()}
    model = models.create("resnet20", 10, weights=saved(tmp_path, half))
    assert torch.equal(model.state_dict()["conv1.weight"], half["conv1.weight"].float())


def test_what_is_no_part_of_the_network_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = {"state_dict": prefixed("model.", state()) | {"criterion.weight": torch.ones(10)}}
    with caplog.at_level(logging.WARNING):
        assert same(models.create("resnet20", 10, weights=saved(tmp_path, content)), state())
    assert "left out, as resnet20 has none: criterion.weight" in caplog.text


def test_a_profilers_buffers_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = state() | {"total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)}
    with caplog.at_level(logging.WARNING):
        assert same(models.create("resnet20", 10, weights=saved(tmp_path, content)), state())
    assert "total_ops, layer1.0.total_params" in caplog.text


def test_auxiliary_heads_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = state("torchvision:lraspp_mobilenet_v3_large", 3)
    content = tensors | {"aux_classifier.0.weight": torch.zeros(2)}
    with caplog.at_level(logging.WARNING):
        path = saved(tmp_path, content)
        assert same(models.create("torchvision:lraspp_mobilenet_v3_large", 3, weights=path), tensors)
    assert "has none: aux_classifier.0.weight" in caplog.text


def test_counts_of_batches_may_be_missing(tmp_path: Path) -> None:
    old = {name: tensor for name, tensor in state().items() if not name.endswith("num_batches_tracked")}
    assert same(models.create("resnet20", 10, weights=saved(tmp_path, old)), state())


class _Object:
    pass


class _Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (nn.Linear(1, 1), r"holds more than tensors: an object of torch\.nn\.modules\.linear\.Linear"),
        ({"model": nn.Linear(1, 1)}, "holds more than tensors"),
        ({"state_dict": {}, "other": _Object()}, "holds more than tensors: an object of .*_Object"),
        ([1, 2], "holds list, no tensors by name"),
        ({"epoch": 1}, r"has no state_dict under state_dict, .*; its keys: 'epoch'"),
        ({}, "its keys: none"),
    ],
)
def test_what_holds_no_tensors_by_name_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(InputError, match=said) as error:
        weights.read(path)
    assert str(error.value).startswith(f"weights {path}: ")


def test_no_code_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Reading it could run code, so it is not read"):
        weights.read(saved(tmp_path, {"state_dict": state(), "evil": _Runs(tmp_path / "ran")}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x01" * 100, b"PK\x03\x04" + b"\0" * 50])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"weights .*{name}: "):
        weights.read(tmp_path / name)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, state()))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="is cut off or damaged"):
        weights.read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        models.create("resnet20", 10, weights=str(tmp_path / "no.pt"))
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        weights.read(tmp_path)


@pytest.mark.parametrize(
    ("made", "asked", "said"),
    [
        (
            ("resnet18", 10, {"stem": "small"}),
            ("resnet18", 10, {}),
            r"1 tensor has another shape \(conv1.weight is \[64, 3, 3, 3\], not \[64, 3, 7, 7\]\). "
            "They fit the option stem: small.",
        ),
        (("resnet20", 21, {}), ("resnet20", 10, {}), r"2 tensors have another shape .*\. They fit 21 classes\."),
        (("resnet20", 10, {"in_channels": 13}), ("resnet20", 10, {}), r"They fit 13 bands\."),
        (("resnet20", 21, {"in_channels": 4}), ("resnet20", 10, {}), r"They fit 21 classes and 4 bands\."),
        (
            ("resnet20", 10, {"shortcut": "A"}),
            ("resnet20", 10, {"shortcut": "B"}),
            r"10 tensors are missing \(the first: 'layer2.0.shortcut.0.weight'\); 2 tensors are unexpected .*"
            "They fit the option shortcut: A.",
        ),
        (("resnet34", 10, {}), ("resnet18", 10, {}), "They fit resnet34 with 10 classes and 3 bands."),
        (("unet", 3, {}), ("resnet20", 3, {}), "tensors are missing .*tensors are unexpected"),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(
    tmp_path: Path, made: tuple[str, int, Any], asked: tuple[str, int, Any], said: str
) -> None:
    path = saved(tmp_path, prefixed("module.", state(made[0], made[1], **made[2])))
    with pytest.raises(InputError, match=said):
        models.create(asked[0], asked[1], weights=path, **asked[2])


def test_one_tensor_too_few_and_one_too_many(tmp_path: Path) -> None:
    tensors = state()
    del tensors["fc.bias"]
    with pytest.raises(InputError, match=r"1 tensor is missing \('fc.bias'\); 1 tensor is unexpected \('odd'\)\.$"):
        models.create("resnet20", 10, weights=saved(tmp_path, tensors | {"odd": torch.zeros(2)}))


@pytest.mark.parametrize(
    ("value", "file"), [("a.pt", True), ("x/y", True), ("IMAGENET1K_V1", False), ("a1_in1k", False)]
)
def test_a_name_or_a_file(value: str, file: bool) -> None:
    assert weights.is_file(value) is file


def repacked(content: Any, *, compression: int = zipfile.ZIP_STORED, replace: dict[str, bytes] | None = None) -> bytes:
    """A file of torch's, packed again."""
    before, after = io.BytesIO(), io.BytesIO()
    torch.save(content, before)
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(after, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, (replace or {}).get(name.rpartition("/")[2], old.read(name)))
    return after.getvalue()


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "my.pt"
    path.write_bytes(repacked(state()))
    assert same(models.create("resnet20", 10, weights=str(path)), state())
    path.write_bytes(repacked(state(), compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(InputError, match="is a compressed archive, which torch"):
        weights.read(path)


@pytest.mark.parametrize(
    "operations",
    [
        b"\x80\x02K\x01Q.",
        b"\x80\x02.",
        b"\x80\x02h\x05.",
        b"\x80\x02X\xff\xff\xff\x7f.",
        b"\x80\x02}]K\x03s.",
        b"(" * 99_999,
    ],
    ids=["storage", "empty", "memo", "length", "unhashable", "marks"],
)
def test_a_damaged_pickle_is_refused_whatever_it_raises(tmp_path: Path, operations: bytes) -> None:
    path = tmp_path / "my.pt"
    path.write_bytes(repacked({"a": torch.ones(1)}, replace={"data.pkl": operations}))
    with pytest.raises(InputError, match=r"weights .*my\.pt: "):
        weights.read(path)


def test_what_is_neither_archive_nor_pickle_is_no_file_of_torch(tmp_path: Path) -> None:
    (tmp_path / "my.pt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="is no file that torch"):
        weights.read(tmp_path / "my.pt")


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    for name in ("pipe.pt", "zero.pt"):
        with pytest.raises(InputError, match="cannot be read: it is no regular file"):
            weights.read(tmp_path / name)


@pytest.mark.parametrize(("path", "said"), [("a\0.pt", "NUL"), ("~no-such-user-here/a.pt", "no home folder")])
def test_a_path_that_cannot_be(path: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        weights.read(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.to_sparse(), "the tensor 'conv1.weight' is sparse"),
        (lambda t: t.to("meta"), "the tensor 'conv1.weight' is without values"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "the tensor 'conv1.weight' is quantized"),
        (lambda t: (t * 100).to(torch.int8), "tensor 'conv1.weight' holds int8"),
        (lambda t: t.bool(), "tensor 'conv1.weight' holds bool"),
        (lambda t: t.to(torch.complex64), "tensor 'conv1.weight' holds complex64"),
        (lambda t: t * float("nan"), "tensor 'conv1.weight' has values that are not finite"),
        (lambda t: t / 0, "tensor 'conv1.weight' has values that are not finite"),
        (lambda t: t.double() * 1e300, "tensor 'conv1.weight' has values that are not finite .*as torch.float32"),
    ],
    ids=["sparse", "meta", "quantized", "int8", "bool", "complex", "nan", "inf", "overflow"],
)
@pytest.mark.filterwarnings("ignore")  # torch's, of its own kinds of tensors
def test_values_that_a_network_cannot_have_are_refused(
    tmp_path: Path, change: Callable[[Tensor], Tensor], said: str
) -> None:
    tensors = state()
    path = saved(tmp_path, tensors | {"conv1.weight": change(tensors["conv1.weight"])})
    with pytest.raises(InputError, match=said):
        models.create("resnet20", 10, weights=path)
    with pytest.raises(InputError, match=said):  # before anything starts, too
        models.check_weights(weights.read(path), models.Network("resnet20", 10, 3, {}), None)


def test_infinities_stay_where_the_network_has_them() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights.load_into(model, state)
    assert torch.equal(model.state_dict()["mask"], state["mask"])


def test_two_networks_in_a_file_are_not_chosen_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path, {"model": state(), "net": state()})
    with pytest.raises(InputError, match="has a state_dict under each of model, net; save the one that is meant"):
        weights.read(path)
    path = saved(tmp_path, {"model": state(), "model_ema": prefixed("module.", state()), "epoch": 3})
    with caplog.at_level(logging.WARNING):
        assert same(models.create("resnet20", 10, weights=path), state())
    assert "left out, as they lie beside the network's: model_ema" in caplog.text


def test_shapes_that_cost_a_file_nothing_cost_the_reader_nothing(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[4611686018427387904,0],"data_offsets":[0,0]}}'
    (tmp_path / "my.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match=r"1 tensor is unexpected \('a'\)\.$"):
        models.create("resnet20", 10, weights=str(tmp_path / "my.safetensors"))
    many = torch.ones(1).expand(2**40)
    path = saved(tmp_path, state() | {"fc.weight": many[:, None].expand(2**40, 64), "fc.bias": many})
    with pytest.raises(InputError, match=r"2 tensors have another shape .*, not \[10, 64\]\)\.$"):
        models.create("resnet20", 10, weights=path)
