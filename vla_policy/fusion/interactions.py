"""Interactions between the layers of the two encoders: what is exchanged, and after which stages.

B batch, n visual tokens of all frames, c the backbone's width, L text tokens, D width, M attention heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla_policy.exchange import CrossModalExchange, FusionSetup, LanguageEncoder
from vla_policy.layers import Attention, masked_mean
from vla_policy.tokens import LanguageTokens

Exchanged = tuple[Tensor, Tensor | None, dict[str, Tensor]]  # added to vision, added to language, attention maps


class Interaction(nn.Module):
    """What is exchanged; built as `(width, attention_heads, vision_width)`.

    `aligned`: whether visual tokens come, and are returned, at width D. Attention projects in any case, and takes them
    as they are: at the backbone's smaller width this costs half.
    """

    aligned = True

    def __init__(self, width: int, attention_heads: int, vision_width: int) -> None:
        super().__init__()


class Hadamard(Interaction):
    """`f_v ⊙ f_l`, element by element: each token of one side with the mean of the other side."""

    def forward(self, v_BnD: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> Exchanged:
        return v_BnD * masked_mean(l_BLD, mask_BL)[:, None], l_BLD * v_BnD.mean(1, keepdim=True), {}


class Matrix(Interaction):
    """`A = f_v · f_lᵀ / √D`, every place with every text token, and from it `A f_l / L` and `Aᵀ f_v / n`.

    This is attention without the softmax.
    """

    def forward(self, v_BnD: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> Exchanged:
        text = l_BLD * mask_BL[..., None]
        affinity_BnL = v_BnD @ text.mT * v_BnD.shape[-1] ** -0.5
        count = mask_BL.sum(1).clamp(min=1)[:, None, None]
        return affinity_BnL @ text / count, affinity_BnL.mT @ v_BnD / v_BnD.shape[1], {}


class OneWayAttention(Interaction):
    """`Attention(f_v, f_l)`: vision attends to the text; the text tokens do not change."""

    aligned = False

    def __init__(self, width: int, attention_heads: int, vision_width: int) -> None:
        super().__init__(width, attention_heads, vision_width)
        self.vision_reads = Attention(width, attention_heads, query_width=vision_width, out_width=vision_width)

    def forward(self, v_BnD: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> Exchanged:
        for_vision, weights = self.vision_reads(v_BnD, l_BLD, mask_BL)
        return for_vision, None, {"backbone_reads_language": weights}


class ConcatMLP(Interaction):
    """`MLP([f_v; f_l])`, each token of one side with the mean of the other side; one multi-layer perceptron per side.

    The first layer of a concatenation is the sum of two layers. It is computed as such, without the joined copy.
    """

    def __init__(self, width: int, attention_heads: int, vision_width: int) -> None:
        super().__init__(width, attention_heads, vision_width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.other = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2))
        self.last = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def forward(self, v_BnD: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> Exchanged:
        means = masked_mean(l_BLD, mask_BL), v_BnD.mean(1)
        outputs = [
            self.last[side](torch.relu(self.own[side](x) + self.other[side](mean)[:, None]))
            for side, (x, mean) in enumerate(zip((v_BnD, l_BLD), means, strict=True))
        ]
        return outputs[0], outputs[1], {}


class BothWaysAttention(Interaction):
    """`Attention(f_v, f_l)` and `Attention(f_l, f_v)`."""

    aligned = False

    def __init__(self, width: int, attention_heads: int, vision_width: int) -> None:
        super().__init__(width, attention_heads, vision_width)
        self.vision_reads = Attention(width, attention_heads, query_width=vision_width, out_width=vision_width)
        self.language_reads = Attention(width, attention_heads, key_width=vision_width)

    def forward(self, v_BnD: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> Exchanged:
        for_vision, vision_weights = self.vision_reads(v_BnD, l_BLD, mask_BL)
        for_language, language_weights = self.language_reads(l_BLD, v_BnD)
        maps = {"backbone_reads_language": vision_weights, "language_reads_backbone": language_weights}
        return for_vision, for_language, maps


INTERACTIONS: dict[str, type[Interaction]] = {
    "hadamard": Hadamard,
    "matrix": Matrix,
    "attention": OneWayAttention,
    "concat_mlp": ConcatMLP,
    "bidirectional": BothWaysAttention,
}


class StageExchange(nn.Module):
    """The exchange after one stage: align the two sides, interact, add the result to each side (residual)."""

    def __init__(self, interaction: str, width: int, attention_heads: int, frame_width: int) -> None:
        super().__init__()
        kind = INTERACTIONS[interaction]
        vision_width = width if kind.aligned else frame_width
        self.align = nn.Linear(frame_width, width) if kind.aligned else nn.Identity()
        self.norm_v, self.norm_l = nn.LayerNorm(vision_width), nn.LayerNorm(width)
        self.interaction = kind(width, attention_heads, vision_width)
        self.to_vision = nn.Linear(width, frame_width) if kind.aligned else nn.Identity()
        self.to_language = None if interaction == "attention" else nn.Linear(width, width)

    def forward(self, vision_Bnc: Tensor, text: LanguageTokens) -> tuple[Tensor, LanguageTokens, dict[str, Tensor]]:
        v, l = self.norm_v(self.align(vision_Bnc)), self.norm_l(text.tokens)  # noqa: E741 - the paper's letters
        for_vision, for_language, attention = self.interaction(v, l, text.mask)
        vision_Bnc = vision_Bnc + self.to_vision(for_vision)
        if for_language is not None and self.to_language is not None:
            text = LanguageTokens(tokens=text.tokens + self.to_language(for_language), mask=text.mask)
        return vision_Bnc, text, attention


def positions(position: str, stages: int) -> list[int]:
    """The stages of the backbone after which features are exchanged: none, the first, the middle one, or all."""
    return {"none": [], "early": [0], "middle": [stages // 2], "multi": list(range(stages))}[position]


class StageExchanges(nn.Module):
    """All exchanges of one fusion, after the stages of the backbone that `position` names."""

    def __init__(self, interaction: str, position: str, setup: FusionSetup) -> None:
        super().__init__()
        self.stages = setup.stages
        self.at = nn.ModuleDict(
            {
                str(stage): StageExchange(interaction, setup.width, setup.attention_heads, setup.channels)
                for stage in positions(position, setup.stages)
            }
        )

    def exchange(self, language: LanguageEncoder, text: LanguageTokens) -> CrossModalExchange:
        interactions = {int(stage): interaction for stage, interaction in self.at.items()}
        return CrossModalExchange(language, text, interactions, self.stages)
