"""Networks of the model zoos in bundles: rebuilt without weights of theirs, and without a download."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from rssearch import models, pruning
from rssearch.bundle.files import ARCHITECTURE, WEIGHTS, encode
from rssearch.bundle.network import build
from rssearch.errors import InputError
from rssearch.models import extras
from rssearch.testing.networks import randomise

SHAPE = (3, 64, 64)


def bundled(name: str) -> tuple[dict[str, bytes], torch.nn.Module]:
    """The files of a bundle that `build` reads, and the pruned network in it."""
    model = randomise(models.create(name, 3)).eval()
    graph = pruning.trace(model, torch.zeros(1, *SHAPE))
    kept = {group: range((of.width + 1) // 2) for group, of in graph.groups.items()}
    pruned, spec = pruning.cut(model, graph, kept)
    about = {"model": name, "options": {}, "num_classes": 3, "input_shape": SHAPE, "spec": spec}
    weights = save({key: tensor.contiguous() for key, tensor in pruned.state_dict().items()})
    return {ARCHITECTURE: encode(about), WEIGHTS: weights}, pruned


# The second holds filters that are no weights; the third gives a dictionary, the last changes its images first.
@pytest.mark.parametrize(
    "name",
    [
        "timm:mobilenetv3_small_050",
        "timm:resnetblur18",
        "torchvision:lraspp_mobilenet_v3_large",
        "torchvision:googlenet",
    ],
)
def test_a_network_of_a_zoo_is_rebuilt(name: str) -> None:
    files, pruned = bundled(name)
    rebuilt = build(files, Path("net"))
    images = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), pruned(images))
    assert not any(tensor.is_meta for tensor in [*rebuilt.parameters(), *rebuilt.buffers()])


def test_weights_that_do_not_fit_and_extras_that_are_missing_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = bundled("smp:fpn/mobilenet_v2")
    tensors = load(files[WEIGHTS])
    tensors.pop("segmentation_head.0.bias")
    with pytest.raises(InputError, match=r"^net: .*Missing key.*segmentation_head"):
        build({**files, WEIGHTS: save(tensors)}, Path("net"))
    monkeypatch.setattr(extras, "is_installed", lambda _: False)
    with pytest.raises(InputError, match=r"^net: .*pip install 'rssearch\[smp\]'"):
        build(files, Path("net"))
