"""What a confusion matrix says of given weights, and why they measure too low, in words."""

from __future__ import annotations

import pytest
import torch

from rssearch.trials.reached import Reached, of_matrix, said

CLASSES = ("a", "b", "c", "d")


def matrix(right: int, order: tuple[int, ...] = (0, 1, 2, 3), each: int = 50) -> torch.Tensor:
    """Of `each` images of a class so many get the output `order[class]`, and the others are spread."""
    table = torch.full((4, 4), (each - right) // 3)
    for label, output in enumerate(order):
        table[label, output] += each - int(table[label].sum())
    return table


def found(
    right: int, normalize: str = "dataset", order: tuple[int, ...] = (0, 1, 2, 3), confidence: float = 0.5
) -> Reached:
    return of_matrix(matrix(right, order), confidence, normalize, "accuracy")


def test_the_order_is_that_of_the_rows_to_take() -> None:
    order = (2, 0, 1, 3)
    one = found(44, order=order)
    assert one.order == order
    assert one.is_reordered
    assert one.best == one.reordered == pytest.approx(44 / 50)
    assert one.quality == pytest.approx((2 * 3 + 44) / 200)
    weight = torch.eye(4)[:, torch.tensor(order)].T  # outputs of the network, by classes here
    assert torch.equal(weight, torch.eye(4)[list(order)])


def test_the_best_order_of_a_random_network_is_none() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):  # of 40 images and 10 classes some order fits a quarter of them
        labels = torch.arange(40) % 10
        outputs = torch.randint(0, 10, (40,), generator=generator)
        table = torch.zeros(10, 10, dtype=torch.int64)
        table.index_put_((labels, outputs), torch.ones(40, dtype=torch.int64), accumulate=True)
        one = of_matrix(table, 0.1, "none", "accuracy")
        assert one.reordered > one.quality
        assert not one.is_reordered


def test_an_order_is_looked_for_under_every_normalisation_and_comes_before_what_explains_less() -> None:
    rows = [found(14, "none"), found(20, "{mean: [0.5], std: [0.5]}"), found(35, "imagenet", (1, 0, 3, 2))]
    text = said("w.pt", rows, CLASSES)
    assert text == (
        "the weights w.pt reach 28.0% of the validation images, at chance. What explains it: class order: with "
        "settings.normalize: imagenet and rows [1, 0, 3, 2] of the last layer (its classes seem to be b, a, d, c) "
        "it is 70.0%"
    )


def test_of_causes_that_explain_as_much_both_are_named() -> None:
    rows = [found(14, "none"), found(35, "imagenet"), found(38, "dataset", (1, 0, 3, 2))]
    text = said("w.pt", rows, CLASSES)
    order, normalisation = (
        text.index("class order: with"),
        text.index("normalisation: with settings.normalize: imagenet"),
    )
    assert order < normalisation


def test_a_network_that_is_only_too_certain_gets_one_short_line() -> None:
    rows = [found(32, "imagenet", confidence=0.85), found(20, "dataset"), found(20, "none")]
    assert rows[0].is_suspicious
    text = said("ddp.pth", rows, CLASSES)
    assert text.startswith("the weights ddp.pth reach 64.0% of the validation images, and are 85% certain of them; no ")
    assert "too certain" in text
    assert "order: with" not in text
    assert len(text) < 250


def test_at_chance_under_everything() -> None:
    text = said("w.pt", [found(14, "dataset"), found(14, "none")], CLASSES)
    assert "at chance; no other normalisation that was tried and no other order" in text
    assert "(dataset, none)" in text


def test_of_masks_the_quality_is_that_of_the_objective() -> None:
    table = torch.tensor([[900, 0, 0], [20, 60, 0], [20, 0, 0]])
    one = of_matrix(table, 0.5, "none", "miou")
    assert one.accuracy == pytest.approx(0.96)
    assert one.quality == pytest.approx((900 / 940 + 60 / 80 + 0) / 3)
    assert not one.at_chance
    naming_one = of_matrix(torch.tensor([[900, 0, 0], [80, 0, 0], [20, 0, 0]]), 0.5, "none", "miou")
    assert naming_one.at_chance
    assert naming_one.accuracy == 0.9
    swapped = of_matrix(table[:, [1, 0, 2]], 0.5, "none", "miou")
    assert swapped.is_reordered
    assert swapped.order == (1, 0, 2)
    assert swapped.reordered == one.quality
    assert "mIoU on the validation images" in said("w.pt", [swapped], ("a", "b", "c"))
