import pytest
import torch
from torch import Tensor, nn

from vla_policy.config import FusionConfig
from vla_policy.fusion import FUSIONS
from vla_policy.fusion.bidirectional import BidirectionalFusion
from vla_policy.layers import masked_mean
from vla_policy.tokens import LanguageTokens, VisualTokens

B, N, L, D, HEADS = 3, 12, 5, 16, 2


def inputs(moments: int = 1, seed: int = 0) -> tuple[VisualTokens, LanguageTokens]:
    torch.manual_seed(seed)
    mask = torch.arange(L) < torch.tensor([5, 3, 1])[:, None]
    vision = VisualTokens(fused=torch.randn(B, moments, N, D), frames=torch.randn(B, 3, N, 8), grid=(3, 4))
    return vision, LanguageTokens(tokens=torch.randn(B, L, D), mask=mask)


def with_words(language: LanguageTokens, tokens: Tensor) -> LanguageTokens:
    return LanguageTokens(tokens=tokens, mask=language.mask)


@pytest.fixture(params=sorted(FUSIONS))
def fusion(request: pytest.FixtureRequest) -> BidirectionalFusion:
    torch.manual_seed(1)
    return FUSIONS[request.param](FusionConfig(name=request.param, layers=2), D, HEADS)


@pytest.mark.parametrize("moments", [1, 3])
def test_shapes(fusion: BidirectionalFusion, moments: int) -> None:
    fused = fusion(*inputs(moments))
    assert fused.vision.shape == (B, moments, N, D)
    assert fused.language.shape == (B, L, D)
    assert fused.pooled.shape == (B, fusion.pooled_width)
    for weights in fused.attention.values():
        assert weights.ndim == 4
        assert weights.shape[:2] == (B, HEADS)


def test_vision_becomes_aware_of_words_and_words_of_vision(fusion: BidirectionalFusion) -> None:
    vision, language = inputs()
    before = fusion(vision, language)
    reworded = fusion(vision, with_words(language, language.tokens.roll(1, dims=-1)))
    assert ((reworded.vision - before.vision).abs().amax((1, 2, 3)) > 1e-4).all()
    other = VisualTokens(fused=vision.fused.roll(1, dims=-1), frames=vision.frames, grid=vision.grid)
    repainted = fusion(other, language)
    assert ((repainted.language[:, 0] - before.language[:, 0]).abs().amax(1) > 1e-4).all()


def test_what_is_no_word_changes_nothing(fusion: BidirectionalFusion) -> None:
    vision, language = inputs()
    before = fusion(vision, language)
    noisy = torch.where(language.mask[..., None], language.tokens, 10 * torch.randn(B, L, D))
    after = fusion(vision, with_words(language, noisy))
    torch.testing.assert_close(after.vision, before.vision)
    torch.testing.assert_close(after.pooled, before.pooled)
    torch.testing.assert_close(after.language[language.mask], before.language[language.mask])


def test_every_parameter_gets_a_gradient(fusion: BidirectionalFusion) -> None:
    fused = fusion(*inputs())
    (fused.vision.sin().sum() + fused.pooled.sin().sum() + fused.language.sin().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in fusion.parameters())


def test_bidirectional_is_its_equations() -> None:
    torch.manual_seed(2)
    fusion, (vision, language) = BidirectionalFusion(FusionConfig(layers=1), D, HEADS), inputs()
    layer = fusion.layers[0]
    f_v, f_l = vision.fused[:, 0], language.tokens

    def torch_attention(name: str) -> nn.MultiheadAttention:
        ours, same = getattr(layer, name), nn.MultiheadAttention(D, HEADS, batch_first=True)
        with torch.no_grad():
            same.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
            same.in_proj_bias.copy_(torch.cat([ours.q.bias, torch.zeros(D), ours.v.bias]))
            same.out_proj.weight.copy_(ours.out.weight)
            same.out_proj.bias.copy_(ours.out.bias)
        return same

    v, w = layer.norm_v(f_v), layer.norm_l(f_l)
    new_v = f_v + torch_attention("vision_reads")(v, w, w, key_padding_mask=~language.mask)[0]
    new_l = f_l + torch_attention("language_reads")(w, v, v)[0]
    new_v = new_v + layer.feed_v(layer.norm_feed_v(new_v))
    new_l = new_l + layer.feed_l(layer.norm_feed_l(new_l))
    fused = fusion(vision, language)
    torch.testing.assert_close(fused.vision[:, 0], new_v)
    torch.testing.assert_close(fused.language, new_l)
    torch.testing.assert_close(fused.pooled, torch.cat([new_v.mean(1), masked_mean(new_l, language.mask)], -1))


def test_bidirectional_attention_maps_are_distributions_over_words_and_places() -> None:
    vision, language = inputs()
    attention = BidirectionalFusion(FusionConfig(layers=2), D, HEADS)(vision, language).attention
    assert set(attention) == {
        f"{a}_reads_{b}_{i}" for a, b in (("vision", "language"), ("language", "vision")) for i in (0, 1)
    }
    for i in (0, 1):
        words, places = attention[f"vision_reads_language_{i}"], attention[f"language_reads_vision_{i}"]
        assert words.shape == (B, HEADS, N, L)
        assert places.shape == (B, HEADS, L, N)
        torch.testing.assert_close(words.sum(-1), torch.ones(B, HEADS, N))
        torch.testing.assert_close(places.sum(-1), torch.ones(B, HEADS, L))
        assert (words.transpose(2, 3)[~language.mask[:, None].expand(B, HEADS, L)] == 0).all()
