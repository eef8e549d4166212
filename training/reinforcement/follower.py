"""What looks on while Stable-Baselines3 learns: it judges and saves, ends the learning, and says if it diverged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from training.error import TrainingError

NOT_FINITE = "Expected parameter"  # how torch's distributions begin to say it


class Follower(BaseCallback):
    """Calls `at_step` after each step of all environments, and `at_round` before each round of decisions, which is
    after each update; ends the learning once `stopped` says so.
    """

    def __init__(
        self,
        stopped: Callable[[], bool],
        *,
        at_step: Callable[[], None] | None = None,
        at_round: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._stopped, self._at_step, self._at_round = stopped, at_step, at_round

    def _on_rollout_start(self) -> None:
        if self._at_round:
            self._at_round()

    def _on_step(self) -> bool:
        if self._at_step:
            self._at_step()
        return not self._stopped()


@contextmanager
def diverging(model: BaseAlgorithm, option: str) -> Iterator[None]:
    """Say of networks that are not finite any more what to do.

    Args:
        option: that is to be lower, for the message.

    Raises:
        TrainingError: instead of torch's error.
    """
    try:
        yield
    except ValueError as error:
        if NOT_FINITE not in str(error):
            raise
        raise diverged(int(model.num_timesteps), option) from None


def diverged(step: int, option: str) -> TrainingError:
    """The error of a run whose networks or loss are not finite."""
    return TrainingError(
        f"step {step}: learning has diverged, a network is not finite any more; begin anew elsewhere with a lower "
        f"{option}. The best one so far is kept"
    )
