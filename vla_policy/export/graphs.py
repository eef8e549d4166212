"""What is exported: one decision from a window of frames, and one from the newest frame and what is kept of earlier
ones. Pictures come as cameras give them, actions leave as a robot takes them.

B batch, T frames, V cameras, H W picture, c h w features of a frame, P proprioception, L text tokens, S chunk steps,
A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import Observation, fake_batch

EXAMPLES = 2  # rows of the inputs with which a graph is traced: with one, it would be for one alone


@dataclass(frozen=True, kw_only=True)
class Units:
    """Names of the actions that leave, in their order, and what -1 and 1 are in their units."""

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def plain(cls, names: Sequence[str]) -> Units:
        """Actions in [-1, 1]."""
        return cls(names=tuple(names), low=(-1.0,) * len(names), high=(1.0,) * len(names))


class Graph(nn.Module):
    """A policy's decision as a function of named tensors. In evaluation mode, in the type of the policy.

    Args:
        checkpoint: the policy.
        units: of the actions that leave.

    `frames` is how many of the newest frames the policy looks at, T.
    """

    middle: Tensor
    span: Tensor

    def __init__(self, checkpoint: Checkpoint, units: Units) -> None:
        super().__init__()
        self.policy, self._boxes = checkpoint.policy, checkpoint.purpose.boxes
        self.frames = self.policy.encoder.grounded_frames
        self._words = self.policy.config.language.max_words
        names = checkpoint.purpose.action_names
        low, high = torch.tensor(units.low), torch.tensor(units.high)
        self._order = [names.index(name) for name in units.names]
        self._scaled = units != Units.plain(names)
        self.register_buffer("middle", (high + low) / 2)
        self.register_buffer("span", (high - low) / 2)
        self.eval()

    def inputs(self) -> dict[str, Tensor]:
        """Random inputs of the right shapes, by name."""
        raise NotImplementedError

    def decide(self, frames: Tensor, agent_pos: Tensor, tokens: Tensor, token_mask: Tensor) -> dict[str, Tensor]:
        """Of the T newest frames in either of the forms that `Observation` has: actions (B, S, A), and what else the
        policy learned to say: boxes (B, T, 4), visible and during (B, T).
        """
        seen = self.policy.shapes.frames
        if self.frames < seen:  # the policy takes more than it looks at
            frames = torch.cat([frames[:, :1].expand(-1, seen - self.frames, -1, -1, -1, -1), frames], dim=1)
        felt = agent_pos[:, None].expand(-1, seen, -1)
        chunk = self.policy.act(Observation(frames=frames, agent_pos=felt, tokens=tokens, token_mask=token_mask))
        action = chunk.action
        if self._scaled:
            action = self.middle + self.span * action[..., self._order].clamp(-1, 1)
        said = {"boxes": chunk.aux.boxes, "visible": chunk.aux.visible, "during": chunk.aux.during}
        kept = {name: value for name, value in said.items() if value is not None and self._boxes}
        return {"actions": action, **kept}

    def _fake(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Pictures (B, T, V, H, W, 3), and the inputs that both graphs have."""
        batch = fake_batch(self.policy.shapes, self.policy.config.head.chunk, batch=EXAMPLES, words=self._words)
        seen = batch.observation
        pictures = seen.frames[:, -self.frames :].movedim(3, -1).contiguous()
        return pictures, {"agent_pos": seen.agent_pos[:, -1], "tokens": seen.tokens, "token_mask": seen.token_mask}


class Window(Graph):
    """frames (B, T, V, H, W, 3) uint8, oldest first; agent_pos (B, P) float32 in physical units; tokens (B, L) int64
    and token_mask (B, L) bool → see `Graph.decide`.
    """

    def inputs(self) -> dict[str, Tensor]:
        pictures, others = self._fake()
        return {"frames": pictures, **others}

    def forward(self, frames: Tensor, agent_pos: Tensor, tokens: Tensor, token_mask: Tensor) -> dict[str, Tensor]:
        return self.decide(frames.movedim(-1, 3), agent_pos, tokens, token_mask)


class Stream(Graph):
    """The same from frame (B, V, H, W, 3), the newest one, and earlier (B, T - 1, V, c, h, w), the features of the
    earlier frames of the window, oldest first. Where begins (B,) is True there are none: the newest frame stands for
    them. The output has also features (B, V, c, h, w), which later decisions take as earlier ones.

    Features depend on their frame alone. Where the fusion lets text and frames read each other while these are being
    encoded, they end before that.
    """

    def __init__(self, checkpoint: Checkpoint, units: Units) -> None:
        super().__init__(checkpoint, units)
        language, fusion = self.policy.language, self.policy.fusion
        tokens = torch.zeros(1, self._words, dtype=torch.int64)
        text = language.embed(tokens, torch.ones_like(tokens, dtype=torch.bool))
        self._stage = self.policy.encoder.alone(fusion.exchange(language, text))

    def inputs(self) -> dict[str, Tensor]:
        pictures, others = self._fake()
        with torch.no_grad():
            earlier = self._look(pictures[:, :-1])
        return {
            "frame": pictures[:, -1].contiguous(),
            "begins": torch.arange(EXAMPLES) % 2 == 0,
            "earlier": earlier.contiguous(),
            **others,
        }

    def forward(
        self, frame: Tensor, begins: Tensor, earlier: Tensor, agent_pos: Tensor, tokens: Tensor, token_mask: Tensor
    ) -> dict[str, Tensor]:
        newest = self._look(frame[:, None])
        earlier = torch.where(begins.view(-1, 1, 1, 1, 1, 1), newest, earlier)
        decided = self.decide(torch.cat([earlier, newest], dim=1), agent_pos, tokens, token_mask)
        return {**decided, "features": newest.squeeze(1)}

    def _look(self, pictures: Tensor) -> Tensor:
        """Pictures (B, T, V, H, W, 3) → features (B, T, V, c, h, w)."""
        return self.policy.encoder.look(pictures.movedim(-1, 3), self._stage)


GRAPHS: dict[str, type[Graph]] = {"window": Window, "stream": Stream}


def graphs_of(checkpoint: Checkpoint, units: Units) -> dict[str, Graph]:
    """The graphs of a policy by name. One that looks at a single frame has nothing to keep, and no stream.

    Raises:
        ValueError: its text model is frozen.
    """
    policy = checkpoint.policy
    if policy.config.language.name == "pretrained" and policy.config.language.pretrained.frozen:
        raise ValueError(
            "a frozen text model (language.pretrained.frozen) cannot be exported: its states are looked up outside of "
            "the network; export a policy with language.name 'transformer', or one whose text model was trained, too"
        )
    names = ["window"] if policy.encoder.grounded_frames == 1 else list(GRAPHS)
    return {name: GRAPHS[name](checkpoint, units) for name in names}
