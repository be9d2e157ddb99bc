"""What the tests of training share: images, networks, and a way to be killed."""

import numpy as np
import torch
from torch import nn

from rssearch.config.settings import Augment
from rssearch.data.imageset import ImageSet
from rssearch.train import TrainContext, loop
from rssearch.train.data_parallel import ALONE

CPU = torch.device("cpu")
AUGMENT = Augment(crop=1)


def image_set(images=(48, 16, 16), classes=3, size=8, seed=0):
    """Images whose class is their brightness, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(sum(images)) % classes
    levels = 40 + 160 * labels / (classes - 1)
    pixels = levels[:, None, None, None] + rng.normal(0, 12, (len(labels), 3, size, size))
    starts = np.cumsum((0, *images))
    indices = {name: np.arange(starts[i], starts[i + 1]) for i, name in enumerate(("train", "val", "test"))}
    mean, std = np.full(3, 0.47, np.float32), np.full(3, 0.26, np.float32)
    names = tuple("abcdefgh"[:classes])
    return ImageSet("levels", names, pixels.clip(0, 255).astype(np.uint8), labels, indices, mean, std, "", "")


def network(seed=0, classes=3):
    """Convolutions, batch normalisation and dropout: all that keeps a state or draws random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, classes),
        )


class KilledError(Exception):
    pass


def killed_after(epoch, kept):
    def on_epoch(record, checkpoint):
        if record["epoch"] == epoch:
            kept.append(checkpoint())
            raise KilledError

    return on_epoch


def fit(model, data, recipe, *, seed=0, device=CPU, micro_batches=1, worker_group=ALONE, augment=AUGMENT, **options):
    context = TrainContext(device, seed, micro_batches, worker_group)
    return loop.fit(model, data.split("train"), data.split("val"), recipe, augment=augment, context=context, **options)


def without_times(history):
    return [{k: v for k, v in record.items() if k not in ("seconds", "images_per_second")} for record in history]


def same_weights(a, b):
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)
