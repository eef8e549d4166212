"""Late fusion by vote: several decisions are taken, each on features of its own, and the votes are counted.

Here are the voters' features; the decisions and the counting are in `vla_policy.decision`.

B batch, N visual tokens, c the backbone's width, L words, D width, M heads, R voters.
"""

from __future__ import annotations

import torch
from torch import nn

from configs.policy import VoteConfig
from vla_policy.dialogue import Fusion, FusionSetup
from vla_policy.layers import Attention, masked_mean
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class VoteFusion(Fusion):
    """Each voter knows the sentence, or it could not know what is wanted, and looks at something of its own:

    - spatial: what the encoder says of the newest frame, at the places the sentence points at;
    - temporal: the newest moment with its motion, at the places the sentence points at;
    - language: the words, each after having read the newest moment.

    With `grounding.feeds: queries`, the decoder's query and boxes are what all of them read besides; "pooled" leaves
    each with its own alone.
    """

    def __init__(self, config: VoteConfig, setup: FusionSetup) -> None:
        super().__init__()
        self.names = config.voters
        self.voters = len(config.voters)
        keys = {name: setup.frame_width if name == "spatial" else setup.width for name in self.names}
        self.readers = nn.ModuleDict(
            {name: Attention(setup.width, setup.attention_heads, key_width=keys[name]) for name in self.names}
        )
        self.pooled_width = 2 * setup.width

    def forward(self, vision: VisualTokens, language: LanguageTokens) -> FusedTokens:
        sentence = masked_mean(language.tokens, language.mask)
        attention, seen = {}, []
        for name in self.names:
            readers = language.tokens if name == "language" else sentence[:, None]
            read_from = vision.frames[:, -1] if name == "spatial" else vision.fused[:, -1]
            read, weights = self.readers[name](readers, read_from)
            attention[f"{name}_voter_reads_vision"] = weights
            seen.append(masked_mean(read, language.mask) if name == "language" else read.squeeze(1))
        voters = torch.stack([torch.cat([view, sentence], dim=-1) for view in seen], dim=1)
        return FusedTokens(
            vision=vision.fused,
            language=language.tokens,
            pooled=voters.mean(1),
            attention=attention,
            voters=voters,
        )
