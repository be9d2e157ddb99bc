"""Model zoos by name. Nothing is downloaded: weights are faked, or fail to arrive."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms import v2

from rssearch import models
from rssearch.config.settings import Settings
from rssearch.data.imageset import ImageSet, normalise
from rssearch.errors import InputError
from rssearch.imaging.pixels import Scaling
from rssearch.models import extras, listing, smp_networks, timm_networks, torchgeo_weights, vision
from rssearch.testing import check_network
from rssearch.trials import normalisation
from rssearch.trials.point import PruningPoint
from tests.support.late import Late

smp = Late("segmentation_models_pytorch")
timm = Late("timm")

BANDS = ["B4", "B3", "B2", "B8"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm:resnet19", {}, "unknown timm model 'resnet19'. Did you mean 'resnet"),
        ("timm:resnet18.a1_in1k", {}, "'a1_in1k' names trained weights, which are the option `weights` of 'timm:resn"),
        ("timm:resnet18", {"weights": "a9_in1k"}, "unknown weights of timm:resnet18 'a9_in1k'. Did you mean 'a3_in1k'"),
        ("timm:resnet18", {"stem": "small"}, "model 'timm:resnet18' has no option 'stem' ('small'); it has: weights"),
        ("smp:unet", {}, "smp:unet: must be smp:ARCH/ENCODER, such as smp:unet/resnet34"),
        ("smp:unit/resnet34", {}, "unknown architecture of segmentation_models_pytorch 'unit'. Did you mean 'unet'?"),
        ("smp:unet/resnet35", {}, "unknown encoder of segmentation_models_pytorch 'resnet35'. Did you mean 'resnet"),
        ("smp:unet/tu-resnet35", {}, "unknown timm model 'resnet35'"),
        ("smp:unet/resnet34", {"weights": "coco"}, "unknown weights of smp:unet/resnet34 'coco'"),
    ],
)
def test_bad_names_and_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        models.check_options(name, options)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("timm:resnet18", "classification"),
        ("torchvision:inception_v3", "classification"),
        ("torchvision:fcn_resnet50", "segmentation"),
        ("smp:Unet++/resnet34", "segmentation"),
        ("smp:fpn/tu-resnet18", "segmentation"),
    ],
)
def test_a_network_of_a_zoo_is_known_by_its_task_and_is_no_code_of_the_users(name: str, task: str) -> None:
    assert models.task_of(name) == task
    assert not models.is_own(name)
    assert models.options_of(name) == ["weights"] if task == "segmentation" else "weights" in models.options_of(name)


def test_the_version_of_a_zoo_is_part_of_what_names_results() -> None:
    assert models.code_of("timm:resnet18") == f"timm {timm.__version__}"
    assert models.code_of("smp:unet/resnet18") == f"segmentation-models-pytorch {smp.__version__}"
    assert models.code_of("torchvision:fcn_resnet50") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet18", "timm:resnet18 needs timm, which is not installed: pip install 'rssearch[timm]'"),
        ("smp:unet/resnet18", "needs segmentation-models-pytorch, which is not installed: pip install 'rssearch[smp]'"),
        ("resnet18", "needs torchgeo, which is not installed: pip install 'rssearch[torchgeo]'"),
    ],
)
def test_a_missing_extra_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(InputError) as caught:
        models.check_options(name, {"weights": "torchgeo:SENTINEL2_RGB_MOCO"})
    assert message in str(caught.value)
    assert [zoo.partition(":")[0] for zoo in listing.missing()] == ["timm", "smp"]


def test_an_extra_that_cannot_be_imported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(extras.importlib, "import_module", fails)
    with pytest.raises(InputError, match=r"timm:x needs timm, which cannot be imported: RuntimeError: operator torchv"):
        models.task_of("timm:x")


@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_050", "smp:fpn/mobilenet_v2", "torchvision:googlenet"])
def test_networks_take_other_bands(name: str) -> None:
    with torch.no_grad():
        logits = models.create(name, 7, in_channels=5).eval()(torch.randn(1, 5, 64, 64))
    assert logits.shape == ((1, 7, 64, 64) if name.startswith("smp") else (1, 7))


def test_a_download_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setenv("HF_HUB_CACHE", "/cache/hub")
    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", offline)
    with pytest.raises(
        InputError, match=r"timm:resnet18: a1_in1k could not be fetched: no route to host\. Put them into /cache/hub "
    ):
        models.create("timm:resnet18", 5, weights="a1_in1k")
    with pytest.raises(InputError, match="smp:unet/resnet18: imagenet could not be fetched: no route to host"):
        models.create("smp:unet/resnet18", 5, weights="imagenet")
    with pytest.raises(InputError, match="smp:unet/tu-resnet18: a1_in1k could not be fetched: no route to host"):
        models.create("smp:unet/tu-resnet18", 5, weights="a1_in1k")


def test_an_encoder_that_an_architecture_cannot_use_is_refused() -> None:
    with pytest.raises(InputError, match=r"smp:pan/vgg11: cannot be built: .*dilated"):
        models.create("smp:pan/vgg11", 5)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("timm:vit_tiny_patch16_224", 96, r"does not run on an image of 3x96x96: .*224"),
        ("smp:fpn/resnet18", 100, r"does not run on an image of 3x100x100: .*divisible by 32"),
        ("torchvision:inception_v3", 32, r"does not run on an image of 3x32x32"),
    ],
)
def test_images_of_a_size_that_does_not_fit_are_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(InputError, match=f"^{name} {message}"):
        models.check_logits(name, (3, size, size), {})
    models.check_logits(name, (3, 224, 224), {"weights": "any"})


@pytest.mark.parametrize("name", ["torchvision:fcn_resnet50", "torchvision:lraspp_mobilenet_v3_large"])
def test_networks_for_segmentation_have_the_tensors_of_torchvision(name: str) -> None:
    bare = torchvision.models.get_model(name.partition(":")[2], weights=None, weights_backbone=None, num_classes=5)
    assert list(models.create(name, 5).state_dict()) == list(bare.state_dict())


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "fcn_resnet50", "lraspp_mobilenet_v3_large"])
def test_weights_lose_auxiliary_heads_and_get_another_last_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = torchvision.models.get_model

    def get_model(name: str, weights: Any = None, progress: bool = True, **options: Any) -> nn.Module:
        del progress, weights
        more = {"aux_loss": True} if name.startswith("fcn") else {}
        kinds = {"weights_backbone": None} if name in vision.segmenters() else {"init_weights": False}
        return original(name, weights=None, **more, **kinds, **options)

    (known, *_) = vision.weights_of(name)
    with torch.device("meta"):
        fresh = models.create(f"torchvision:{name}", 5).state_dict()
        monkeypatch.setattr(torchvision.models, "get_model", get_model)
        trained = models.create(f"torchvision:{name}", 5, weights=known).state_dict()
    assert {key: tensor.shape for key, tensor in trained.items()} == {k: t.shape for k, t in fresh.items()}


def test_inception_takes_its_images_in_one_way_with_and_without_weights() -> None:
    with torch.device("meta"):
        assert vision.build("inception_v3", 5).transform_input
        assert not vision.build("googlenet", 5, in_channels=4).transform_input


def test_a_search_lists_what_matches() -> None:
    own = {"resnet18": ("stem",), "unet": ()}
    found = dict(listing.search("EfficientNet", own))
    assert {"torchvision:efficientnet_b0", "timm:tf_efficientnetv2_s", "smp:fpn/efficientnet-b0"} <= found.keys()
    assert found["torchvision:efficientnet_b0"] == "weights: IMAGENET1K_V1"
    assert "smp:unetplusplus/resnet34" in dict(listing.search("U-Net++", own))
    assert dict(listing.search("a1_in1k", own))["timm:resnet18"].startswith("weights: a1_in1k")
    assert next(listing.search("resnet_18", own)) == ("resnet18", "stem")
    assert not dict(listing.search("no such network", own))


def test_weights_say_what_images_are_normalised_by() -> None:
    imagenet, halves = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert timm_networks.normalisation("resnet18", "a1_in1k") == imagenet
    assert timm_networks.normalisation("tf_efficientnet_b0", "ap_in1k") == halves
    assert timm_networks.normalisation("resnet18", "gone") is None
    assert smp_networks.normalisation("unet/tu-resnet18", "a1_in1k") == imagenet


# torchgeo, which the tests do not need: a module of its layout


@pytest.fixture
def torchgeo(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The tensors that its weights hold."""
    like = vision.build("resnet18", 5, in_channels=4).state_dict()
    tensors = {name: torch.randn_like(tensor.float()) for name, tensor in like.items()}

    def weights(steps: nn.Sequential, meta: dict[str, Any]) -> Any:
        return SimpleNamespace(transforms=steps, meta=meta, get_state_dict=lambda **_: tensors)

    members = {
        "SENTINEL2_RGBN_MOCO": weights(
            nn.Sequential(v2.CenterCrop(224), v2.Normalize([0.0], [10000.0])), {"in_chans": 4, "bands": BANDS}
        ),
        "FMOW_GASSL": weights(
            nn.Sequential(v2.Normalize([0.0], [255.0]), v2.Normalize([0.5, 0.4, 0.3, 0.2], [0.2] * 4)), {"in_chans": 4}
        ),
    }
    module = ModuleType("torchgeo.models")
    module.get_model_weights = lambda _: SimpleNamespace(__members__=members)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchgeo", ModuleType("torchgeo"))
    monkeypatch.setitem(sys.modules, "torchgeo.models", module)
    monkeypatch.setattr(extras, "is_installed", lambda _: True)
    return tensors


