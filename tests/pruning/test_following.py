"""Following channels: operations of all kinds, and what stays whole where there is no rule."""

import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rssearch import models, pruning
from rssearch.cost import counting
from rssearch.errors import InputError
from tests.support.late import Late
from tests.support.networks import distance, fresh, some

torch_pruning = Late("torch_pruning")


class One(nn.Module):
    """A pair of ordinary layers, one operation on their maps, and a reader that has what the operation leaves."""

    def __init__(self, operation, width):
        super().__init__()
        self.p, self.q = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.line, self.plane = nn.Conv1d(1, 1, 3, padding=1), nn.Conv2d(2, 1, 7, padding=3)
        self.one, self.part, self.same = nn.Conv2d(3, 1, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(3, 16, 1)
        self.gamma = nn.Parameter(torch.rand(16, 1, 1))
        self.out, self.fc = nn.Conv2d(width, 12, 1), nn.Linear(12, 5)
        self.operation = operation

    def forward(self, x):
        y = self.q(self.p(x).relu()).relu()
        y = self.operation(self, y, x)
        return self.fc(self.out(y).relu().mean((2, 3)))


def shuffled(net, y, x):
    return y.view(-1, 4, 4, *y.shape[2:]).transpose(1, 2).flatten(1, 2)


def shuffled_by_width(net, y, x):
    b, c, h, w = y.shape
    return y.view(b, 4, c // 4, h, w).transpose(1, 2).reshape(b, c, h, w)


def split_and_joined(net, y, x):
    a, b = y.chunk(2, 1)
    return torch.cat([a, net.part(b)], 1)


def eca(net, y, x):
    return y * net.line(y.mean((2, 3)).unsqueeze(1)).sigmoid().view(len(x), -1, 1, 1)


def cbam(net, y, x):
    return y * net.plane(torch.cat([y.mean(1, True), y.amax(1, True)], 1)).sigmoid()


def written_in_place(net, y, x):
    y = y.clone()
    y[:, 3] = 0
    return y


def selective(net, y, x):
    return torch.stack([y, net.same(x).relu()], 1).sum(1)


CASES = {  # operation: what it does, width behind it, widths that rate 0.5 leaves
    "pixel_shuffle": (lambda net, y, x: F.pixel_shuffle(y, 2), 4, {"p": 8, "q": 2, "out": 6}),
    "pixel_unshuffle": (lambda net, y, x: F.pixel_unshuffle(y, 2), 64, {"p": 8, "q": 8, "out": 6}),
    "split": (split_and_joined, 16, {"p": 8, "q": 4, "part": 4, "out": 6}),
    "split_at_a_number": (lambda net, y, x: torch.cat(y.split([5, 11], 1), 1), 16, {"p": 8, "out": 6}),
    "eca": (eca, 16, {"p": 8, "out": 6}),
    "cbam": (cbam, 16, {"p": 8, "out": 6}),
    "one_channel_map": (lambda net, y, x: y * net.one(x).sigmoid(), 16, {"p": 8, "q": 8, "out": 6}),
    "image_joined": (lambda net, y, x: torch.cat([x, y], 1), 19, {"p": 8, "q": 8, "out": 6}),
    "shuffle": (shuffled, 16, {"p": 8, "out": 6}),
    "shuffle_by_width": (shuffled_by_width, 16, {"p": 8, "q": 2, "out": 6}),
    "channel_shuffle": (lambda net, y, x: F.channel_shuffle(y, 4), 16, {"p": 8, "q": 2, "out": 6}),
    "glu": (lambda net, y, x: F.glu(y, 1), 8, {"p": 8, "q": 4, "out": 6}),
    "slice": (lambda net, y, x: y[:, 8:], 8, {"p": 8, "out": 6}),
    "slice_of_all": (lambda net, y, x: y[:, :16], 16, {"p": 8, "q": 8, "out": 6}),
    "crop": (lambda net, y, x: y[..., 1:-1, 2:], 16, {"p": 8, "q": 8, "out": 6}),
    "roll": (lambda net, y, x: y.roll(4, 1), 16, {"p": 8, "out": 6}),
    "flip": (lambda net, y, x: y.flip(1), 16, {"p": 8, "q": 8, "out": 6}),
    "index_select": (lambda net, y, x: y.index_select(1, torch.arange(15, -1, -1)), 16, {"p": 8, "out": 6}),
    "gather": (lambda net, y, x: y.sort(1).values, 16, {"p": 8, "out": 6}),
    "written_in_place": (written_in_place, 16, {"p": 8, "out": 6}),
    "parameter": (lambda net, y, x: y * net.gamma, 16, {"p": 8, "out": 6}),
    "constant": (lambda net, y, x: y + torch.linspace(0, 1, 16)[:, None, None], 16, {"p": 8, "out": 6}),
    "factor": (lambda net, y, x: 2 - y * torch.full((len(y), 1, 1, 1), 0.3), 16, {"p": 8, "q": 8, "out": 6}),
    "by_width": (lambda net, y, x: y * y.shape[1], 16, {"p": 8, "out": 6}),
    "softmax": (lambda net, y, x: y.softmax(1), 16, {"p": 8, "out": 6}),
    "layer_norm": (lambda net, y, x: F.layer_norm(y, y.shape[1:]), 16, {"p": 8, "out": 6}),
    "group_norm": (lambda net, y, x: F.group_norm(y, 4), 16, {"p": 8, "out": 6}),
    "gram": (lambda net, y, x: torch.einsum("bchw,bdhw->bcd", y, y)[..., None], 16, {"p": 8, "out": 6}),
    "added": (lambda net, y, x: y + net.same(x), 16, {"p": 8, "q": 8, "out": 6}),
    "larger_of_two": (lambda net, y, x: torch.maximum(y, net.same(x)), 16, {"p": 8, "q": 8, "out": 6}),
    "selective": (selective, 16, {"p": 8, "q": 8, "out": 6}),
    "joined_along_a_side": (lambda net, y, x: torch.cat([y, net.same(x)], 3), 16, {"p": 8, "q": 8, "out": 6}),
    "padded_channels": (lambda net, y, x: F.pad(y, (0, 0, 0, 0, 2, 2)), 20, {"p": 8, "q": 8, "out": 6}),
    "reflected": (lambda net, y, x: F.pad(y, (1, 1, 1, 1), "reflect"), 16, {"p": 8, "q": 8, "out": 6}),
    "repeated": (lambda net, y, x: y.repeat(1, 2, 1, 1), 32, {"p": 8, "q": 8, "out": 6}),
    "interpolated": (lambda net, y, x: F.interpolate(y, size=(5, 7)), 16, {"p": 8, "q": 8, "out": 6}),
    "turned": (lambda net, y, x: y.permute(0, 3, 2, 1).transpose(1, 3), 16, {"p": 8, "q": 8, "out": 6}),
    "channels_last": (
        lambda net, y, x: F.gelu(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        16,
        {"p": 8, "q": 8, "out": 6},
    ),
    "a_number_in_view": (lambda net, y, x: y.view(-1, 16, 64)[..., None], 16, {"p": 8, "out": 6}),
    "script": (lambda net, y, x: torch.jit.script(nn.Softmax(1))(y), 16, {"p": 8, "out": 6}),
}


@pytest.mark.parametrize("name", CASES)
def test_one_operation_leaves_the_rest_of_the_network_prunable(name):
    operation, width, expected = CASES[name]
    torch.manual_seed(0)
    net, x = One(operation, width).eval(), torch.randn(2, 3, 8, 8)
    result = pruning.prune(net, x, "l1", rate=0.5)
    widths = {
        layer: kept for layer, (kept, full) in result.report["widths"].items() if layer in {"p", "q", "part", "out"}
    }
    assert widths == expected
    graph = pruning.trace(net, x)
    assert distance(pruning.masked(net, graph, result.kept)(x), result.model(x)) < 1e-5
    assert result.model.train()(x).shape == (2, 5)
    if "q" not in expected:
        assert graph.fixed["q"]


class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 12, 3), nn.Linear(12, 5)
        self.aux, self.norm = nn.Conv2d(16, 5, 1), nn.BatchNorm2d(16)

    def forward(self, x):
        y = self.a(x).relu()
        z = self.fc(self.b(y).relu().mean((2, 3)))
        return z + 0.4 * self.aux(self.norm(y)).mean((2, 3)) if self.training else z


def test_branches_that_run_in_training_only_are_cut_along():
    net, x = Auxiliary(), torch.randn(2, 3, 16, 16)
    graph = pruning.trace(net, x)
    assert ("aux", "in") in {(m.layer, m.side) for m in graph.groups["a"].members}
    result = pruning.prune(net, x, "l1", rate=0.5)
    assert result.model.train()(x).shape == (2, 5)
    assert result.model.aux.in_channels == result.model.norm.num_features == 8
    assert result.report["params"] == sum(p.numel() for p in result.model.parameters())
    assert result.report["macs"] == counting.profile(result.model, (3, 16, 16)).macs
    assert net.norm.num_batches_tracked == 0
    assert not net.norm.running_mean.any()


class SecondOrder(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, channels, 3), nn.Linear(channels * channels, 5)

    def forward(self, x):
        y = self.conv(x).relu().flatten(2)
        return self.fc(torch.einsum("bcn,bdn->bcd", y, y).flatten(1))


class Attended(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)
        self.line = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.outer(self.inner(x).relu())
        gate = self.line(y.mean((2, 3)).unsqueeze(1)).sigmoid().view(len(x), -1, 1, 1)
        return (x + y * gate.expand_as(y)).relu()


class Body(nn.Module):
    """Two blocks and a head, with something done to the maps between them."""

    def __init__(self, between=lambda net, y: y, before=lambda x: x, after=lambda z: z):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3, padding=1)
        self.fc, self.gate = nn.Linear(8, 5), nn.Parameter(torch.zeros(1))
        self.between, self.before, self.after = between, before, after

    def forward(self, x):
        y = self.between(self, self.norm(self.a(self.before(x))).relu())
        return self.after(self.fc(self.b(y).relu().mean((2, 3))))


def halves(net, y):
    one, other = torch.split(y, 8, 1)
    return torch.cat([one, other], 1)


def shuffled_columns(y):
    b, _, h, w = y.shape
    return y.view(b, -1, 4, h, w).transpose(1, 2).reshape(b, -1, h, w)


def raising(error):
    def between(net, y):
        if y.shape[1] != 16:
            raise error
        return y

    return between


class UnusualError(Exception):
    """Of the network's own."""


WHOLE = {  # what is done between the blocks -> the first block stays whole
    "split_in_training": lambda net, y: halves(net, y) if net.training else y,
    "view_in_training": lambda net, y: y.view(-1, 16, 8, 8) * 1.0 if net.training else y,
    "numpy_in_training": lambda net, y: (
        y + float(y.detach().mean((0, 2, 3)).numpy() @ np.ones(16)) if net.training else y
    ),
    "behind_a_gate_of_zero": lambda net, y: 1 + net.gate * shuffled_columns(y),
    "a_key": raising(KeyError(16)),
    "a_division": raising(ZeroDivisionError("by width")),
    "an_attribute": raising(AttributeError("width")),
    "an_exception_of_its_own": raising(UnusualError("width")),
}


@pytest.mark.parametrize("name", WHOLE)
def test_code_that_counts_on_a_width_leaves_its_channels_whole(name):
    net = Body(WHOLE[name])
    graph = pruning.trace(net, torch.rand(2, 3, 8, 8))
    assert list(graph.groups) == ["b"]
    assert graph.fixed["a"]
    assert pruning.prune(net, torch.rand(2, 3, 8, 8), "l1", rate=0.5).model.train()(torch.rand(2, 3, 8, 8)).shape == (
        2,
        5,
    )


def test_a_cut_is_proved_where_noise_around_zero_has_no_logarithm():
    net = Body(lambda net, y: shuffled_columns(y), before=torch.log10)
    assert list(pruning.trace(net, torch.rand(2, 3, 8, 8)).groups) == ["b"]


@pytest.mark.parametrize("wrap", [lambda y: (Result(y),), lambda y: {"maps": [Result(y)]}, lambda y: frozenset([y])])
def test_outputs_inside_objects_are_kept(wrap):
    net = Body()
    net.after = lambda z: (z, wrap(net.seen))
    net.between = lambda own, y: setattr(net, "seen", y) or y
    graph = pruning.trace(net, torch.rand(2, 3, 8, 8))
    assert graph.fixed["a"] == "reaches the output of the network"


@dataclass
class Result:
    maps: torch.Tensor


def test_what_failed_in_training_is_said_and_counted(caplog):
    class Guided(Body):
        def __init__(self):
            super().__init__()
            self.extra, self.last = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x, targets=None):
            y = self.norm(self.a(x)).relu()
            if self.training:
                z = self.last(self.extra(y).relu())
                if targets is None:
                    raise UnusualError("targets are needed")
                return z
            return self.fc(self.b(y).relu().mean((2, 3)))

    net = Guided()
    graph = pruning.trace(net, torch.rand(2, 3, 8, 8))
    assert "Guided does not run in training mode on images alone (targets are needed)" in caplog.text
    kept = some(graph)
    pruned, _ = pruning.cut(net, graph, kept)
    assert graph.params(kept) == sum(p.numel() for p in pruned.parameters())
    assert pruned.train()(torch.rand(2, 3, 8, 8), targets=1).shape == (2, 4, 8, 8)
    assert graph.fixed["extra"] == "runs in training only"


