"""Compound pruning against the pseudo-code of its rule, filter by filter."""

import copy
import itertools
import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rssearch import models, pruning
from rssearch.errors import InputError
from rssearch.pruning import Elasticity
from rssearch.pruning.criteria.compound import compound
from tests.support.apart import apart
from tests.support.networks import materialised, network, randomise

LEVELS = 7  # so few values that most are equal to others


def pairs_of(name):
    """The convolutions with the normalisation behind each, in order of execution, written out."""
    if name == "vgg16_cifar":
        return [(f"features.conv{i}", f"features.norm{i}") for i in range(1, 14)]
    blocks = {"resnet20": (3, 3, 3), "resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}[name]
    pairs = [("conv1", "bn1")]
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            pairs += [(f"{prefix}.conv{i}", f"{prefix}.bn{i}") for i in ((1, 2, 3) if name == "resnet50" else (1, 2))]
            if block == 0 and (name == "resnet50" or (name == "resnet18" and stage > 1)):
                pairs.append((f"{prefix}.downsample.0", f"{prefix}.downsample.1"))
    return pairs


def draw(name, seed=0, levels=LEVELS):
    """A network with scales of few values and of either sign, and a record of few values."""
    model, _, graph = network(name)
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    record = {}
    for conv, norm in pairs_of(name):
        width = model.get_submodule(conv).out_channels
        record[conv] = torch.randint(1, levels + 1, (width,), generator=generator).float() / levels
        scale = torch.randint(1, levels + 1, (width,), generator=generator).float() / levels
        sign = torch.randint(0, 2, (width,), generator=generator) * 2 - 1
        model.get_submodule(norm).weight.data.copy_(scale * sign)
    return model, graph, record


def by_the_book(name, model, record, rate, *, coupled):
    """The pseudo-code: group (a list of convolutions) -> kept channels.

    `coupled` says which convolutions compute the same channels.
    """
    filters = [(conv, norm, i) for conv, norm in pairs_of(name) for i in range(len(record[conv]))]
    k = math.floor(Fraction(str(rate)) * len(filters))
    by_elasticity = sorted(filters, key=lambda f: record[f[0]][f[2]].item())  # sorted() is stable
    by_scale = sorted(filters, key=lambda f: abs(model.get_submodule(f[1]).weight[f[2]].item()))
    rank = {(conv, i): r for r, (conv, _, i) in enumerate(by_elasticity)}
    unimportant = [{(conv, i) for conv, _, i in ordered[:k]} for ordered in (by_elasticity, by_scale)]
    kept = {}
    for convs in coupled:
        width = len(record[convs[0]])
        cut = [all((c, i) in flags for c in convs for flags in unimportant) for i in range(width)]
        least = max(1, math.ceil(width * 0.05))
        gone = sorted((i for i in range(width) if cut[i]), key=lambda i: max(rank[c, i] for c in convs))
        left = width - len(gone)
        revived = gone[len(gone) - max(0, least - left) :] if left < least else []
        kept[convs[0]] = tuple(i for i in range(width) if not cut[i] or i in revived)
    return kept


def inner(name):
    convs = [conv for conv, _ in pairs_of(name)]
    if name == "vgg16_cifar":
        return [[conv] for conv in convs[:12]]
    last = ("conv3", "0") if name == "resnet50" else ("conv2", "0")
    return [[conv] for conv in convs[1:] if not conv.endswith(last)]


def stages(name):
    """Scheme B: the inner ones, and those that additions couple."""
    convs = [conv for conv, _ in pairs_of(name)]
    if name == "vgg16_cifar":
        return [[conv] for conv in convs]
    coupled = []
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        ends = ("conv3", "downsample.0") if name == "resnet50" else ("conv2", "downsample.0")
        coupled.append([conv for conv in convs if conv.startswith(stage) and conv.endswith(ends)])
    if name == "resnet18":
        coupled[0].insert(0, "conv1")  # the identity shortcut of the first block
    else:
        coupled.insert(0, ["conv1"])
    return [*inner(name), *(group for group in coupled if group)]


RATES = [0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 0.99]


@pytest.mark.parametrize(("name", "rate"), list(itertools.product(["resnet20", "resnet18"], RATES)))
@pytest.mark.parametrize("scheme", ["A", "B"])
def test_against_the_pseudo_code(name, rate, scheme):
    model, graph, record = draw(name)
    expected = by_the_book(name, model, record, rate, coupled=inner(name) if scheme == "A" else stages(name))
    scores = pruning.score(model, graph, "compound", elasticity=record, scheme=scheme)
    kept = pruning.allocate(graph, scores, allocation="joint", rate=rate)
    assert scores.keys() == expected.keys()
    for group, channels in kept.items():
        assert channels == expected.get(group, tuple(range(graph.groups[group].width))), group


@pytest.mark.parametrize("scheme", ["A", "B"])
def test_vgg_against_the_pseudo_code(scheme):
    model, graph, record = draw("vgg16_cifar")
    expected = by_the_book(
        "vgg16_cifar", model, record, 0.7, coupled=(inner if scheme == "A" else stages)("vgg16_cifar")
    )
    scores = pruning.score(model, graph, "compound", elasticity=record, scheme=scheme)
    kept = pruning.allocate(graph, scores, allocation="joint", rate=0.7)
    assert {name: kept[name] for name in expected} == expected
    assert "features.conv13" in expected or len(kept["features.conv13"]) == 512
    assert len(kept["classifier.linear1"]) == 512


@pytest.mark.parametrize(("name", "filters"), [("resnet50", 26560), ("vgg16_cifar", 4224), ("resnet20", 688)])
def test_shares_are_ranks_over_all_filters(name, filters):
    model, graph, record = draw(name, levels=10**6)
    assert sum(len(value) for value in record.values()) == filters
    scores = compound(model, graph, None, 0, elasticity=record, scheme="A")
    assert list(scores) == [convs[0] for convs in inner(name)]
    for row in (0, 1):
        ranks = torch.cat([value[row] for value in scores.values()]) * filters
        assert torch.allclose(ranks, ranks.round(), rtol=0, atol=1e-9)
        assert ranks.round().unique().numel() == ranks.numel()
        assert ranks.min() >= 1
        assert ranks.max() <= filters
    assert all(value.dtype == torch.float64 for value in scores.values())
    if name == "vgg16_cifar":  # one convolution a group: all ranks are there
        whole = compound(model, graph, None, 0, elasticity=record, scheme="B")
        for row in (0, 1):
            ranks = torch.cat([value[row] for value in whole.values()]) * filters
            assert ranks.round().long().sort().values.tolist() == list(range(1, filters + 1))


def removed(scales, elasticities, rate):
    """The removed share of the convolutional channels of a VGG with these values, one for each filter."""
    model, graph, record = draw("vgg16_cifar")
    widths = [len(value) for value in record.values()]
    for (conv, norm), scale, value in zip(
        pairs_of("vgg16_cifar"), scales.split(widths), elasticities.split(widths), strict=True
    ):
        model.get_submodule(norm).weight.data.copy_(scale)
        record[conv] = value
    scores = compound(model, graph, None, 0, elasticity=record, scheme="B")
    kept = pruning.allocate(graph, scores, allocation="joint", rate=rate)
    return 1 - sum(len(kept[conv]) for conv in record) / 4224


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.6, 0.7])
def test_the_removed_share_follows_from_how_the_rankings_agree(rate):
    generator = torch.Generator().manual_seed(0)
    values, others = (torch.randperm(4224, generator=generator).float() + 1 for _ in range(2))
    k = int(rate * 4224)
    assert removed(values, values, rate) == pytest.approx(k / 4224)  # identical
    assert removed(values, 5000 - values, rate) == pytest.approx(max(0, 2 * k - 4224) / 4224)  # reversed
    assert removed(values, others, rate) == pytest.approx(rate**2, abs=0.03)  # independent: 4 standard deviations


