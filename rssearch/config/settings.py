"""What all trials of a study share: the section ``settings`` of the YAML, see `rssearch.config.schema`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rssearch.config.scalars import ClassWeights, Integer, Real, Truth, WeightOrAuto
from rssearch.config.searches import ChannelSearch, Slimmable
from rssearch.config.section import Section, Share, or_a_name
from rssearch.config.split import SPLITS, Split, block_metres

__all__ = [
    "SPLITS",
    "Augment",
    "ChannelSearch",
    "Latency",
    "ModelOptions",
    "Normalisation",
    "NormalisationName",
    "Patches",
    "Pruning",
    "Recipe",
    "Runtime",
    "Scale",
    "Section",
    "Settings",
    "Share",
    "Slimmable",
    "Split",
    "block_metres",
    "or_a_name",
]

Runtime = Literal["eager", "compile", "onnxruntime", "openvino"]


class Augment(Section):
    """Random changes of the training images, other ones for each image of each batch."""

    LATER = frozenset({"band_dropout"})

    crop: Integer = Field(
        4, ge=0, description="pixels of reflected border before a random crop back to the size; 0: off"
    )
    hflip: Truth = Field(True, description="half of the images are mirrored, left to right")
    vflip: Truth = Field(True, description="half of the images are mirrored, top to bottom")
    rotate90: Truth = Field(True, description="images are turned by 0, 90, 180 or 270 degrees; needs square images")
    jitter: Share = Field(
        0.0,
        description="largest relative change of brightness, contrast and saturation, in images other than RGB of the "
        "brightness and contrast of each band by itself; 0: off",
    )
    band_dropout: Share = Field(
        0.0,
        description="share of the images that lose one band: it is set to the mean that images are normalised by; "
        "needs two bands or more",
    )


class Patches(Section):
    """Windows that scenes are cut into, for segmentation. Those of val and test overlap no more than they must."""

    size: Integer = Field(128, ge=8, le=4096, description="height and width in pixels; smaller scenes are padded")
    overlap: Integer = Field(
        0, ge=0, description="pixels that neighbours of the training split have in common; less than size"
    )

    @model_validator(mode="after")
    def _windows_advance(self) -> Patches:
        if self.overlap >= self.size:
            raise ValueError(f"overlap {self.overlap} must be less than size {self.size}")
        return self


class Recipe(Section):
    """How a network is trained."""

    LATER = frozenset({"focal_gamma", "class_weights", "sampling"})

    epochs: Integer = Field(10, ge=0, description="passes over the training split; 0: no training")
    batch_size: Integer = Field(128, ge=2, description="images of a step, of all workers of the trial together")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="stochastic gradient descent, or AdamW")
    lr: Real = Field(0.1, gt=0, description="learning rate after the warm-up")
    momentum: Share = Field(0.9, description="of the optimizer sgd")
    nesterov: Truth = Field(False, description="Nesterov's momentum; needs optimizer: sgd and a momentum above 0")
    weight_decay: Real = Field(5e-4, ge=0, description="of all weights: coupled with sgd, decoupled with adamw")
    schedule: Literal["cosine", "step", "constant"] = Field(
        "cosine",
        description="the learning rate after the warm-up: cosine falls towards 0, step falls at milestones, constant "
        "stays",
    )
    milestones: tuple[Share, ...] = Field(
        (0.5, 0.75), description="schedule: step; where the learning rate falls, as shares of the epochs"
    )
    gamma: Real = Field(0.1, gt=0, description="schedule: step; factor on the learning rate at each milestone")
    warmup_epochs: Real = Field(
        0.0, ge=0, description="epochs, or a part of one, in which the learning rate grows linearly from 0 to lr"
    )
    loss: Literal[
        "cross_entropy", "adaptive_mining", "focal", "dice", "lovasz", "dice_cross_entropy", "lovasz_cross_entropy"
    ] = Field(
        "cross_entropy",
        description="on the labels; adaptive_mining adds RemoteTrimmer's loss on hard samples, focal weighs easy ones "
        "down. For masks alone: dice and lovasz (Lovasz-softmax), of each image by itself, and either plus the cross "
        "entropy",
    )
    focal_gamma: Real = Field(
        2.0, ge=0, description="loss: focal; how much easy samples are weighed down, 0: not at all"
    )
    label_smoothing: Real = Field(
        0.0, ge=0, lt=1, description="share of each label that all classes get equally; not with loss: dice or lovasz"
    )
    class_weights: ClassWeights = Field(
        None,
        description="of the classes in the loss: balanced, by the inverse of their number of training images (of their "
        "labelled pixels in masks); or numbers, as a list in the order of the classes, or by their names (1 where a "
        "name is left out). Only their ratios count: a training sample weighs 1 on average. null: all the same",
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        "shuffled",
        description="which images an epoch has: each once, or as many of each class, some repeatedly (patches: as many "
        "that have the class); an epoch is as long either way",
    )
    distill: Share = Field(
        0.0, description="weight of the distillation loss from the baseline; the labels get the rest"
    )
    temperature: Real = Field(4.0, gt=0, description="of the distillation: divides the logits of both networks")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the computation: float32, bfloat16 (mixed with float32), or auto: bf16 on GPUs alone"
    )
    recalibrate_batches: Integer = Field(
        0, ge=0, description="batches that reset the statistics of batch normalisation before the training; 0: none"
    )
    bn_l1: WeightOrAuto = Field(
        0.0,
        description="weight of an L1 penalty on the scales of batch normalisation, as in network slimming; auto: such "
        "that the training, however long, pulls each scale down by 1, which is what scales start at",
    )
    attention: Truth = Field(
        False, description="squeeze-and-excitation while training, folded into BN at the end, as in RemoteTrimmer"
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Recipe:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimizer: sgd and a momentum above 0")
        return self

    @model_validator(mode="after")
    def _loss_takes_it(self) -> Recipe:
        if self.label_smoothing and self.loss in ("dice", "lovasz"):
            raise ValueError(
                f"label_smoothing is a part of the cross entropy, which loss: {self.loss} has not; take "
                f"{self.loss}_cross_entropy"
            )
        if self.class_weights == self.sampling == "balanced":
            raise ValueError("class_weights and sampling would both balance the classes, so twice: choose one of them")
        return self

    @model_validator(mode="after")
    def _attention_needs_training(self) -> Recipe:
        if self.attention and self.epochs == 0:
            raise ValueError("attention needs epochs above 0: modules that were never trained say nothing")
        return self


class ModelOptions(Section):
    """Options of the networks. Those left null take a network's own default."""

    stem: Literal["imagenet", "small"] | None = Field(
        None,
        description="first layers of torchvision's networks; small: a 3x3 convolution of stride 1 without max-pooling, "
        "for images of 32 to 64 pixels",
    )
    shortcut: Literal["A", "B"] | None = Field(
        None,
        description="of the CIFAR ResNets where the width changes; A: no parameters, B: a 1x1 convolution",
    )
    weights: str | None = Field(
        None,
        min_length=1,
        description="trained weights that the baseline begins with: a name, such as IMAGENET1K_V1, or a file "
        "(.safetensors, .pt, .pth, .ckpt), relative to the working directory",
    )
    sha256: dict[str, str] = Field(
        default_factory=dict,
        description="of files of weights, by their names as they stand in weights; filled in when a study starts, and "
        "compared with the file where it is given",
    )
    networks: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="options of single networks by name, such as {micronet: {base: 16}, unet: {levels: 3}}; see "
        "`rssearch models`",
    )

    def given(self, network: str) -> dict[str, Any]:
        """The options of a network that were set, as keyword arguments of ``rssearch.models.create``.

        Those under its name in `networks` come before those of its family (``micronet`` for ``micronet:1,2,3``), and
        these before those of all networks.
        """
        given = self.model_dump(mode="json", exclude={"networks", "sha256"})
        for name in (network.partition(":")[0], network):
            given |= self.networks.get(name, {})
        return {name: value for name, value in given.items() if value is not None}


