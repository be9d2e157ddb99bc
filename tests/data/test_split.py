import itertools

import numpy as np
import pytest

from rssearch.config.settings import SPLITS, Split
from rssearch.data.split import by_group, divide, joined, quotas, split_hash, stratified
from rssearch.errors import InputError

SHARES = (0.7, 0.1, 0.2)

# Of `make(30)`. A change of these is a change of every recorded split.
KNOWN = {
    "train": [1, 2, 3, 4, 5, 6, 9, 10, 12, 13, 14, 15, 17, 19, 20, 21, 23, 24, 25, 28, 29],
    "val": [7, 26, 27],
    "test": [0, 8, 11, 16, 18, 22],
}
KNOWN_HASH = "08a283ff689336657b9bf34c799b54991ab0c8d9228964048fd5f7b91735e3af"


TILES = {"tile1": 4.6, "tile2": 2.5, "tile4": 8.4, "tile5": 10.7, "tile7": 33.7, "tile8": 28.6}  # megapixels
KNOWN_TILES = {"train": {"tile7", "tile8"}, "val": {"tile4"}, "test": {"tile1", "tile2", "tile5"}}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([10], [[7, 1, 2]]),
        ([2400, 2000, 1600], [[1680, 240, 480], [1400, 200, 400], [1120, 160, 320]]),
        ([80], [[56, 8, 16]]),
        ([3], [[1, 1, 1]]),
        ([2], [[1, 1, 0]]),
        ([1], [[1, 0, 0]]),
        ([0], [[0, 0, 0]]),
        ([25, 25], [[18, 2, 5], [17, 3, 5]]),  # 17.5, 2.5, 5: the second class gets what the first was short of
    ],
)
def test_quotas(counts, expected):
    assert quotas(counts, SHARES) == expected


@pytest.mark.parametrize("shares", [SHARES, (0.72, 0.08, 0.2), (0.18, 0.02, 0.8), (0.63, 0.07, 0.3), (0.5, 0.5, 0.0)])
def test_quotas_are_exact_in_rows_and_columns(shares):
    counts = np.random.default_rng(0).integers(100, 900, 45).tolist()
    rows = np.array(quotas(counts, shares))
    assert rows.sum(1).tolist() == counts
    exact = np.outer(counts, shares)
    assert (np.abs(rows - exact) < 1).all()
    assert (np.abs(rows.sum(0) - exact.sum(0)) <= 1).all()
    assert (rows[:, np.array(shares) > 0] > 0).all()


def make(count=100, classes=3):
    labels = np.arange(count) % classes
    return [f"class{label}/{i}.jpg" for i, label in enumerate(labels)], labels


def test_split_does_not_depend_on_the_order():
    names, labels = make()
    first = stratified(names, labels, Split())
    shuffled = np.random.default_rng(0).permutation(len(names))
    second = stratified([names[i] for i in shuffled], labels[shuffled], Split())
    for split in first:
        assert {names[i] for i in first[split]} == {names[shuffled[i]] for i in second[split]}
    assert split_hash(names, first) == split_hash([names[i] for i in shuffled], second)


def test_seed_and_move_of_one_image_change_the_hash():
    names, labels = make()
    first = stratified(names, labels, Split())
    assert split_hash(names, first) != split_hash(names, stratified(names, labels, Split(seed=1)))
    moved = first | {"train": first["train"][1:], "val": np.append(first["val"], first["train"][0])}
    assert split_hash(names, first) != split_hash(names, moved)


def test_known_split_stays_the_same_in_later_versions():
    names, labels = make(30)
    indices = stratified(names, labels, Split())
    assert {split: members.tolist() for split, members in indices.items()} == KNOWN
    assert split_hash(names, indices) == KNOWN_HASH


def test_an_added_image_moves_few_others():
    names, labels = make(300)
    before = stratified(names, labels, Split())
    after = stratified([*names, "class0/new.jpg"], np.append(labels, 0), Split())
    moved = sum(len(set(before[split]) - set(after[split])) for split in before)
    assert moved <= 3


@pytest.mark.parametrize("seed", range(5))
def test_copies_stay_on_one_side(seed):
    names, labels = make(300)
    groups = list(range(300))
    for copies in ([0, 3], [1, 4, 7, 10], [2, 30], [5, 6]):  # the last spans two classes, as 2 and 30 do
        for index in copies:
            groups[index] = 1000 + copies[0]
    indices = stratified(names, labels, Split(seed=seed), groups)
    side = np.empty(300, int)
    for number, members in enumerate(indices.values()):
        side[members] = number
    assert side[0] == side[3]
    assert side[1] == side[4] == side[7] == side[10]
    assert side[2] == side[30]
    assert side[5] == side[6]
    assert [len(members) for members in indices.values()] == [210, 30, 60]


def test_copies_that_fit_nowhere_go_to_training():
    names, labels = make(20, 2)
    indices = stratified(names, labels, Split(), [0 if label == 0 else i + 1 for i, label in enumerate(labels)])
    assert set(range(0, 20, 2)) <= set(indices["train"])