def test_a_layer_that_both_criteria_find_worthless_keeps_its_most_elastic_filters():
    model, graph, record = draw("resnet20")
    record["layer3.1.conv1"] = torch.arange(64).roll(20) * 1e-6
    model.layer3[1].bn1.weight.data.mul_(1e-6)
    scores = pruning.score(model, graph, "compound", elasticity=record)
    kept = pruning.allocate(graph, scores, allocation="joint", rate=0.5)
    assert kept["layer3.1.conv1"] == (16, 17, 18, 19)  # ceil(5 % of 64), the largest of the record


def test_one_criterion_alone_cuts_nothing():
    model, graph, record = draw("resnet20")
    for value in record.values():
        value.fill_(1e-6)
    record["layer3.1.conv1"] = torch.ones(64)
    model.layer3[1].bn1.weight.data.mul_(1e-6)
    kept = pruning.allocate(
        graph, pruning.score(model, graph, "compound", elasticity=record), allocation="joint", rate=0.8
    )
    assert len(kept["layer3.1.conv1"]) == 64


def test_a_depthwise_convolution_passes_channels_on_and_has_a_say():
    model, _, graph = network("mobilenet_v2")
    expand, depthwise = "features.2.conv.0.0", "features.2.conv.1.0"
    convs = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    record = {name: torch.linspace(1, 2, layer.out_channels) for name, layer in convs.items()}
    scores = compound(model, graph, None, 0, elasticity=record)
    assert expand in scores
    assert depthwise not in scores  # it is in the group of the first
    # stage outputs that additions couple, and the last layer, stay; an output of one block that one block reads may go
    assert {"features.4.conv.2", "features.18.0"}.isdisjoint(scores)
    assert "features.1.conv.1" in scores
    for layer in (expand, depthwise):
        record[layer] = torch.linspace(0, 1e-3, 96)
    lowest = compound(model, graph, None, 0, elasticity=record)[expand][0]
    assert lowest[0] < 0.001
    record[depthwise] = torch.linspace(3, 2.5, 96)  # the depthwise convolution finds channel 0 best of all
    assert compound(model, graph, None, 0, elasticity=record)[expand][0, 0] == 1


