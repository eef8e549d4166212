"""Whole clips at once: a policy reads every frame of a video one time, and says where and when over all of it.

Longer videos than a policy's window are clips that follow each other; start and end are found over all of them.

K steps, T frames of the policy, V cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from configs.evaluation import TubeRules
from eval.tubes import RULES, Tube, empty_tube
from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import Aux, Observation

OnProgress = Callable[[int, int], None]  # steps done, all


def decode_clips(
    checkpoint: Checkpoint,
    observations: Sequence[dict[str, Any]],
    instruction: str,
    *,
    content: tuple[float, float] = (1.0, 1.0),
    every: int = 1,
    rules: TubeRules = RULES,
    on_progress: OnProgress | None = None,
) -> Tube:
    """The tube of an instruction over all steps of a video; boxes are shares of the pictures, padding included.

    Args:
        observations: of each step, with `pixels` (camera → (H, W, 3) uint8) and `agent_pos` (P,).
        content: share of the pictures' width and height, from the upper left, that is not padding.
        every: steps of the video for one of the policy's, where it is the faster of the two.

    Raises:
        ValueError: there is no step, the instruction has no words, or the policy finds boxes in its newest frame alone.
    """
    policy = checkpoint.policy.eval()
    config = policy.config
    if not observations:
        raise ValueError("the video has no frames, expected one or more")
    if policy.encoder.grounded_frames < config.frames:
        raise ValueError(
            f"encoder.name {config.encoder.name!r} finds boxes in the newest frame alone; take --decode live"
        )
    if not config.even:
        raise ValueError(f"policy.frame_ages {list(config.frame_ages)} are not evenly apart; take --decode live")
    ids, mask = checkpoint.tokenizer.encode([instruction])
    stride = config.stride * every
    shown = observations[::stride]
    masked = _content_mask(content, policy.shapes.size) if config.grounds_videos else None
    said: list[Aux] = []
    for first in range(0, len(shown), config.frames):
        clip = list(shown[first : first + config.frames])
        count = len(clip)
        if not config.grounds_videos:  # these have always seen as many frames
            clip += [clip[-1]] * (config.frames - count)
        pixels = np.stack([[seen["pixels"][name] for name in config.cameras] for seen in clip])
        observation = Observation(
            frames=torch.from_numpy(pixels).movedim(-1, 2)[None],
            agent_pos=torch.from_numpy(np.stack([np.float32(seen["agent_pos"]) for seen in clip]))[None],
            tokens=torch.from_numpy(ids),
            token_mask=torch.from_numpy(mask),
            pixel_mask=masked,
        )
        said.append(_first(policy.act(observation.to(policy.encoder.camera.device)).aux, count))
        if on_progress:
            on_progress(min((first + count) * stride, len(observations)), len(observations))
    tube = empty_tube(policy, rules)
    tube.read(said, len(observations), stride)
    if masked is not None and config.grounding.positions == "each_layer":
        # Its places are counted within what is shown, and so are its boxes: as in the paper, shares of the content.
        tube.boxes = (np.array(tube.boxes) * np.tile(content, 2)).tolist()
    return tube


def _content_mask(content: tuple[float, float], size: int) -> torch.Tensor | None:
    """Which pixels `(1, H, W)` are content; None if all are."""
    if content == (1.0, 1.0):
        return None
    columns, rows = (torch.arange(size) < max(round(size * share), 1) for share in content)
    return (rows[:, None] & columns)[None]


def _first(aux: Aux, count: int) -> Aux:
    """What is said of the first frames."""
    names = ("boxes", "visible", "start_logits", "end_logits", "during")
    parts: dict[str, Any] = {name: getattr(aux, name) for name in names}
    told = {name: part[:, :count] for name, part in parts.items() if part is not None}
    return Aux(**told)