class Normalisation(Section):
    """What images are normalised by: (value / 255 - mean) / std, in each band."""

    mean: tuple[Real, ...] = Field(min_length=1, description="of values in [0, 1], a number for each band")
    std: tuple[Annotated[Real, Field(gt=0)], ...] = Field(
        min_length=1, description="deviation of values in [0, 1], a number for each band"
    )

    @model_validator(mode="after")
    def _same_bands(self) -> Normalisation:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} numbers, and std {len(self.std)}")
        return self


NormalisationName = Literal["dataset", "imagenet", "weights", "none"]


class Scale(Section):
    """What the values of pixels mean: which value becomes 1, or which percentiles become 0 and 1; none is cut off."""

    divide: Real | None = Field(None, gt=0, description="values are divided by it, such as 10000 for reflectance")
    low: Annotated[Real, Field(ge=0, le=100)] | None = Field(
        None, description="percentile of each band in the training split that becomes 0"
    )
    high: Annotated[Real, Field(ge=0, le=100)] | None = Field(
        None, description="percentile of each band in the training split that becomes 1; above low"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Scale:
        given = [value is not None for value in (self.divide, self.low, self.high)]
        if given not in ([True, False, False], [False, True, True]):
            raise ValueError("give divide, or the percentiles low and high")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be less than high {self.high:g}")
        return self


class Pruning(Section):
    """How scores become a smaller network."""

    LATER = frozenset({"groups", "keep"})

    allocation: Literal["uniform", "global", "global_mean", "lamp", "joint", "sensitivity"] | None = Field(
        None,
        description="how many channels each layer loses: the same share (uniform), by ranking all channels (global, "
        "global_mean, lamp), by two criteria (joint), or by what cutting each layer alone does to the loss "
        "(sensitivity); null: the method's own",
    )
    groups: Literal["all", "inner"] = Field(
        "all",
        description="which groups of coupled channels are cut: all, or those alone that no addition or concatenation "
        "joins with others (inner), such as the inner convolutions of residual blocks; the rest stays whole. A "
        "dimension of the space may be called groups",
    )
    keep: dict[str, Annotated[Real, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        description="share of the channels of single groups that stays at least, by a pattern of their names or of "
        "their layers, such as {layer4.*: 0.5}; 1: whole",
    )
    steps: Integer = Field(
        1, ge=1, description="prune and fine-tune in so many steps; the epochs are divided among them"
    )
    options: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description="options of the methods' criteria by method, such as {lfp: {log: literal_eps}}",
    )
    round_to: Annotated[Integer, Field(ge=1)] | Literal["auto"] = Field(
        1,
        description="kept channels are multiples of this; 8 suits most hardware. auto: the multiple that is measured "
        "to be fast in onnxruntime on the machine where the study starts",
    )
    min_channels: Integer = Field(1, ge=1, description="no group of coupled channels gets smaller than this")
    score_batches: Integer = Field(
        5,
        ge=1,
        description="mini-batches of the training split that the data-driven scores see, and that the allocation "
        "sensitivity takes for each of its halves",
    )
    score_batch_size: Integer = Field(128, ge=1, description="images of each of these mini-batches")


class QuantisationAware(Section):
    """How a fine-tuned network is trained further while its weights and maps are rounded to 8 bits."""

    epochs: Integer = Field(2, ge=1, description="passes over the training split, after the fine-tuning")
    lr: Real = Field(0.001, gt=0, description="learning rate at their start; cosine to 0")
    distill: Share = Field(0.5, description="weight of the distillation from the network in float32")


class Latency(Section):
    """What is timed of the front's networks: each runtime with each batch."""

    runtimes: tuple[Runtime, ...] = Field(
        ("eager",),
        min_length=1,
        description="PyTorch as it is (eager), torch.compile (compile), onnxruntime, or OpenVINO on the CPU (openvino)",
    )
    batches: tuple[Annotated[Integer, Field(ge=1, le=65536)], ...] = Field(
        (1,), min_length=1, description="images that go through the network together"
    )

    def pairs(self) -> list[tuple[Runtime, int]]:
        """Each runtime with each batch, once."""
        return [(runtime, batch) for runtime in dict.fromkeys(self.runtimes) for batch in dict.fromkeys(self.batches)]


class Settings(Section):
    """What all trials of a study share. A dimension of the space may override a value by its dotted name."""

    input_size: Integer | None = Field(
        None,
        ge=8,
        le=4096,
        description="height and width in pixels that images are scaled to; null: their own, which must be the same for "
        "all. Scenes of segmentation sets are never scaled: null",
    )
    split: Split = Field(Split(), description="how the images are divided into train, val and test")
    bands: tuple[Integer | Annotated[str, Field(min_length=1)], ...] | None = Field(
        None,
        min_length=1,
        description="bands of rasters that are read, in this order: numbers from 1, or names, also as a text "
        '("B04,B03,B02"); null or all: all. A dimension of the space may be called bands and have such texts',
    )
    band_names: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        None,
        min_length=1,
        description="names of the bands in the files, in their order; null: those that the files have",
    )
    scale: Scale | None = Field(
        None,
        description="what the values of pixels mean; null: 8 bits are divided by 255, what is known of a dataset is "
        "done, and of other rasters percentiles 2 and 98 of each band become 0 and 1",
    )
    nodata: Real | Literal["none"] | None = Field(
        None,
        description="value of pixels without data, which networks see as the mean of their band; none: all have data; "
        "null: as the files say",
    )
    patches: Patches = Field(Patches(), description="windows that scenes are cut into, for segmentation")
    augment: Augment = Field(Augment(), description="random changes of the training images")
    normalize: NormalisationName | Normalisation | None = Field(
        None,
        description="what images are normalised by: dataset, mean and std of the training images; imagenet; weights, "
        "what the named weights' own transform says; none, values stay in [0, 1]; or {mean, std}. null: weights where "
        "they say it, else dataset",
    )
    model: ModelOptions = Field(ModelOptions(), description="options of the networks")
    train: Recipe = Field(Recipe(), description="how baselines are trained, and networks that are not pruned")
    finetune: Recipe = Field(
        Recipe(epochs=5, lr=0.03, recalibrate_batches=10), description="how pruned networks are trained further"
    )
    pruning: Pruning = Field(Pruning(), description="how scores become a smaller network")
    nas: ChannelSearch = Field(ChannelSearch(), description="how channels are searched (method channel_nas)")
    slimmable: Slimmable = Field(
        Slimmable(), description="how one network is trained for all budgets (method slimmable)"
    )
    qat: QuantisationAware = Field(
        QuantisationAware(), description="how a network learns to be quantised (precision int8_qat)"
    )
    latency: Latency = Field(Latency(), description="what is timed of the front's networks")
    on_error: Literal["raise", "skip"] = Field(
        "raise", description="an image that cannot be read stops the study, or is left out and named"
    )
    download: Truth = Field(False, description="fetch a missing dataset into the data root")
    memory_share: Share = Field(0.4, description="a set larger than this share of the node's memory is streamed")
    keep_models: Literal["front", "all"] = Field(
        "front", description="whose weights stay in the store at the end: those of the front's members, or all"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="any values, for a user-defined trial")

    @field_validator("bands", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = [name.strip() for name in value.split(",")]
        return None if names == ["all"] else [int(name) if name.isdecimal() else name for name in names]
