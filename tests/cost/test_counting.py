"""Costs: exact counts, and models that stay as they were."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.nn import qat
from torch.ao.nn.intrinsic import qat as intrinsic_qat
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn.utils import parametrizations

from rssearch import models
from rssearch.cost import counting


def test_counts_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 3 * 9 * 8 * 16 * 16 = 55296; bias counted as a parameter only
        nn.BatchNorm2d(8),  # 4 * 8 * 16 * 16 = 8192
        nn.ReLU(),
        nn.AvgPool2d(2),  # 8 * 8 * 8 = 512
        nn.Conv2d(8, 8, 3, groups=4, bias=False),  # 2 * 9 * 8 * 6 * 6 = 5184
        nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False),  # 8 * 4 * 4 positions of the kernel * 36 inputs = 4608
        nn.AdaptiveAvgPool2d(1),  # (144 + 1) * 4 = 580
        nn.Flatten(),
        nn.Linear(4, 10),  # 40
    )
    found = counting.profile(model, (3, 16, 16))
    assert found.conv_linear_macs == 55296 + 5184 + 4608 + 40
    # For a transposed convolution thop multiplies the outputs, not the inputs, by the kernel: stride^2 as much.
    assert found.macs == 55296 + 8192 + 512 + 5184 + 4 * 4608 + 580 + 40
    assert found.params == 3 * 9 * 8 + 8 + 16 + 2 * 9 * 8 + 8 * 4 * 4 + 50
    assert found.counter.startswith("thop 0.1.1")


@pytest.mark.parametrize(
    ("name", "classes", "options", "macs", "exact"),
    [
        ("resnet56", 10, {}, 127619776, 125485696),
        ("resnet110", 10, {}, 257086144, 252887680),
        ("vgg16_cifar", 10, {}, 314572288, 313463808),
        ("vgg16_cifar", 21, {}, 314577920, 313469440),
        ("resnet20", 100, {"shortcut": "B"}, 41625920, 40818944),
    ],
)
def test_published_baselines(name, classes, options, macs, exact):
    found = counting.profile(models.create(name, classes, **options), (3, 32, 32))
    assert (found.macs, found.conv_linear_macs) == (macs, exact)


def test_model_is_untouched(capsys, recwarn):
    model = models.create("resnet20", 10)
    model.layer1.eval()  # a mixed mode, which must come back as it was
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    first, second = counting.profile(model, (3, 32, 32)), counting.profile(model, (3, 32, 32))
    assert first == second
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert capsys.readouterr() == ("", "")
    assert not list(recwarn)


def test_frozen_parameters_count():
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).requires_grad_(False)
    assert counting.profile(frozen, (3, 2, 2)).params == 52


def test_output_tensors():
    a, b, c = (torch.zeros(n) for n in (1, 2, 3))
    assert [len(t) for t in counting.output_tensors({"x": a, "y": [b, (c, None)]})] == [1, 2, 3]


class SamePadding(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias, self.stride, 1)


class Twice(nn.Conv2d):
    """The same weights at two dilations."""

    def forward(self, x):
        return super().forward(x) + F.conv2d(x, self.weight, padding=2, dilation=2)


class Enlarging(nn.Conv2d):
    def forward(self, x):
        return F.interpolate(super().forward(x), scale_factor=2.0)


class Wrapper(nn.Conv2d):
    """A convolution that holds its normalisation and activation."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.norm, self.act = nn.BatchNorm2d(self.out_channels), nn.PReLU(self.out_channels)

    def forward(self, x):
        return self.act(self.norm(super().forward(x)))


class LowRank(nn.Linear):
    """Adds a product of two thin matrices."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.ones(3, inputs)), nn.Parameter(torch.ones(outputs, 3))

    def forward(self, x):
        return super().forward(x) + F.linear(F.linear(x, self.down), self.up)


class Unfolded(nn.Sequential):
    """A container with code of its own."""

    def forward(self, x):
        return F.conv2d(x, self[0].weight, padding=1)


class Called(nn.Module):
    """Calls a function with what it is given: no layer runs."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(shape))
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return self.function(self, x)


SIZE = 8 * 3 * 9 * 16 * 16  # of a 3x3 convolution from 3 to 8 channels on 16x16 positions
QAT = get_default_qat_qconfig("x86")


def plain():
    return nn.Conv2d(3, 8, 3, padding=1)


def subclass(kind, *args, **options):
    return type("Own", (kind,), {})(*args, **options)


