"""From start and end over the frames to one interval.

B batch, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor


def best_interval(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`argmax over s < e of τ_s[s] · τ_e[e]` (Yang et al. 2022, section 3.4), for the whole batch at once.

    Args:
        start, end: (B, T) probabilities, T being at least 2.

    Returns: first and last frame `(B,)`, and the product, `(B,)` in [0, 1], as the confidence.
    """
    frames = start.shape[1]
    if frames < 2:
        raise ValueError(f"an interval needs 2 frames or more, got {frames}")
    pairs = (start[:, :, None] * end[:, None, :]).triu(1)
    later = torch.ones(frames, frames, dtype=torch.bool, device=start.device).triu(1)
    confidence, best = pairs.masked_fill(~later, -1.0).flatten(1).max(-1)
    return best // frames, best % frames, confidence
