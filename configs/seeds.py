"""Which seeds are whose: training, validation and test seeds never meet, nor do those of neighbouring collections."""

from __future__ import annotations

# Each split is an offset into a range of its own.
SEED_RANGE = 100_000_000
SEED_STARTS = {"train": 0, "validation": SEED_RANGE, "test": 2 * SEED_RANGE}
# The golden section of the range. Multiples of it, taken round the range, lie as far apart as so many points can:
# any two of 100 neighbours by 502,511 at least, of 400 by 118,577, of 1,000 by 45,187.
SPREAD = 61_803_399


def split_seed(split: str, index: int) -> int:
    """The `index`-th environment seed of a split ("train", "validation", "test").

    Raises:
        ValueError: there is no such split or seed.
    """
    if split not in SEED_STARTS:
        raise ValueError(f"split {split!r} must be one of {', '.join(SEED_STARTS)}")
    if not 0 <= index < SEED_RANGE:
        raise ValueError(f"seed {index} must lie between 0 and {SEED_RANGE - 1}")
    return SEED_STARTS[split] + index


def collection_seed(split: str, seed: int, index: int) -> int:
    """The environment seed of the `index`-th try of a collection with this seed.

    Collections with neighbouring seeds start far from each other, so that they share no scene.
    """
    return split_seed(split, (seed * SPREAD + index) % SEED_RANGE)
