"""What to take of a dataset in LeRobot's format."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST = 1e30  # bound of an action: beyond it, single precision ends


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What to take of a foreign dataset.

    Args:
        task: what the task is to be called; the folder's name if left out.
        cameras: which, by the end of their feature's name; all if left out.
        size: pixels a side of the pictures: of others that are not square, the middle square is taken. Left out, they
            stay as they are, which they only can if all are square and of one size.
        state, action: keys of the features that are proprioception and action.
        instruction: for frames whose own is empty.
        action_low, action_high: what is to become -1 and 1, such as the bounds of the robot's action space. Left out,
            the smallest and largest values are taken, or none where all lie in [-1, 1].
    """

    task: str = ""
    cameras: tuple[str, ...] = ()
    size: int | None = None
    state: str = "observation.state"
    action: str = "action"
    instruction: str = ""
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.size is not None and not 8 <= self.size <= 1024:
            raise ValueError(f"size {self.size} must lie between 8 and 1024 pixels")
        if len(self.action_low) != len(self.action_high):
            raise ValueError(
                f"action_low has {len(self.action_low)} numbers, action_high {len(self.action_high)}; give both"
            )
        if any(not low < high for low, high in zip(self.action_low, self.action_high, strict=True)):
            raise ValueError(f"action_low {self.action_low} must be below action_high {self.action_high}")
        if any(abs(bound) > LARGEST for bound in (*self.action_low, *self.action_high)):
            raise ValueError(f"action_low and action_high must lie between {-LARGEST:g} and {LARGEST:g}")
