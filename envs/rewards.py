"""What dense rewards are made of.

No part of a step's reward is below 0, and success pays what the rest of the episode could have brought. So it never
pays to end an episode by failing, nor to wait with success.
"""

from __future__ import annotations

import numpy as np


def near(distance: float, scale: float) -> float:
    """1 at a distance of 0, 0.24 at `scale`, 0 far away; both in metres."""
    return 1 - float(np.tanh(distance / scale))


def rest(most: float, left: int) -> float:
    """What success pays: 3, and for each control step that is left the `most` that the other parts come to."""
    return 3 + most * left
