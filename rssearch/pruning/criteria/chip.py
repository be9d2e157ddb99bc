"""CHIP (Sui et al., "CHIP: CHannel Independence-based Pruning for Compact Neural Networks", NeurIPS 2021).

With M [C, H W] the flattened maps of one layer and one image, the channel independence of channel j is what the
nuclear norm loses when row j of M is set to zero (the paper's eq. 3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches
from rssearch.pruning.criteria.maps import of_finite, score_maps

_STEP = 0.4
_NODES = range(-70, 51)  # times the step: the logarithms of t / (largest singular value)
_CHUNK = 2**22  # values of one intermediate result


def chip(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """The channel independence of the maps of each channel; averages as in `score_maps`.

    Raises:
        InputError: as `score_maps`.
    """
    return score_maps(model, graph, data, "chip", of_finite(lambda maps: nuclear_norm_loss(maps.flatten(2))))


def nuclear_norm_loss(matrices: Tensor) -> Tensor:
    """What the nuclear norm loses with each row, for all rows from one decomposition.

    As ``pi s = int_0^inf log(1 + s^2 / t^2) dt``, a nuclear norm is an integral over log-determinants, and taking the
    row m_j away divides the determinant of ``G + t^2 I``, with ``G = M^T M``, by a factor (matrix determinant lemma):

        ||M||_* - ||M without m_j||_*  =  -1/pi int_0^inf log(1 - m_j (G + t^2 I)^-1 m_j^T) dt.

    The eigenvalues of the smaller one of ``M M^T`` and ``M^T M``, in float64, give the integrand for all j and t. The
    integral is the trapezoidal sum over log t. No singular value grows when a row is taken away, so the error of the
    sum for one singular value bounds the relative error of the whole: 2e-9. Rounding in the eigenvalues adds some 1e-8
    of the largest singular value. The result is never negative.

    With r = min(C, n), one matrix costs O(C n r) and the eigenvectors of an r x r matrix; deleting row after row costs
    C times that.

    Args:
        matrices: M [N, C, n], finite.

    Returns:
        [N, C], float64.
    """
    rows = max(1, _CHUNK // (matrices.shape[1] * (matrices.shape[2] + len(_NODES))))
    return torch.cat([_nuclear_norm_loss(part.double()) for part in torch.split(matrices, rows)])


def _nuclear_norm_loss(matrices: Tensor) -> Tensor:
    wide = matrices.shape[1] <= matrices.shape[2]
    values, vectors = torch.linalg.eigh(matrices @ matrices.mT if wide else matrices.mT @ matrices)
    values = values.clamp_min(0)  # s^2; what is negative is rounding
    # Squared products of each row with each right singular vector.
    energy = vectors.square() * values[:, None] if wide else (matrices @ vectors).square()
    largest = values[:, -1:, None]
    largest = largest.where(largest > 0, 1)
    t = torch.exp(_STEP * torch.tensor(_NODES, dtype=values.dtype, device=values.device))
    share = (energy / largest) @ (values[..., None] / largest + t.square()).reciprocal()
    # Rounding would give dead rows a share, and more than 1 to rows that no other row resembles.
    share = share.where(matrices.any(2, keepdim=True), 0).clamp_max(1 - torch.finfo(share.dtype).eps)
    integral: Tensor = -torch.log1p(-share) @ (t * _STEP)  # dt = t d(log t)
    integral *= largest[:, 0].sqrt() / math.pi
    return integral
