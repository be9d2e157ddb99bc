"""The names of the model zoos, to search in."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from rssearch.errors import cut
from rssearch.models import extras, smp_networks, timm_networks, vision

# How networks beyond the registry are named.
FORMS = {
    "torchvision:NAME": "a network of torchvision",
    "timm:NAME": f"a network of timm ({extras.install_command(timm_networks.MODULE)})",
    "smp:ARCH/ENCODER": f"one of segmentation_models_pytorch ({extras.install_command(smp_networks.MODULE)})",
    "micronet:RATES": "a Micro-Net by its cascades",
    "MODULE:NAME": "your own",
}
_ALIKE = 0.75  # of two names, as difflib measures it
_IGNORED = str.maketrans({"-": None, "_": None, " ": None, "+": "plus"})  # in a search


class Zoo(NamedTuple):
    """Networks of a library.

    Attributes:
        prefix: before their names.
        module: of an extra of this package; None for what is always there.
        names: gives their names.
        weights_of: gives the trained weights of one.
    """

    prefix: str
    module: str | None
    names: Callable[[], list[str]]
    weights_of: Callable[[str], list[str]]

    @property
    def is_installed(self) -> bool:
        """Whether its names can be asked for."""
        return self.module is None or extras.is_installed(self.module)


ZOOS = (
    Zoo("torchvision:", None, lambda: [*vision.names(), *vision.segmenters()], vision.weights_of),
    Zoo("timm:", timm_networks.MODULE, timm_networks.names, timm_networks.weights_of),
    Zoo("smp:", smp_networks.MODULE, smp_networks.names, smp_networks.weights_of),
)


def search(text: str, registry: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[str, str]]:
    """Networks whose names or trained weights hold a text, with their options.

    Case, hyphens and underscores do not matter, and ``+`` is ``plus``. Zoos that are not installed are left out, see
    `missing`.

    Args:
        text: to look for.
        registry: networks of the package, with their options.
    """
    wanted = _plain(text)
    for name, options in registry.items():
        if wanted in _plain(name):
            yield name, ", ".join(options) or "none"
    for zoo in ZOOS:
        for name in zoo.names() if zoo.is_installed else ():
            weights = zoo.weights_of(name)
            if wanted in _plain(zoo.prefix + name) or any(wanted in _plain(of) for of in weights):
                yield zoo.prefix + name, f"weights: {', '.join(weights)}" if weights else "none"


def missing() -> list[str]:
    """What a search leaves out, with the command that installs it."""
    return [f"{zoo.prefix}NAME: {extras.install_command(str(zoo.module))}" for zoo in ZOOS if not zoo.is_installed]


def near(name: str, registry: Iterable[str]) -> list[str]:
    """What an unknown name may mean: the networks of all zoos that have it, or else the one most like it.

    Empty where a name of the registry is as much like it, or none is.
    """
    names = {zoo: zoo.names() for zoo in ZOOS if zoo.is_installed}
    if found := [zoo.prefix + name for zoo, of_zoo in names.items() if name in of_zoo]:
        return found
    if difflib.get_close_matches(cut(name), list(registry), n=1, cutoff=_ALIKE):
        return []
    every = {known: zoo.prefix + known for zoo, of_zoo in reversed(names.items()) for known in of_zoo}
    return [every[close] for close in difflib.get_close_matches(cut(name), every, n=1, cutoff=_ALIKE)]


def _plain(text: str) -> str:
    return text.lower().translate(_IGNORED)
