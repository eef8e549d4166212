"""Late fusion by vote: several decisions are taken, each on features of its own, and the votes are counted.

This file makes the voters' features. The decisions and the counting are in `vla_policy.decision`.

B batch, N visual tokens, c the backbone's width, L text tokens, D width, M attention heads, R voters.
"""

from __future__ import annotations

import torch
from torch import nn

from configs.policy import VoteConfig
from vla_policy.exchange import Fusion, FusionSetup
from vla_policy.layers import Attention, masked_mean
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens


class VoteFusion(Fusion):
    """Each voter gets the mean text token, because without the instruction it could not know the target, and one input
    of its own:

    - spatial: the features of the newest frame, where the mean text token attends to;
    - temporal: the current tokens, which carry motion, where the mean text token attends to;
    - language: the text tokens, after each of them has attended to the current tokens.

    With `grounding.feeds: queries` all voters also get the decoder's query and boxes. With "pooled" they do not.
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
        attention, views = {}, []
        for name in self.names:
            readers = language.tokens if name == "language" else sentence[:, None]
            read_from = vision.frames[:, -1] if name == "spatial" else vision.fused[:, -1]
            read, weights = self.readers[name](readers, read_from)
            attention[f"{name}_voter_reads_vision"] = weights
            views.append(masked_mean(read, language.mask) if name == "language" else read.squeeze(1))
        voters = torch.stack([torch.cat([view, sentence], dim=-1) for view in views], dim=1)
        return FusedTokens(
            vision=vision.fused,
            language=language.tokens,
            pooled=voters.mean(1),
            attention=attention,
            voters=voters,
        )