@pytest.mark.parametrize(
    ("layer", "macs", "exact"),
    [
        (lambda: SamePadding(3, 8, 3), SIZE, SIZE),
        (lambda: Standardised(3, 8, 3, stride=2), SIZE // 4, SIZE // 4),
        (lambda: Twice(3, 8, 3, padding=1), 2 * SIZE, 2 * SIZE),
        (lambda: Enlarging(3, 8, 3, padding=1), SIZE, SIZE),
        (lambda: Wrapper(3, 8, 3, padding=1), SIZE + (4 + 1) * 8 * 256, SIZE),
        (lambda: parametrizations.weight_norm(plain()), SIZE, SIZE),
        (lambda: parametrizations.spectral_norm(plain()), SIZE, SIZE),
        (lambda: parametrizations.orthogonal(plain()), SIZE, SIZE),
        (lambda: nn.utils.weight_norm(plain()), SIZE, SIZE),
        (lambda: qat.Conv2d(3, 8, 3, padding=1, qconfig=QAT), SIZE, SIZE),
        (lambda: intrinsic_qat.ConvBnReLU2d(3, 8, 3, padding=1, qconfig=QAT), SIZE + 4 * 8 * 256, SIZE),
        # For a transposed convolution thop multiplies the outputs by the kernel, also for a subclass.
        (lambda: subclass(nn.ConvTranspose2d, 3, 8, 2, stride=2), 4 * 3 * 8 * 4 * 256, 3 * 8 * 4 * 256),
        (lambda: nn.Sequential(nn.Flatten(), LowRank(768, 10)), 7680 + 3 * 778, 7680 + 3 * 778),
        (lambda: nn.Sequential(nn.Flatten(), subclass(nn.Linear, 768, 10)), 7680, 7680),
        (lambda: subclass(nn.BatchNorm2d, 3), 4 * 768, 0),
        (lambda: nn.SyncBatchNorm(3), 4 * 768, 0),
        (lambda: subclass(nn.AvgPool2d, 2), 3 * 64, 0),
        (lambda: subclass(nn.AdaptiveAvgPool2d, 1), 3 * 257, 0),
        (lambda: subclass(nn.PReLU), 768, 0),
        (lambda: Called(lambda self, x: F.conv2d(x, self.weight, padding=1), 8, 3, 3, 3), SIZE, SIZE),
        (lambda: Called(lambda self, x: self.conv.forward(x)), SIZE, SIZE),
        (lambda: Unfolded(plain()), SIZE, SIZE),
        (lambda: Called(lambda self, x: self.conv(input=x)), SIZE, SIZE),
        (lambda: Called(lambda self, x: torch.einsum("bchw,oc->bohw", x, self.weight), 5, 3), 3840, 3840),
        (lambda: Called(lambda _, x: x.flatten(2) @ x.flatten(2).mT), 9 * 256, 9 * 256),
        (lambda: Called(lambda _, x: F.scaled_dot_product_attention(x, x, x)), 2 * 3 * 16**3, 2 * 3 * 16**3),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_layers_and_functions_count_as_what_they_compute(layer, macs, exact, device):
    found = counting.profile(layer().to(device), (3, 16, 16))
    assert (found.macs, found.conv_linear_macs, found.uncounted) == (macs, exact, ())


def test_attention_layers_count_their_products():
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(
        nn.Flatten(0, 1), nn.Linear(16, 8), encoder
    )  # [1, 3, 16, 16] is taken for 3 rows of 16 tokens
    products = 3 * 16 * (16 * 8 + 4 * 8 * 8 + 2 * 16 * 8 + 2 * 2 * 16 * 4)
    norms = 2 * 4 * 3 * 16 * 8
    found = counting.profile(model, (3, 16, 16))
    assert (found.macs, found.conv_linear_macs) == (products + norms, products)
    assert torch.backends.mha.get_fastpath_enabled()


def test_lazy_layers_count_as_what_they_become():
    model = nn.Sequential(nn.LazyConv2d(8, 3, padding=1), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10))
    found = counting.profile(model, (3, 16, 16))
    assert (found.macs, found.conv_linear_macs) == (SIZE + 4 * 2048 + 20480, SIZE + 20480)
    assert found.params == 8 * 27 + 8 + 16 + 20480 + 10
    assert model[0].has_uninitialized_params()


def test_a_layer_at_two_places_counts_each_call_once():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    model = nn.Sequential(nn.Sequential(conv, nn.ReLU()), nn.Sequential(conv, nn.ReLU()))
    assert counting.profile(model, (3, 8, 8)).macs == 2 * 81 * 64


def test_operators_that_are_not_known_are_named(caplog):
    library = torch.library.Library("rssearch_test", "DEF")
    library.define("double(Tensor x) -> Tensor")
    library.impl("double", lambda x: x * 2, "CompositeExplicitAutograd")
    model = nn.Sequential(plain(), Called(lambda _, x: torch.ops.rssearch_test.double(x)))
    found = counting.profile(model, (3, 16, 16))
    assert (found.macs, found.uncounted) == (SIZE, ("rssearch_test.double.default in 1",))
    (line,) = caplog.messages
    assert line == "the MACs of Sequential do not count rssearch_test.double.default in 1: their cost is not known"
    library._destroy()


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_weights_that_torch_does_not_copy_are_copied():
    model = nn.Sequential(nn.utils.weight_norm(plain()))
    twin, image = counting.duplicate(model), torch.ones(1, 3, 4, 4)
    with torch.no_grad():
        expected = model(image)
        assert torch.equal(twin(image), expected)
        twin[0].weight_g.zero_()
        assert not torch.equal(twin(image), expected)
        assert torch.equal(model(image), expected)


def test_copies_have_tensors_of_their_own():
    model = nn.Sequential(plain(), nn.BatchNorm2d(8))
    model[1].register_buffer("alias", model[1].running_mean.detach())  # the same memory as another buffer
    twin = counting.duplicate(model)
    assert type(twin[0]._forward_hooks) is type(model[0]._forward_hooks)
    twin[0].register_forward_hook(lambda *_: None)
    assert not model[0]._forward_hooks
    for one, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()
    twin[1].running_mean.fill_(7)
    assert bool((twin[1].alias == 7).all())
    assert not bool(model[1].running_mean.any())


def test_sharing_copies_have_the_memory_of_the_parameters_and_nothing_else():
    model = nn.Sequential(plain(), nn.BatchNorm2d(8))
    model[0].weight.requires_grad_(False)
    twin = counting.duplicate(model, share=True)
    for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert one.data_ptr() == other.data_ptr()
        assert other.requires_grad == (name != "0.weight")
    assert model[1].running_mean.data_ptr() != twin[1].running_mean.data_ptr()
    twin.requires_grad_(True)
    twin[0].weight = nn.Parameter(torch.zeros(1))
    assert not model[0].weight.requires_grad
    assert model[0].weight.shape == plain().weight.shape