def test_layers_that_never_ran_are_named():
    net = Body()
    net.unused = nn.Conv2d(16, 4, 1)
    assert pruning.trace(net, torch.rand(1, 3, 8, 8)).fixed["unused"].startswith("did not run")


def test_layers_that_are_called_as_functions_stay_whole():
    net = Body(lambda net, y: F.conv2d(y, net.same.weight, net.same.bias))
    net.same = nn.Conv2d(16, 16, 1)
    graph = pruning.trace(net, torch.rand(1, 3, 8, 8))
    assert list(graph.groups) == ["b"]
    assert graph.fixed["same"] == "is called as a function"
    tied = Body(lambda net, y: F.conv_transpose2d(net.same(y), net.same.weight))
    tied.same = nn.Conv2d(16, 8, 1)
    graph = pruning.trace(tied, torch.rand(1, 3, 8, 8))
    assert {"b", "same"} - {*graph.groups} == {"same"}
    assert graph.fixed["same"] == "is called as a function"


@pytest.mark.parametrize("after", [lambda z: z > 0, lambda z: z.argmax(1)])
def test_networks_that_give_labels_are_cut(after):
    assert (
        pruning.prune(Body(after=after), torch.rand(1, 3, 8, 8), "l1", rate=0.5).model(torch.rand(1, 3, 8, 8)).shape[0]
        == 1
    )


