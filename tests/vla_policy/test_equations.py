"""Parts against computations that share no code with them: torch's own attention, or the equation written out."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from configs.policy import BackboneConfig, FlowMatchingConfig, FrameLSTMConfig, FusionConfig
from vla_policy.contract import Shapes
from vla_policy.decision import HeadSetup
from vla_policy.encoders.frame_lstm import FrameLSTMEncoder
from vla_policy.encoders.two_stream import CrossAttentionStreams, SumStreams
from vla_policy.exchange import Fusion, FusionSetup
from vla_policy.fusion import FUSIONS
from vla_policy.grounding.decoder import DecoderBlock
from vla_policy.heads.flow_matching import FlowMatchingHead
from vla_policy.layers import SHORT, Attention, fused_attention
from vla_policy.tokens import LanguageTokens, VisualTokens
from vla_policy.vision import EncoderSetup

B, N, L, D, HEADS = 3, 12, 5, 16, 2


def torchs(ours: Attention, key_width: int = D) -> nn.MultiheadAttention:
    """torch's attention with our weights; ours has no bias of the keys, which a softmax ignores."""
    theirs = nn.MultiheadAttention(D, HEADS, kdim=key_width, vdim=key_width, batch_first=True)
    state = {"in_proj_bias": torch.cat([ours.q.bias, torch.zeros(D), ours.v.bias])}
    state |= {"out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias}
    weights = [ours.q.weight, ours.k.weight, ours.v.weight]
    if key_width == D:
        state["in_proj_weight"] = torch.cat(weights)
    else:
        state |= dict(zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), weights, strict=True))
    theirs.load_state_dict(state)
    return theirs


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """Layer norm with the weights of ours."""
    assert isinstance(norm, nn.LayerNorm)
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def fed(feed: nn.Module, x: Tensor) -> Tensor:
    """Two layers with a rectifier between them, with the weights of ours."""
    first, second = (layer for layer in feed.modules() if isinstance(layer, nn.Linear))
    return (x @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias


def jittered(module: nn.Module) -> None:
    """No weight at the one or zero it starts with."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def fusion_and_inputs(name: str, **options: Any) -> tuple[Fusion, VisualTokens, LanguageTokens]:
    torch.manual_seed(0)
    own = get_type_hints(FusionConfig)[name](layers=2, **options)
    fusion = FUSIONS[name](own, FusionSetup(width=D, attention_heads=HEADS, frame_width=8, channels=8, stages=2))
    jittered(fusion)
    vision = VisualTokens(fused=torch.randn(B, 1, N, D), frames=torch.randn(B, 3, N, 8), grid=(3, 4))
    mask = torch.arange(L) < torch.tensor([5, 3, 1])[:, None]
    return fusion, vision, LanguageTokens(tokens=torch.randn(B, L, D), mask=mask)


@pytest.mark.parametrize("direction", ["language_reads_vision", "vision_reads_language"])
def test_cross_attention_fusion(direction: str) -> None:
    fusion, vision, language = fusion_and_inputs("cross_attention", direction=direction)
    v, words = vision.fused[:, 0], language.tokens
    reads_words = direction == "vision_reads_language"
    x, read, away = (v, words, ~language.mask) if reads_words else (words, v, None)
    for layer in fusion.layers:  # type: ignore[union-attr]
        query, keys = normed(layer.norm_reader, x), normed(layer.norm_read, read)
        x = x + torchs(layer.attention)(query, keys, keys, key_padding_mask=away)[0]
        x = x + fed(layer.feed, normed(layer.norm_feed, x))
    fused = fusion(vision, language)
    torch.testing.assert_close(fused.vision[:, 0] if reads_words else fused.language, x, atol=1e-5, rtol=1e-4)


def test_self_attention_fusion() -> None:
    """One sequence `[f_v; f_l]`, each side marked by its own vector, without the padding."""
    fusion, vision, language = fusion_and_inputs("self_attention")
    side: Tensor = fusion.side  # type: ignore[assignment]
    x = torch.cat([vision.fused[:, 0] + side[0], language.tokens + side[1]], dim=1)
    away = torch.cat([torch.zeros(B, N, dtype=torch.bool), ~language.mask], dim=1)
    for layer in fusion.layers:  # type: ignore[union-attr]
        query = normed(layer.norm_attention, x)
        x = x + torchs(layer.attention)(query, query, query, key_padding_mask=away)[0]
        x = x + fed(layer.feed, normed(layer.norm_feed, x))
    fused = fusion(vision, language)
    torch.testing.assert_close(fused.vision[:, 0], x[:, :N], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fused.language, x[:, N:], atol=1e-5, rtol=1e-4)
    kept = language.mask[..., None]
    means = x[:, :N].mean(1), (x[:, N:] * kept).sum(1) / kept.sum(1)
    torch.testing.assert_close(fused.pooled, torch.cat(means, dim=-1), atol=1e-5, rtol=1e-4)


def test_streams_are_added_or_read() -> None:
    torch.manual_seed(0)
    spatial, temporal = torch.randn(2, B, N, D)
    torch.testing.assert_close(SumStreams(D, HEADS)(spatial, temporal), spatial + temporal)
    streams = CrossAttentionStreams(D, HEADS)
    jittered(streams)
    query, keys = normed(streams.norm_spatial, spatial), normed(streams.norm_temporal, temporal)
    expected = spatial + temporal + torchs(streams.attention)(query, keys, keys)[0]
    torch.testing.assert_close(streams(spatial, temporal), expected, atol=1e-5, rtol=1e-4)


def test_frame_lstm_remembers_by_its_equations() -> None:
    torch.manual_seed(0)
    shapes = Shapes(frames=4, cameras=1, size=32, proprioception=3, actions=2, vocabulary=9)
    backbone = BackboneConfig(channels=8, layers=1)
    setup = EncoderSetup(backbone=backbone, shapes=shapes, width=D, attention_heads=HEADS)
    encoder, x = FrameLSTMEncoder(FrameLSTMConfig(layers=1), setup), torch.randn(B, 4, N, D)
    from_input, from_state, bias, other_bias = encoder.lstm.parameters()
    h, c = torch.zeros(2, B, N, D)
    for t in range(4):
        gates = x[:, t] @ from_input.T + bias + h @ from_state.T + other_bias
        enter, forget, new, out = gates.chunk(4, dim=-1)
        c = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(new)
        h = torch.sigmoid(out) * torch.tanh(c)
    torch.testing.assert_close(encoder.over_time(x), h, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [SHORT, SHORT + 1])
def test_attention_of_short_and_long_sequences_is_the_equation(tokens: int, causal: bool) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, HEADS, tokens, 8)
    scores = torch.einsum("bmqe,bmke->bmqk", q, k) / 8**0.5
    if causal:
        scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf)
    expected = torch.einsum("bmqk,bmke->bmqe", scores.exp() / scores.exp().sum(-1, keepdim=True), v)
    torch.testing.assert_close(fused_attention(q, k, v, causal=causal), expected, atol=1e-5, rtol=1e-4)


def test_pre_norm_decoder_block() -> None:
    """`x + f(LN(x))` three times; query t reads frame t."""
    torch.manual_seed(0)
    frames, memory_width = 4, 8
    block = DecoderBlock(D, HEADS, memory_width, temporal=True, norm="pre")
    jittered(block)
    queries, memory = torch.randn(B, frames, D), torch.randn(B, frames, N, memory_width)
    assert block.time is not None
    assert block.norm_time is not None
    query = normed(block.norm_time, queries)
    x = queries + torchs(block.time)(query, query, query)[0]
    query, space = normed(block.norm_space, x), torchs(block.space, memory_width)
    attended = [space(query[:, t : t + 1], memory[:, t], memory[:, t])[0] for t in range(frames)]
    x = x + torch.cat(attended, dim=1)
    x = x + fed(block.feed, normed(block.norm_feed, x))
    torch.testing.assert_close(block(queries[:, :, None], memory[:, :, None])[0][:, :, 0], x, atol=1e-5, rtol=1e-4)


def test_flow_matching_learns_the_straight_line_from_noise_to_action(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the field says `action - noise` the loss is nothing; a field of zeros errs by the square of that."""
    steps, actions = 3, 2
    torch.manual_seed(0)
    head = FlowMatchingHead(FlowMatchingConfig(), HeadSetup(chunk=steps, hidden=8, features=10, actions=actions))
    features, action = torch.randn(64, 10), torch.rand(64, steps, actions) - 0.5
    mask = torch.rand(64, steps) < 0.7
    seen: list[tuple[Tensor, Tensor]] = []

    def still(_context: Tensor, x: Tensor, time: Tensor) -> Tensor:
        seen.append((x, time))
        return torch.zeros_like(x)

    def perfect(_context: Tensor, x: Tensor, time: Tensor) -> Tensor:
        return (action - x) / (1 - time[..., None, None])  # x = (1 - t)·noise + t·action, solved for action - noise

    monkeypatch.setattr(head, "forward", still)
    loss = head.loss(features, action, mask)
    (x, time), *_ = seen
    assert time.min() >= 0
    assert time.max() <= 1
    noise = (x - time[..., None, None] * action) / (1 - time[..., None, None])
    errors = (action - noise).square().mean(-1)
    torch.testing.assert_close(loss, errors[:, mask].mean(), atol=1e-4, rtol=1e-3)
    assert abs(noise.mean().item()) < 0.1
    assert abs(noise.std().item() - 1) < 0.1
    monkeypatch.setattr(head, "forward", perfect)
    assert head.loss(features, action, mask) < 1e-4
