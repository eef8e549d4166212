"""Exchanges between the layers of the two encoders: what is said, and after which stages.

B batch, n visual tokens of all frames, c the backbone's width, L words, D width, M heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla_policy.dialogue import Dialogue, FusionSetup, LanguageEncoder
from vla_policy.layers import Attention, masked_mean
from vla_policy.tokens import LanguageTokens

Said = tuple[Tensor, Tensor | None, dict[str, Tensor]]  # for vision, for language, attention maps


class Interaction(nn.Module):
    """What is exchanged; built as `(width, attention_heads, vision_width)`.

    `aligned`: whether vision comes, and is answered, at width D. Attention projects anyhow, and takes vision as it is:
    at the backbone's width its many tokens cost half.
    """

    aligned = True

    def __init__(self, width: int, attention_heads: int, vision_width: int) -> None:
        super().__init__()


class Hadamard(Interaction):
    """`f_v ⊙ f_l`, element by element; each token of one side meets the mean of the other."""

    def forward(self, v_BnD: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> Said:
        return v_BnD * masked_mean(l_BLD, mask_BL)[:, None], l_BLD * v_BnD.mean(1, keepdim=True), {}


class Matrix(Interaction):
    """`A = f_v · f_lᵀ / √D`, every place with every word, and through it back: `A f_l / L` and `Aᵀ f_v / n`.

    Without the softmax that makes attention of it.
    """

    def forward(self, v_BnD: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> Said:
        words = l_BLD * mask_BL[..., None]
        affinity_BnL = v_BnD @ words.mT * v_BnD.shape[-1] ** -0.5
        count = mask_BL.sum(1).clamp(min=1)[:, None, None]
        return affinity_BnL @ words / count, affinity_BnL.mT @ v_BnD / v_BnD.shape[1], {}


class OneWayAttention(Interaction):
    """`Attention(f_v, f_l)`: places read words; the words read on undisturbed."""

    aligned = False

    def __init__(self, width: int, attention_heads: int, vision_width: int) -> None:
        super().__init__(width, attention_heads, vision_width)
        self.vision_reads = Attention(width, attention_heads, query_width=vision_width, out_width=vision_width)

    def forward(self, v_BnD: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> Said:
        for_vision, weights = self.vision_reads(v_BnD, l_BLD, mask_BL)
        return for_vision, None, {"backbone_reads_language": weights}


class ConcatMLP(Interaction):
    """`MLP([f_v; f_l])`, each token of one side with the mean of the other; one multi-layer perceptron a side.

    The first layer of a concatenation is the sum of two layers, and is computed as such, without the joined copy.
    """

    def __init__(self, width: int, attention_heads: int, vision_width: int) -> None:
        super().__init__(width, attention_heads, vision_width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.other = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2))
        self.last = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def forward(self, v_BnD: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> Said:
        means = masked_mean(l_BLD, mask_BL), v_BnD.mean(1)
        said = [
            self.last[side](torch.relu(self.own[side](x) + self.other[side](mean)[:, None]))
            for side, (x, mean) in enumerate(zip((v_BnD, l_BLD), means, strict=True))
        ]
        return said[0], said[1], {}


class BothWaysAttention(Interaction):
    """`Attention(f_v, f_l)` and `Attention(f_l, f_v)`."""

    aligned = False

    def __init__(self, width: int, attention_heads: int, vision_width: int) -> None:
        super().__init__(width, attention_heads, vision_width)
        self.vision_reads = Attention(width, attention_heads, query_width=vision_width, out_width=vision_width)
        self.language_reads = Attention(width, attention_heads, key_width=vision_width)

    def forward(self, v_BnD: Tensor, l_BLD: Tensor, mask_BL: Tensor) -> Said:
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
    """One exchange: align the two sides, interact, add what each is told to what it was (residual)."""

    def __init__(self, interaction: str, width: int, attention_heads: int, frame_width: int) -> None:
        super().__init__()
        kind = INTERACTIONS[interaction]
        vision_width = width if kind.aligned else frame_width
        self.align = nn.Linear(frame_width, width) if kind.aligned else nn.Identity()
        self.norm_v, self.norm_l = nn.LayerNorm(vision_width), nn.LayerNorm(width)
        self.interaction = kind(width, attention_heads, vision_width)
        self.to_vision = nn.Linear(width, frame_width) if kind.aligned else nn.Identity()
        self.to_language = None if interaction == "attention" else nn.Linear(width, width)

    def forward(self, vision_Bnc: Tensor, words: LanguageTokens) -> tuple[Tensor, LanguageTokens, dict[str, Tensor]]:
        v, spoken = self.norm_v(self.align(vision_Bnc)), self.norm_l(words.tokens)
        for_vision, for_language, attention = self.interaction(v, spoken, words.mask)
        vision_Bnc = vision_Bnc + self.to_vision(for_vision)
        if for_language is not None and self.to_language is not None:
            words = LanguageTokens(tokens=words.tokens + self.to_language(for_language), mask=words.mask)
        return vision_Bnc, words, attention


def positions(position: str, stages: int) -> list[int]:
    """The stages of the backbone after which features are exchanged: none, the first, the middle one, or all."""
    return {"none": [], "early": [0], "middle": [stages // 2], "multi": list(range(stages))}[position]


class Exchanges(nn.Module):
    """The exchanges of one fusion, at the stages of the backbone that `position` names."""

    def __init__(self, interaction: str, position: str, setup: FusionSetup) -> None:
        super().__init__()
        self.stages = setup.stages
        self.at = nn.ModuleDict(
            {
                str(stage): StageExchange(interaction, setup.width, setup.attention_heads, setup.channels)
                for stage in positions(position, setup.stages)
            }
        )

    def dialogue(self, language: LanguageEncoder, words: LanguageTokens) -> Dialogue:
        exchanges = {int(stage): exchange for stage, exchange in self.at.items()}
        return Dialogue(language, words, exchanges, self.stages)