def test_networks_that_change_their_input_are_cut():
    net = Body(before=lambda x: x.sub_(0.3).div_(0.5))
    assert pruning.prune(net, torch.rand(1, 3, 8, 8), "l1", rate=0.5).kept["a"]


@pytest.mark.parametrize(
    ("model", "image", "message"),
    [
        (lambda: nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 1))), (1, 3, 8, 8), "0 is TorchScript: prune"),
        (lambda: torch.compile(nn.Sequential(nn.Conv2d(3, 4, 1))), (1, 3, 8, 8), "OptimizedModule is compiled"),
        (Body, (1, 4, 8, 8), "Body does not run on an image of 4x8x8: "),
        (Body, (0, 3, 8, 8), "a batch .* of one image or more"),
        (lambda: Body(lambda net, y: y + torch.rand_like(y)), (1, 3, 8, 8), "does not give the same twice"),
    ],
)  # fmt: skip
def test_networks_and_examples_that_cannot_be_traced_are_refused(model, image, message):
    with pytest.raises(InputError, match=message):
        pruning.trace(model(), torch.rand(image))


def test_tracing_is_bounded():
    """Processor time, which a loaded machine does not stretch: a graph of operations took minutes for width 128."""
    wide = nn.Sequential(
        nn.Conv2d(3, 2048, 1), *[Attended(2048) for _ in range(4)], nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    started = time.process_time()
    graph = pruning.trace(wide, torch.randn(1, 3, 8, 8))
    assert list(graph.groups) == [f"{i}.inner" for i in range(1, 5)]
    assert not pruning.trace(SecondOrder(64), torch.randn(1, 3, 16, 16)).groups
    assert time.process_time() - started < 30


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "unet", "torchvision:densenet121"])
def test_couplings_are_those_of_torch_pruning(name):
    """An independent reference: the channels that Torch-Pruning's dependency graph removes along with one."""
    model, image = fresh(name).eval(), torch.randn(1, 3, 32, 32)
    ours = pruning.trace(model, image)
    theirs = torch_pruning.DependencyGraph().build_dependency(model, image, verbose=False)
    names = {module: layer for layer, module in model.named_modules()}
    for group in list(ours.groups.values())[::5]:
        root = model.get_submodule(group.name)
        channel = group.width // 2
        expected = {
            (names[item.dep.target.module], i)
            for item in theirs.get_pruning_group(
                root, theirs.get_pruner_of_module(root).prune_out_channels, group.producers[0].index[channel].tolist()
            )
            for i in item.idxs
            if isinstance(item.dep.target.module, nn.modules.conv._ConvNd | nn.Linear | nn.BatchNorm2d)
        }
        found = {
            (m.layer, int(i)) for m in group.members if m.kind in {"conv", "linear", "norm"} for i in m.index[channel]
        }
        assert found == expected


def test_random_cuts_of_a_shufflenet_are_exact():
    model = models.create("torchvision:shufflenet_v2_x0_5", 10).eval()
    x = torch.randn(2, 3, 32, 32)
    graph = pruning.trace(model, x)
    pruned, _ = pruning.cut(model, graph, some(graph))
    assert distance(pruning.masked(model, graph, some(graph))(x), pruned(x)) < 1e-5
    assert graph.macs(some(graph)) == counting.profile(pruned, (3, 32, 32)).macs
