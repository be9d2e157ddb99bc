"""Low Frequency Preference (LFP): spectra of feature maps.

For the map M_j of channel j of one image, m_j is the flattened logarithm of ``|FFT2(M_j)|``. With M the matrix of the
m_j of one layer, the score of channel j is what the Frobenius norm of M loses with it (the paper's eq. 5-7),

    ||M||_F - sqrt(||M||_F^2 - r_j)  =  r_j / (||M||_F + sqrt(||M||_F^2 - r_j)),      r_j = ||m_j||^2,

and the right-hand form has no cancellation. Centring the spectrum permutes it and changes no norm. All bins weigh the
same: the score measures log-spectral magnitude, not the share of low frequencies.

The logarithm is ``log(1 + |F|)``: monotone, finite, and zero for a dead map. The paper's, ``1 + log |F|``, is infinite
where a bin is zero. With ``|F| + 1e-12`` in it (the option ``literal_eps``) it is finite; but as negative logarithms
are squared, a dead map then becomes the MOST important one of its layer, and bins that are zero but for rounding weigh
more than any signal. It is there for comparisons with the text alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches
from rssearch.pruning.criteria.maps import score_maps

LOGARITHMS: dict[str, Callable[[Tensor], Tensor]] = {  # the default first
    "log1p": torch.log1p,
    "literal_eps": lambda magnitude: 1 + (magnitude + 1e-12).log(),
}
_CACHED = 2**18  # values that a CPU transforms at a time: their spectra stay in its cache
_CHUNK = 2**24  # and a GPU
_SMALL = 64  # values of a map for which a matrix product is faster than the FFT


def lfp(
    model: nn.Module,
    graph: ChannelGraph,
    data: Batches | None,
    seed: int,  # noqa: ARG001
    log: str = "log1p",
) -> dict[str, Tensor]:
    """The spectral score of the maps of each channel, by the logarithm `log`; averages as in `score_maps`.

    Raises:
        InputError: as `score_maps`.
    """
    return score_maps(model, graph, data, "lfp", lambda maps: norm_loss(spectral_energy(maps, log)))


def spectral_energy(maps: Tensor, log: str = "log1p") -> Tensor:
    """The squared norm r of the log-spectrum of each map.

    Args:
        maps: [N, C, H, W], real.
        log: a name of `LOGARITHMS`.

    Returns:
        [N, C], float32 (float64 for float64 maps). For `log1p`, float32 differs from float64 by less than 5e-6 of the
        value, for maps of up to 224 x 224.
    """
    if maps.dtype not in {torch.float32, torch.float64}:
        maps = maps.float()
    height, width = maps.shape[-2:]
    # A real map has a symmetric spectrum: the columns that rfft2 leaves out are copies of those that it counts.
    copies = maps.new_full((height, width // 2 + 1), 2)
    copies[:, 0] = 1
    if width % 2 == 0:
        copies[:, -1] = 1
    chunk = _CACHED if maps.device.type == "cpu" else _CHUNK
    parts = torch.split(maps.reshape(-1, height, width), max(1, chunk // (height * width)))
    transform = _transform_small if height * width <= _SMALL and maps.device.type == "cpu" else torch.fft.rfft2
    spectra = (LOGARITHMS[log](_modulus(transform(part))).flatten(1) for part in parts)
    return torch.cat([spectrum.square_() @ copies.ravel() for spectrum in spectra]).reshape(maps.shape[:2])


def _transform_small(maps: Tensor) -> Tensor:
    """What `torch.fft.rfft2` gives for maps [n, H, W], as one product with the transform of each position."""
    positions = torch.eye(maps[0].numel(), dtype=torch.float64).reshape(-1, *maps.shape[1:])
    waves = torch.view_as_real(torch.fft.rfft2(positions))
    product = maps.flatten(1) @ waves.flatten(1).to(maps.dtype)
    return torch.view_as_complex(product.reshape(-1, *waves.shape[1:]))


def _modulus(spectra: Tensor) -> Tensor:
    """The modulus of complex numbers. NumPy's code for it is ten times as fast as torch's on a CPU with AVX-512."""
    return torch.from_numpy(np.abs(spectra.numpy())) if spectra.device.type == "cpu" else spectra.abs()


def norm_loss(energy: Tensor) -> Tensor:
    """What the Frobenius norm loses with each row, from the squared norms of the rows [N, C]; 0 for a zero matrix."""
    total = energy.sum(1, keepdim=True)
    denominator = total.sqrt() + (total - energy).clamp_min(0).sqrt()
    return torch.where(energy == 0, 0, energy / denominator.clamp_min(torch.finfo(energy.dtype).tiny))