def test_published_test_set_stays():
    names, labels = make(120)
    fixed = ["test" if i >= 100 else "train" for i in range(120)]
    indices = divide(names, labels, Split(), fixed)
    assert indices["test"].tolist() == list(range(100, 120))
    assert len(indices["val"]) == 12  # an eighth of 100: val / (train + val) = 0.1 / 0.8
    assert len(indices["train"]) == 88
    assert sorted(np.concatenate(list(indices.values()))) == list(range(120))


def test_published_validation_set_stays():
    names, labels = make(9)
    fixed = ["train"] * 3 + ["val"] * 3 + ["test"] * 3
    indices = divide(names, labels, Split(), fixed)
    assert {k: v.tolist() for k, v in indices.items()} == {"train": [0, 1, 2], "val": [3, 4, 5], "test": [6, 7, 8]}


@pytest.mark.parametrize("name", SPLITS)
def test_published_shares(name):
    names, labels = make(4500, 45)
    indices = stratified(names, labels, Split.model_validate(name))
    share = SPLITS[name]["test"]
    assert len(indices["test"]) == round(4500 * share)
    assert (np.bincount(labels[indices["test"]]) == round(100 * share)).all()


def shares_of(indices, pixels):
    return np.array([sum(pixels[i] for i in members) for members in indices.values()]) / sum(pixels)


class TestByGroup:
    def test_known_division_stays_the_same_in_later_versions(self):
        names = [f"{tile}_part{part}" for tile in TILES for part in range(3)]
        groups, pixels = [name[:5] for name in names], [int(1e6 * TILES[name[:5]]) for name in names]
        indices = by_group(names, groups, pixels, Split())
        found = {split: {groups[index] for index in members} for split, members in indices.items()}
        assert found == KNOWN_TILES
        assert sorted(np.concatenate(list(indices.values()))) == list(range(18))
        assert all(members.dtype == np.int64 and (np.diff(members) > 0).all() for members in indices.values())

    @pytest.mark.parametrize("seed", range(8))
    def test_groups_are_never_parted_and_shares_are_near_the_best_that_groups_allow(self, seed):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(3, 8))
        sizes = rng.integers(1, 1000, count)
        groups = [f"g{group}" for group in range(count) for _ in range(2)]
        pixels = np.repeat(sizes, 2).tolist()
        names = [str(index) for index in range(len(groups))]
        indices = by_group(names, groups, pixels, Split(seed=seed))
        owners = [{groups[index] for index in members} for members in indices.values()]
        assert all(owners)
        assert sum(map(len, owners)) == count

        def error(sides):
            return np.abs(np.bincount(sides, sizes, minlength=3) / sizes.sum() - SHARES).sum()

        everything = itertools.product(range(3), repeat=count)
        best = min(error(sides) for sides in everything if len(set(sides)) == 3)
        assert np.abs(shares_of(indices, pixels) - SHARES).sum() <= best + 0.06

    def test_equal_scenes_get_exact_shares_and_seeds_divide_them_in_other_ways(self):
        names = [f"austin{number}" for number in range(1, 41)]
        divisions = [by_group(names, names, [25_000_000] * 40, Split(seed=seed)) for seed in range(5)]
        assert all([len(members) for members in indices.values()] == [28, 4, 8] for indices in divisions)
        assert len({split_hash(names, indices) for indices in divisions}) == 5

    def test_the_order_of_the_scenes_does_not_matter(self):
        names = [str(index) for index in range(20)]
        pixels = list(range(100, 120))
        shuffled = np.random.default_rng(0).permutation(20)
        first = by_group(names, names, pixels, Split())
        second = by_group(
            [names[i] for i in shuffled], [names[i] for i in shuffled], [pixels[i] for i in shuffled], Split()
        )
        assert split_hash(names, first) == split_hash([names[i] for i in shuffled], second)

    def test_every_split_with_a_share_gets_a_group_however_small_the_share(self):
        indices = by_group(["a", "b", "c"], ["a", "b", "c"], [10, 10, 1000], Split(train=0.98, val=0.01, test=0.01))
        assert indices["train"].tolist() == [2]
        assert [len(members) for members in indices.values()] == [1, 1, 1]

    def test_a_split_without_a_share_stays_empty(self):
        indices = by_group(["a", "b"], ["a", "b"], [1, 1], Split(train=0.5, val=0.5, test=0))
        assert [len(members) for members in indices.values()] == [1, 1, 0]

    def test_too_few_groups(self):
        with pytest.raises(InputError, match=r"2 groups of scenes \(x, y\) cannot be divided among 3 splits"):
            by_group(["a", "b", "c"], ["x", "y", "x"], [1, 1, 1], Split())
        with pytest.raises(InputError, match=r"2 scenes \(a, b\) cannot be divided among 3 splits"):
            by_group(["a", "b"], ["a", "b"], [1, 1], Split())


def test_groups_with_copies_of_one_another_become_one():
    groups = ["d", "b", "c", "a", "c", "e"]
    assert joined(groups, [1, 2, 3, 4, 5, 6]) == tuple(groups)
    assert joined(groups, [1, 2, 2, 4, 4, 6]) == ("d", "a", "a", "a", "a", "e")
    assert joined(groups, [0] * 6) == ("a",) * 6
