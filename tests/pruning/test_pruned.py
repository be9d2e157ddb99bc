"""Pruning in one call: several steps, attention that is folded first, what the report says."""

import copy

import pytest
import torch

from rssearch import pruning
from rssearch.cost import counting
from rssearch.errors import InputError
from rssearch.models import attention
from tests.support.networks import fresh, network, randomise


def batches(count=2):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8)) for _ in range(count)]


def shaken(seen):
    """A training that only counts its calls and moves the weights."""

    def train(model):
        seen.append(counting.profile(model, (3, 32, 32)).macs)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)

    return train


@pytest.mark.parametrize("method", ["l1", "taylor", "compound", "bn_scale"])
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_steps(name, method):
    model, images, graph = network(name)
    seen: list[int] = []
    pruned = pruning.prune(model, images, method, macs_ratio=0.4, steps=3, data=batches(), train=shaken(seen))
    assert [macs / graph.macs() for macs in seen] == pytest.approx([0.4 ** (1 / 3), 0.4 ** (2 / 3)], rel=0.01)
    found = counting.profile(pruned.model, (3, 32, 32))
    assert (pruned.report["macs"], pruned.report["params"]) == (found.macs, found.params)
    assert abs(found.macs / graph.macs() / 0.4 - 1) <= 0.01
    assert pruned.report["steps"] == 3
    # One spec for all steps, in the channels of the original.
    rebuilt = pruning.apply_spec(fresh(name), pruned.spec).eval()
    rebuilt.load_state_dict(pruned.model.state_dict())
    assert torch.equal(rebuilt(images), pruned.model(images))
    assert graph.macs(pruned.kept) == found.macs
    assert pruned.spec["layers"].keys() == pruning.make_spec(graph, pruned.kept)["layers"].keys()
    assert pruned.spec == pruning.make_spec(graph, pruned.kept)


def test_one_step_without_training_is_the_plain_call():
    model, images, _ = network("resnet20")
    plain = pruning.prune(model, images, "l1", macs_ratio=0.5)
    stepped = pruning.prune(model, images, "l1", macs_ratio=0.5, steps=1, train=lambda _: pytest.fail("no step before"))
    assert (plain.kept, plain.spec, plain.report) == (stepped.kept, stepped.spec, stepped.report)


def test_steps_are_refused_where_they_mean_nothing():
    model, images, _ = network("resnet20")
    with pytest.raises(InputError, match="several steps need a macs_ratio"):
        pruning.prune(model, images, "l1", rate=0.5, steps=2)
    with pytest.raises(InputError, match="steps is 0"):
        pruning.prune(model, images, "l1", macs_ratio=0.5, steps=0)


def test_removed_fraction_counts_filters():
    model, images, graph = network("resnet20")
    report = pruning.prune(model, images, "l1", rate=0.5).report
    assert report["removed_fraction"] == 0.5  # all widths are even
    kept = {"layer1.0.conv1": (0, 1, 2, 3)}
    total = sum(m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    assert pruning.cost_report(graph, kept)["removed_fraction"] == pytest.approx(12 / total)
    coupled = {"layer2.0.conv2": tuple(range(20))}  # computed by the second convolutions of three blocks
    assert pruning.cost_report(graph, coupled)["removed_fraction"] == pytest.approx(3 * 12 / total)


def test_attention_in_the_network_is_folded_first():
    model = randomise(fresh("resnet20")).eval()
    attended = copy.deepcopy(model)
    attention.insert(attended, seed=1)
    images = batches()[0][0]
    state = copy.deepcopy(attended.state_dict())
    pruned = pruning.prune(attended, images, "remotetrimmer", rate=0.3, data=batches())

    folded = copy.deepcopy(attended)
    attention.fold(folded, attention.mean_attention(attended, batches()))
    expected = pruning.prune(folded, images, "remotetrimmer", rate=0.3)
    assert pruned.kept == expected.kept
    assert torch.equal(pruned.model(images), expected.model(images))
    assert all(torch.equal(state[name], tensor) for name, tensor in attended.state_dict().items())
    assert not attention.is_in(pruned.model)
    with pytest.raises(InputError, match="attention to be folded first, which needs data"):
        pruning.prune(attended, images, "remotetrimmer", rate=0.3)


def test_options_reach_the_criterion_and_are_checked():
    model, images, _ = network("resnet20")
    default = pruning.score(model, pruning.trace(model, images), "lfp", data=batches())
    literal = pruning.score(model, pruning.trace(model, images), "lfp", data=batches(), log="literal_eps")
    assert any(not torch.allclose(default[name], literal[name]) for name in default)
    with pytest.raises(InputError, match=r"unknown log of lfp 'log2'.*Known: literal_eps, log1p"):
        pruning.prune(model, images, "lfp", rate=0.5, data=batches(), log="log2")
    with pytest.raises(InputError, match=r"method 'l1' has no option 'log' .*it has none"):
        pruning.prune(model, images, "l1", rate=0.5, log="log1p")
