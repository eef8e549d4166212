"""Who can act on the page: the policies that were named or ship, each loaded once for all worlds, and the expert."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from configs.names import unknown
from vla_policy.checkpoint import Checkpoint, load_checkpoint, resolve_checkpoint, shipped_names

EXPERT = "expert"


class Policies:
    """Policies by what people call them. A page may choose among these and no others: it cannot name a folder.

    Args:
        given: checkpoints by name or folder, which are loaded now; those that ship are offered, too, and loaded when
            somebody chooses them.

    Raises:
        ValueError: one that was given cannot be loaded.
    """

    def __init__(self, given: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[str, Checkpoint] = {}
        given = list(given)
        self.names = tuple(dict.fromkeys([*given, *shipped_names()]))
        for name in given:
            self.load(name)

    def load(self, name: str) -> Checkpoint:
        """The policy of this name. Several worlds may ask it at a time.

        Raises:
            ValueError: there is no such policy, or it cannot be loaded.
        """
        if name not in self.names:
            raise unknown("policy", name, (*self.names, EXPERT))
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load_checkpoint(resolve_checkpoint(name))
                self._loaded[name].policy.eval()
            return self._loaded[name]

    def for_task(self, task: str, wanted: str) -> str:
        """Who does a task: the one who is wanted if he can, else the first policy that was trained on it, else the
        expert.
        """
        if wanted == EXPERT:
            return EXPERT
        return next((name for name in (wanted, *self.names) if task in self.load(name).purpose.tasks), EXPERT)