def test_weights_of_torchgeo_come_in_with_their_bands(torchgeo: dict[str, torch.Tensor]) -> None:
    name = "torchgeo:SENTINEL2_RGBN_MOCO"
    models.check_options("resnet18", {"weights": name})
    state = models.create("torchvision:resnet18", 7, in_channels=4, weights=name).state_dict()
    assert all(torch.equal(state[k], torchgeo[k].to(state[k].dtype)) for k in state if not k.startswith("fc."))
    assert state["fc.weight"].shape == (7, 512)
    with pytest.raises(InputError, match=r"are for 4 bands \(B4, B3, B2, B8\), but the images have 3"):
        models.create("resnet18", 7, weights=name)


def test_weights_of_torchgeo_say_how_images_are_scaled(torchgeo: dict[str, torch.Tensor]) -> None:
    scaling = torchgeo_weights.scaling("resnet18", "torchgeo:SENTINEL2_RGBN_MOCO")
    assert scaling == (tuple(BANDS), (0.0,) * 4, (10000.0,) * 4)
    assert torchgeo_weights.normalisation("resnet18", "torchgeo:SENTINEL2_RGBN_MOCO") is None  # not of 8 bits
    mean, std = torchgeo_weights.normalisation("resnet18", "torchgeo:FMOW_GASSL") or ((), ())
    assert mean == pytest.approx((0.5, 0.4, 0.3, 0.2))
    assert std == pytest.approx((0.2,) * 4)


