"""From start and end over the frames to one interval.

B batch, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor


def best_interval(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`argmax over s < e of τ_s[s] · τ_e[e]` (Yang et al. 2022, section 3.4), for the whole batch at once.

    Logarithms are added, not probabilities multiplied: of confident predictions the products are all zero in float32.
    A single frame is its own start and end.

    Args:
        start, end: (B, T) logits, or logarithms of probabilities; those of frames that cannot be meant are very low.

    Returns: first and last frame `(B,)`, and the product, `(B,)` in [0, 1], as the confidence.
    """
    frames = start.shape[1]
    log_start, log_end = start.log_softmax(-1), end.log_softmax(-1)
    pairs = (log_start[:, :, None] + log_end[:, None, :]).clamp(min=torch.finfo(start.dtype).min)
    later = torch.ones(frames, frames, dtype=torch.bool, device=start.device).triu(min(1, frames - 1))
    logarithm, best = pairs.masked_fill(~later, -torch.inf).flatten(1).max(-1)
    return best // frames, best % frames, logarithm.exp()
