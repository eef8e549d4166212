"""Seeds of the splits never meet."""

from __future__ import annotations

import pytest

from configs.seeds import SEED_RANGE, SEED_STARTS, split_seed


def test_seeds_of_splits_never_meet() -> None:
    assert set(SEED_STARTS) == {"train", "validation", "test"}
    ranges = [(split_seed(split, 0), split_seed(split, SEED_RANGE - 1)) for split in SEED_STARTS]
    for (_, last), (first, _) in zip(sorted(ranges)[:-1], sorted(ranges)[1:], strict=True):
        assert last < first
    assert all(last - first == SEED_RANGE - 1 for first, last in ranges)
    assert split_seed("test", 5) - split_seed("test", 0) == 5


@pytest.mark.parametrize(("split", "index"), [("tset", 0), ("train", -1), ("train", SEED_RANGE)])
def test_seeds_outside_a_split_are_refused(split: str, index: int) -> None:
    with pytest.raises(ValueError, match=r"must be one of train, validation, test|must lie between 0 and 99999999"):
        split_seed(split, index)
