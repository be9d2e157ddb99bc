"""Squeeze-and-excitation during the training: where it goes, and that folding it is exact."""

import copy

import pytest
import torch
from torch import nn

from rssearch import models
from rssearch.errors import InputError
from rssearch.models import attention
from rssearch.models.attention import AttendedNorm
from tests.support.networks import distance, materialised, randomise

COUNTS = {
    "resnet20": 19,
    "resnet56": 55,
    "resnet110": 109,
    "resnet18": 17,
    "resnet34": 33,
    "resnet50": 49,
    "vgg16_bn": 13,
    "vgg16_cifar": 13,
    "torchvision:resnext50_32x4d": 49,
    "torchvision:wide_resnet50_2": 49,
    "torchvision:vgg11_bn": 8,
}


def create(name, seed=0, **options):
    torch.manual_seed(seed)
    return randomise(models.create(name, 10, **options)).eval()


def params(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", [*COUNTS, "resnet18-small", "resnet20-B"])
def test_how_many(name):
    name, _, option = name.partition("-")
    options = {"small": {"stem": "small"}, "B": {"shortcut": "B"}}.get(option, {})
    with torch.device("meta"):  # nothing is computed, and some are half a gigabyte
        model = models.create(name, 10, **options)
    before, keys = params(model), list(model.state_dict())
    assert attention.insert(model) == COUNTS[name]
    inserted = {key: module for key, module in model.named_modules() if isinstance(module, AttendedNorm)}
    assert len(inserted) == COUNTS[name]
    assert not any("downsample" in key or "shortcut" in key or "classifier" in key for key in inserted)
    widths = [module.norm.num_features for module in inserted.values()]
    hidden = [max(1, width // 16) for width in widths]
    added = sum(2 * c * h + h + c for c, h in zip(widths, hidden, strict=True))
    assert params(model) - before == added
    attention.remove(model)
    assert list(model.state_dict()) == keys


def test_resnet18_has_the_published_places():
    model = create("resnet18")
    before = params(model)
    assert attention.insert(model) == 17
    assert params(model) - before == 178740
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    rectified = {name: m.rectified for name, m in model.named_modules() if isinstance(m, AttendedNorm)}
    assert rectified == {"bn1": True} | {f"{b}.bn1": True for b in blocks} | {f"{b}.bn2": False for b in blocks}


def constant(model, seed=0):
    """Give each module an attention that is the same for all images; returns it."""
    generator = torch.Generator().manual_seed(seed)
    values = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, AttendedNorm):
                module.attention.excite.weight.zero_()
                module.attention.excite.bias.normal_(0, 1, generator=generator)
                values[name] = module.attention.excite.bias.sigmoid()
    return values


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50", "vgg16_cifar", "torchvision:vgg11_bn"])
def test_folding_constant_attention_is_exact(name):
    if name == "torchvision:vgg11_bn":
        with torch.device("meta"):
            model = models.create(name, 10)
            model.classifier = nn.Linear(512 * 49, 10)  # its own is half a gigabyte
        model = randomise(materialised(model)).eval()
    else:
        model = create(name)
    model.double()
    plain, images = copy.deepcopy(model), torch.randn(2, 3, 32, 32, dtype=torch.double)
    attention.insert(model)
    expected = constant(model)
    with torch.no_grad():
        outputs = model(images)
        assert distance(outputs, plain(images)) > 1e-3
        measured = attention.mean_attention(model, [(images, None)])
        assert measured.keys() == expected.keys()
        assert all(torch.allclose(measured[key], expected[key], rtol=0, atol=1e-15) for key in expected)
        attention.fold(model, measured)
        assert distance(model(images), outputs) < 1e-9
    assert str(model) == str(plain)
    before, after = plain.state_dict(), model.state_dict()
    assert list(after) == list(before)
    for key in before:
        norm, _, kind = key.rpartition(".")
        factor = expected[norm] if norm in expected and kind in {"weight", "bias"} else 1
        assert torch.allclose(after[key], factor * before[key], rtol=1e-12), key
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in model.parameters())


def test_attention_stands_where_the_paper_has_it():
    """The same network written out: behind the ReLU inside a block, before the addition at its end."""
    model = create("resnet18").double()
    attention.insert(model)
    block = model.layer2[0]
    x = torch.randn(2, 64, 8, 8, dtype=torch.double)

    def excited(module, y):
        layers = module.attention
        a = torch.sigmoid(layers.excite(torch.relu(layers.squeeze(y.mean((2, 3))))))
        return y * a[:, :, None, None]

    with torch.no_grad():
        y = excited(block.bn1, torch.relu(block.bn1.norm(block.conv1(x))))
        y = excited(block.bn2, block.bn2.norm(block.conv2(y)))
        assert distance(block(x), torch.relu(y + block.downsample(x))) < 1e-12


def test_the_mean_is_over_images_whatever_the_batches():
    model = create("resnet20").double()
    attention.insert(model)
    model.layer1[0].eval()
    model.train()
    model.layer1[1].eval()
    modes = [module.training for module in model.modules()]
    images = torch.randn(7, 3, 16, 16, dtype=torch.double)
    whole = attention.mean_attention(model, [(images, None)])
    ragged = attention.mean_attention(model, ((part, None) for part in images.split([4, 1, 2])))
    single = [attention.mean_attention(model, [(image[None], None)]) for image in images]
    for name, value in whole.items():
        assert torch.allclose(ragged[name], value, rtol=1e-12)
        assert torch.allclose(torch.stack([one[name] for one in single]).mean(0), value, rtol=1e-12)
        assert value.std() > 0
    assert modes == [module.training for module in model.modules()]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_new_parameters_are_a_function_of_the_seed():
    first, second, other = create("resnet20"), create("resnet20"), create("resnet20")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    attention.insert(first, seed=5)
    attention.insert(second, seed=5)
    attention.insert(other, seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    squeeze = [model.bn1.attention.squeeze for model in (first, second, other)]
    assert torch.equal(squeeze[0].weight, squeeze[1].weight)
    assert not torch.equal(squeeze[0].weight, squeeze[2].weight)
    weights = torch.cat([m.attention.squeeze.weight.flatten() for m in first.modules() if isinstance(m, AttendedNorm)])
    assert weights.abs().max() <= 16**-0.5  # the narrowest has 16 inputs
    assert weights.abs().max() > 0.95 * 16**-0.5


def test_new_parameters_follow_the_network():
    model = create("resnet20").to(torch.bfloat16).train()
    attention.insert(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(module.training for module in model.modules())
    meta = models.create("resnet20", 10).to("meta")
    attention.insert(meta)
    assert {parameter.device.type for parameter in meta.parameters()} == {"meta"}


@pytest.mark.parametrize("name", ["mobilenet_v2", "torchvision:vgg11"])
def test_other_networks(name):
    with torch.device("meta"):
        model = models.create(name, 10)
    with pytest.raises(InputError, match=r"into the ResNets and VGGs .* but not into (MobileNetV2|VGG)$"):
        attention.insert(model)


def test_mistakes():
    model = create("resnet20")
    with pytest.raises(InputError, match="insert them first"):
        attention.mean_attention(model, [])
    attention.insert(model)
    with pytest.raises(InputError, match="already"):
        attention.insert(model)
    with pytest.raises(InputError, match="no images"):
        attention.mean_attention(model, [])
    right = attention.mean_attention(model, [(torch.randn(1, 3, 8, 8), None)])
    with pytest.raises(InputError, match="values are given for nothing"):
        attention.fold(model, {})
    with pytest.raises(InputError, match=r"'bn1' has 16 channels, attention \[3\]"):
        attention.fold(model, right | {"bn1": torch.ones(3)})
    with pytest.raises(InputError, match="negative or not finite"):
        attention.fold(model, right | {"bn1": torch.full((16,), torch.nan)})
    assert attention.mean_attention(model, [(torch.randn(1, 3, 8, 8), None)]).keys() == right.keys()  # still there


def test_pruned_networks_take_attention_too():
    from rssearch import pruning

    model = create("resnet18")
    smaller = pruning.prune(model, torch.randn(1, 3, 32, 32), "l1", rate=0.5).model
    assert attention.insert(smaller) == 17
    assert smaller.layer1[0].bn1.attention.squeeze.in_features == 32


@pytest.mark.gpu
def test_gpu():
    model = create("resnet18").cuda()
    attention.insert(model)
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    constant(model)
    images = torch.randn(4, 3, 32, 32).cuda()
    with torch.no_grad():
        outputs = model(images)
        attention.fold(model, attention.mean_attention(model, [(images, None)]))
        assert distance(model(images), outputs) < 1e-2
    assert isinstance(model.bn1, nn.BatchNorm2d)