def test_weights_that_torchgeo_does_not_have_are_refused(torchgeo: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InputError, match=r"unknown weights of torchgeo for resnet18 'RGB'.*Known: FMOW_GASSL, SENTI"):
        models.check_options("resnet18", {"weights": "torchgeo:RGB"})
    with pytest.raises(InputError, match="torchgeo has weights for resnet18, resnet50, resnet152"):
        models.check_options("vgg16_bn", {"weights": "torchgeo:RGB"})
    torchgeo["layer9.weight"] = torch.zeros(1)
    with pytest.raises(InputError, match=r"do not fit: layer9\.weight"):
        models.create("resnet18", 7, in_channels=4, weights="torchgeo:SENTINEL2_RGBN_MOCO")


# What every network has to keep to


@pytest.mark.parametrize(
    "name",
    [
        "timm:ghostnet_050",
        "timm:mobilenetv3_small_050",
        "timm:regnety_002",
        "timm:repvgg_a0",
        "smp:deeplabv3plus/mobilenet_v2",
        "smp:unetplusplus/resnet18",
        "torchvision:lraspp_mobilenet_v3_large",
        "torchvision:googlenet",
    ],
)
def test_a_network_of_a_zoo_keeps_the_contract(name: str) -> None:
    check_network(name, shape=(3, 64, 64), tolerance=1e-4)


def test_weights_of_a_sensor_bring_its_units_and_bands(torchgeo: dict[str, torch.Tensor]) -> None:
    assert models.sensor_scaling("resnet18", "torchgeo:FMOW_GASSL") is None
    values = {"dataset": "eurosat_ms", "model": "resnet18", "method": "none", "rate": 0}
    settings = Settings.model_validate({"model": {"weights": "torchgeo:SENTINEL2_RGBN_MOCO"}})
    point = PruningPoint(values, settings)
    by = normalisation.of_point(point)
    assert by == normalisation.By((0.0,) * 4, (10_000.0,) * 4, raw=True)
    assert normalisation.name_of(point) == "weights"
    normalisation.check(point, 4, ("B04", "B03", "B02", "B08"))
    with pytest.raises(InputError, match=r"trained on B4, B3, B2, B8, in this order, and .* B02, B03, B04, B08"):
        normalisation.check(point, 4, ("B02", "B03", "B04", "B08"))
    # Whatever the scale of the study, the network sees (value - mean) / std of the values in the files.
    pixels = np.full((2, 4, 8, 8), 5000, np.uint16)
    for scaling in (Scaling((0.0,) * 4, (10_000.0,) * 4), Scaling((1000.0,) * 4, (3000.0,) * 4)):
        images = ImageSet(
            "a", ("a", "b"), pixels, np.array([0, 1]), {}, np.zeros(4, np.float32), np.ones(4, np.float32), "", "",
            scaling=scaling,
        )  # fmt: skip
        x = normalise(images.take([0]), normalisation.applied(images, by))
        torch.testing.assert_close(x, torch.full_like(x, 0.5), atol=1e-6, rtol=0)
