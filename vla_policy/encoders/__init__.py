"""Spatio-temporal encoders: frames `(B, T, V, C, H, W)` uint8 → `VisualTokens`. One file each; all share `vision.py`.

Built as `(config, setup)`: the encoder's own settings, None if it has none, and what all encoders are built with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vla_policy.encoders.conv3d import Conv3dEncoder
from vla_policy.encoders.frame_lstm import FrameLSTMEncoder
from vla_policy.encoders.frame_transformer import FrameTransformerEncoder
from vla_policy.encoders.single_frame import SingleFrameEncoder
from vla_policy.encoders.slow_fast import SlowFastEncoder
from vla_policy.encoders.space_time_attention import SpaceTimeAttentionEncoder
from vla_policy.encoders.two_stream import TwoStreamEncoder
from vla_policy.vision import EncoderSetup, VisionEncoder

ENCODERS: dict[str, Callable[[Any, EncoderSetup], VisionEncoder]] = {
    "single_frame": SingleFrameEncoder,
    "frame_lstm": FrameLSTMEncoder,
    "frame_transformer": FrameTransformerEncoder,
    "conv3d": Conv3dEncoder,
    "space_time_attention": SpaceTimeAttentionEncoder,
    "slow_fast": SlowFastEncoder,
    "two_stream": TwoStreamEncoder,
}