class Gated(nn.Module):
    """A grouped convolution and squeeze-and-excitation by convolutions between two others."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.grouped, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.out, self.norm3 = nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 10)

    def forward(self, x):
        x = torch.relu(self.norm2(self.grouped(torch.relu(self.norm1(self.stem(x))))))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.fc(torch.relu(self.norm3(self.out(x))).mean((2, 3)))


def test_units_of_grouped_convolutions_and_gates():
    model = randomise(Gated())
    graph = pruning.trace(model, torch.randn(1, 3, 8, 8))
    convs = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    record = {name: torch.zeros(layer.out_channels) for name, layer in convs.items()}
    record |= {"stem": torch.arange(8.0), "grouped": torch.arange(8.0, 16), "out": torch.arange(16.0, 22)}
    scores = compound(model, graph, None, 0, elasticity=record)
    assert list(scores) == ["stem"]  # `out` feeds the classifier; gates have no normalisation
    units = torch.arange(8.0, 16, dtype=torch.double).reshape(4, 2).mean(1)  # ranks of `grouped`, which are the higher
    assert torch.allclose(scores["stem"][0], (units + 1) / 22)  # 8 + 8 + 6 filters
    assert list(compound(model, graph, None, 0, elasticity=record, scheme="B")) == ["stem", "out"]


def batches(count=2, size=32):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 3, size, size, generator=generator), torch.randint(0, 10, (4,), generator=generator))
        for _ in range(count)
    ]


def test_without_a_record_it_is_measured_on_the_data():
    model, _, graph = network("resnet20")
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    scores = pruning.score(model, graph, "compound", data=iter(batches()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    twin = copy.deepcopy(model).train()
    record = Elasticity(twin)
    for x, y in batches():
        twin.zero_grad()
        loss = F.cross_entropy(twin(x), y)
        loss.backward()
        record.update(loss)
    expected = pruning.score(model, graph, "compound", elasticity=record.values())
    assert all(torch.equal(scores[name], expected[name]) for name in expected)


def test_dropout_is_seeded():
    torch.manual_seed(0)
    with torch.device("meta"):  # the whole one is half a gigabyte
        model = models.create("torchvision:vgg11_bn", 10)
        model.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(512 * 49, 10))
    model = materialised(model)
    graph = pruning.trace(model, torch.randn(1, 3, 32, 32))
    state = torch.get_rng_state()
    first, second, other = (compound(model, graph, batches(1), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_mistakes():
    model, graph, record = draw("resnet20")
    with pytest.raises(InputError, match="'compound' needs data: batches"):
        pruning.score(model, graph, "compound")
    with pytest.raises(InputError, match="batches of two images or more"):
        pruning.score(model, graph, "compound", data=[(torch.randn(1, 3, 32, 32), torch.zeros(1, dtype=torch.long))])
    with pytest.raises(InputError, match="unknown scheme of compound 'C'"):
        pruning.score(model, graph, "compound", elasticity=record, scheme="C")
    with pytest.raises(InputError, match="16 finite values for 'conv1'"):
        pruning.score(model, graph, "compound", elasticity={})
    with pytest.raises(InputError, match=r"64 finite values for 'layer3\.1\.conv1'"):
        pruning.score(model, graph, "compound", elasticity=record | {"layer3.1.conv1": torch.full((64,), math.nan)})


def test_nothing_to_cut():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    graph = pruning.trace(model, torch.randn(1, 3, 4, 4))
    with pytest.raises(InputError, match="none that it may cut, but scheme B may cut some"):
        pruning.score(model, graph, "compound", data=batches())
    assert list(pruning.score(model, graph, "compound", data=batches(), scheme="B")) == ["0"]
    bare = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    graph = pruning.trace(bare, torch.randn(1, 3, 4, 4))
    for scheme in "AB":
        with pytest.raises(InputError, match="reads the scales of batch normalisation, and the network has none"):
            pruning.score(bare, graph, "compound", data=batches(), scheme=scheme)
        with pytest.raises(InputError, match=f"scheme {scheme}, .* none that it may cut$"):
            compound(bare, graph, batches(), 0, scheme=scheme)


def test_what_scheme_a_can_reach_on_resnet50():
    """Params of the published baseline (45 classes), and of the smallest network with one channel a group."""
    torch.manual_seed(0)
    model = models.create("resnet50", 45)
    graph = pruning.trace(model, torch.randn(1, 3, 64, 64))
    record = {name: torch.ones(m.out_channels) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    scores = compound(model, graph, None, 0, elasticity=record)
    assert graph.params() == 23600237
    assert round(graph.params(dict.fromkeys(scores, (0,))) / 1e6, 3) == 2.937


@pytest.mark.slow
def test_what_scheme_a_can_reach_on_vgg16():
    groups, whole, least = apart(_reached_on_vgg16)
    assert groups == 12
    assert whole == 134453357
    assert round(least / 1e6, 2) == 119.74


def _reached_on_vgg16():
    """How many groups are scored; the parameters of the network, and the fewest that can be left."""
    model, _, graph = network("vgg16_bn", 64, 45)
    record = {name: torch.ones(m.out_channels) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    scores = compound(model, graph, None, 0, elasticity=record)
    return len(scores), graph.params(), graph.params(dict.fromkeys(scores, (0,)))


def test_pixels_without_a_label_do_not_count():
    model = models.create("unet", 3, base=8, levels=2, batch_norm=True)
    graph = pruning.trace(model, torch.zeros(1, 3, 16, 16))
    x, y = torch.randn(2, 3, 16, 16), torch.randint(3, (2, 16, 16))
    y[:, :4] = 255
    found = pruning.score(model, graph, "compound", data=[(x, y)], scheme="B")
    assert found
    assert found.keys() <= graph.groups.keys()
    assert all(((ranks > 0) & (ranks <= 1)).all() for ranks in found.values())
