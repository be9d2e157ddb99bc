"""RemoteTrimmer's pruning: the costs that follow from its rule alone, and the options of its criterion."""

from functools import partial

import pytest
import torch

from rssearch import models, pruning
from rssearch.errors import InputError
from rssearch.pruning.criteria.bn_scale import bn_scale
from tests.support.apart import apart
from tests.support.networks import network

# rate -> millions of parameters, billions of conv and linear MACs of one image (64x64, 10 classes)
RESNET18 = {
    0.0: (11.182, 0.1481),
    0.3: (5.465, 0.0735),
    0.5: (2.801, 0.0394),
    0.7: (1.000, 0.0151),
    0.9: (0.111, 0.0022),
}
VGG16 = {
    0.0: (134.310, 1.3724),
    0.3: (95.877, 0.6983),
    0.5: (71.891, 0.3832),
    0.7: (48.849, 0.1599),
    0.9: (27.208, 0.0395),
}


@pytest.mark.parametrize("name", ["resnet18", pytest.param("vgg16_bn", marks=pytest.mark.slow)])
def test_costs_of_the_rates(name):
    expected = RESNET18 if name == "resnet18" else VGG16
    assert (_costs if name == "resnet18" else partial(apart, _costs))(name, [*expected]) == expected


def _costs(name, rates):
    """Millions of parameters and billions of MACs that each rate leaves of a network."""
    model, _, graph = network(name, 64)
    scores, found = pruning.score(model, graph, "remotetrimmer"), {}
    for rate in rates:
        kept = pruning.allocate(graph, scores, allocation=pruning.METHODS["remotetrimmer"].allocation, rate=rate)
        found[rate] = round(graph.params(kept) / 1e6, 3), round(graph.conv_linear_macs(kept) / 1e9, 4)
    return found


def test_the_parts_score_alike_and_differ_in_the_training():
    model, _, graph = network("resnet20")
    methods = [pruning.get_method(name) for name in ("remotetrimmer", "cap", "aml")]
    assert [(dict(m.train), dict(m.finetune)) for m in methods] == [
        ({"attention": True}, {"loss": "adaptive_mining"}),
        ({"attention": True}, {}),
        ({}, {"loss": "adaptive_mining"}),
    ]
    expected = bn_scale(model, graph, None, 0)
    for method in methods:
        assert method.allocation == "uniform"
        assert method.options == {"shortcut_norms": ("count", "ignore")}
        scores = pruning.score(model, graph, method.name)
        assert all(torch.equal(scores[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "options", "shortcut"), [("resnet18", {}, "downsample"), ("resnet20", {"shortcut": "B"}, "shortcut")]
)
def test_norms_of_shortcuts_may_be_left_out(name, options, shortcut):
    model, _, graph = network(name, **options)
    counted = pruning.score(model, graph, "remotetrimmer", shortcut_norms="count")
    ignored = pruning.score(model, graph, "remotetrimmer", shortcut_norms="ignore")
    group, stage = "layer2.0.conv2", model.layer2
    on_shortcut = getattr(stage[0], shortcut)[1].weight.abs()
    scales = torch.stack([block.bn2.weight.abs() for block in stage]).detach()
    assert torch.allclose(ignored[group], scales.mean(0))
    assert torch.allclose(counted[group], torch.cat([scales, on_shortcut.detach()[None]]).mean(0))
    assert torch.equal(counted["layer1.0.conv1"], ignored["layer1.0.conv1"])
    with pytest.raises(InputError, match="unknown shortcut_norms"):
        pruning.score(model, graph, "remotetrimmer", shortcut_norms="none")


def test_folded_attention_is_what_the_scores_see():
    """Attention that is the same for all images multiplies the scores of the normalisations it stands behind."""
    from rssearch.models import attention

    torch.manual_seed(0)
    model = models.create("resnet20", 10)  # all scales are 1
    attention.insert(model)
    values = {name: torch.rand(m.norm.num_features) for name, m in attention._inserted(model)}
    attention.fold(model, values)
    graph = pruning.trace(model, torch.randn(1, 3, 32, 32))
    scores = pruning.score(model, graph, "remotetrimmer")
    assert torch.allclose(scores["layer1.1.conv1"], values["layer1.1.bn1"])
    assert torch.allclose(scores["layer3.0.conv2"], sum(values[f"layer3.{i}.bn2"] for i in range(3)) / 3)
