from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from configs.policy import BidirectionalConfig, FusionConfig, TextTransformerConfig
from vla_policy.exchange import CrossModalExchange, Fusion, FusionSetup, LanguageSetup
from vla_policy.fusion import FUSIONS
from vla_policy.fusion.bidirectional import BidirectionalFusion
from vla_policy.fusion.interactions import INTERACTIONS, StageExchange, positions
from vla_policy.fusion.weighted import WeightedFusion
from vla_policy.language.transformer import TextTransformer
from vla_policy.layers import Attention, Coarse, masked_mean
from vla_policy.tokens import LanguageTokens, VisualTokens

B, N, L, D, HEADS = 3, 12, 5, 16, 2
C, STAGES = 8, 3  # of the backbone

SETUP = FusionSetup(width=D, attention_heads=HEADS, frame_width=C, channels=C, stages=STAGES)
TEXT = LanguageSetup(vocabulary=30, max_words=L, width=D, attention_heads=HEADS)


def inputs(newest: int = 1, seed: int = 0) -> tuple[VisualTokens, LanguageTokens]:
    torch.manual_seed(seed)
    mask = torch.arange(L) < torch.tensor([5, 3, 1])[:, None]
    vision = VisualTokens(fused=torch.randn(B, newest, N, D), frames=torch.randn(B, 3, N, 8), grid=(3, 4))
    return vision, LanguageTokens(tokens=torch.randn(B, L, D), mask=mask)


def with_words(language: LanguageTokens, tokens: Tensor) -> LanguageTokens:
    return LanguageTokens(tokens=tokens, mask=language.mask)


def built(name: str, **options: Any) -> Fusion:
    torch.manual_seed(1)
    kind = get_type_hints(FusionConfig).get(name)
    return FUSIONS[name](kind(**options) if kind else None, SETUP)


@pytest.fixture(params=sorted(FUSIONS))
def fusion(request: pytest.FixtureRequest) -> Fusion:
    return built(request.param)


@pytest.mark.parametrize("newest", [1, 3])
def test_shapes(fusion: Fusion, newest: int) -> None:
    fused = fusion(*inputs(newest))
    assert fused.vision.shape == (B, newest, N, D)
    assert fused.language.shape == (B, L, D)
    assert fused.pooled.shape == (B, fusion.pooled_width)
    for weights in fused.attention.values():
        assert weights.ndim == 4
        assert weights.shape[:2] == (B, HEADS)


class TestStride:
    """Grid 3 x 4: the means are of a grid 2 x 2, of which those of the last row hold two places."""

    places = Coarse((3, 4), 2)

    def test_means_and_back(self) -> None:
        torch.manual_seed(0)
        tokens = torch.randn(B, 2 * N, D)  # of two pictures
        means = self.places.means(tokens).unflatten(1, (2, 2, 2))
        maps = tokens.unflatten(1, (2, 3, 4))
        torch.testing.assert_close(means[:, :, 0, 1], maps[:, :, :2, 2:].mean((2, 3)))
        torch.testing.assert_close(means[:, :, 1, 0], maps[:, :, 2:, :2].mean((2, 3)))
        spread = self.places.spread(means.flatten(1, 3).mT).mT.unflatten(1, (2, 3, 4))
        for row, column in ((0, 0), (1, 3), (2, 2)):
            assert torch.equal(spread[:, :, row, column], means[:, :, row // 2, column // 2])

    def test_shares_add_up(self) -> None:
        weights = torch.rand(B, HEADS, L, 4).softmax(-1)
        shares = self.places.spread(weights, share=True)
        assert shares.shape == (B, HEADS, L, N)
        torch.testing.assert_close(shares.sum(-1), torch.ones(B, HEADS, L))

    @pytest.mark.parametrize("newest", [1, 3])
    def test_neighbours_change_alike(self, newest: int) -> None:
        vision, language = inputs(newest)
        fused = built("bidirectional", stride=2)(vision, language)
        change = (fused.vision - vision.fused).unflatten(2, (3, 4))
        torch.testing.assert_close(change[:, :, 0, 0], change[:, :, 1, 1])
        assert (change[:, :, 0, 0] - change[:, :, 0, 2]).abs().max() > 1e-3
        assert fused.attention["vision_reads_language_0"].shape == (B, HEADS, newest * N, L)
        reads = fused.attention["language_reads_vision_1"]
        assert reads.shape == (B, HEADS, L, newest * N)
        torch.testing.assert_close(reads.sum(-1), torch.ones(B, HEADS, L))

    def test_one_is_every_place(self) -> None:
        one, two = (built("bidirectional", **options)(*inputs()) for options in ({}, {"stride": 1}))
        assert torch.equal(one.vision, two.vision)


@pytest.mark.parametrize("name", ["bidirectional", "self_attention"])
def test_vision_becomes_aware_of_words_and_words_of_vision(name: str) -> None:
    fusion, (vision, language) = built(name), inputs()
    before = fusion(vision, language)
    reworded = fusion(vision, with_words(language, language.tokens.roll(1, dims=-1)))
    assert ((reworded.vision - before.vision).abs().amax((1, 2, 3)) > 1e-4).all()
    other = VisualTokens(fused=vision.fused.roll(1, dims=-1), frames=vision.frames, grid=vision.grid)
    repainted = fusion(other, language)
    assert ((repainted.language[:, 0] - before.language[:, 0]).abs().amax(1) > 1e-4).all()


def test_what_is_no_word_changes_nothing(fusion: Fusion) -> None:
    vision, language = inputs()
    before = fusion(vision, language)
    noisy = torch.where(language.mask[..., None], language.tokens, 10 * torch.randn(B, L, D))
    after = fusion(vision, with_words(language, noisy))
    torch.testing.assert_close(after.vision, before.vision)
    torch.testing.assert_close(after.pooled, before.pooled)
    torch.testing.assert_close(after.language[language.mask], before.language[language.mask])


def test_bidirectional_is_its_equations() -> None:
    torch.manual_seed(2)
    fusion, (vision, language) = BidirectionalFusion(BidirectionalConfig(layers=1), SETUP), inputs()
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
    attention = BidirectionalFusion(BidirectionalConfig(layers=2), SETUP)(vision, language).attention
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


@pytest.mark.parametrize("name", ["bidirectional", "cross_attention", "self_attention", "intermediate"])
def test_output_is_both_means_side_by_side_or_added(name: str) -> None:
    vision, language = inputs()
    for output, join in (("concat", lambda v, w: torch.cat([v, w], -1)), ("sum", lambda v, w: v + w)):
        fused = built(name, output=output)(vision, language)
        means = fused.vision.flatten(1, 2).mean(1), masked_mean(fused.language, language.mask)
        torch.testing.assert_close(fused.pooled, join(*means))


@pytest.mark.parametrize("direction", ["language_reads_vision", "vision_reads_language"])
def test_cross_attention_changes_only_the_side_that_reads(direction: str) -> None:
    vision, language = inputs()
    fused = built("cross_attention", direction=direction)(vision, language)
    reads_vision = direction == "language_reads_vision"
    assert torch.equal(fused.vision, vision.fused) is reads_vision
    assert torch.equal(fused.language, language.tokens) is not reads_vision
    assert set(fused.attention) == {f"{direction}_{i}" for i in (0, 1)}


@pytest.mark.parametrize("name", ["concat", "weighted", "vote"])
def test_late_fusions_leave_both_sides_as_their_encoders_left_them(name: str) -> None:
    vision, language = inputs()
    fused = built(name)(vision, language)
    assert torch.equal(fused.vision, vision.fused)
    assert torch.equal(fused.language, language.tokens)


def test_concat_is_both_means() -> None:
    vision, language = inputs()
    expected = torch.cat([vision.fused[:, 0].mean(1), masked_mean(language.tokens, language.mask)], -1)
    torch.testing.assert_close(built("concat")(vision, language).pooled, expected)


class TestWeighted:
    @pytest.mark.parametrize(("weights", "shape"), [("fixed", (2, 1)), ("scalar", (2, 1)), ("vector", (2, D))])
    def test_weights_are_multiplied_and_sides_added(self, weights: str, shape: tuple[int, int]) -> None:
        fusion, (vision, language) = built("weighted", weights=weights), inputs()
        assert isinstance(fusion, WeightedFusion)
        assert fusion.weights.shape == shape
        assert fusion.weights.requires_grad is (weights != "fixed")
        assert (fusion.weights == 0.5).all()
        with torch.no_grad():
            fusion.weights.copy_(torch.randn(shape))
        f_v, f_l = vision.fused[:, 0].mean(1), masked_mean(language.tokens, language.mask)
        expected = fusion.weights[0] * f_v + fusion.weights[1] * f_l
        torch.testing.assert_close(fusion(vision, language).pooled, expected)

    def test_attention_weights_are_a_softmax_over_the_two_sides(self) -> None:
        fusion, (vision, language) = built("weighted", weights="attention"), inputs()
        assert isinstance(fusion, WeightedFusion)
        assert fusion.score is not None
        f_v, f_l = vision.fused[:, 0].mean(1), masked_mean(language.tokens, language.mask)
        scores = torch.cat([fusion.score[0](f_v), fusion.score[1](f_l)], dim=1).softmax(1)
        torch.testing.assert_close(fusion(vision, language).pooled, scores[:, :1] * f_v + scores[:, 1:] * f_l)


class TestIntermediate:
    @pytest.mark.parametrize(
        ("position", "stages", "expected"), [("early", 3, [0]), ("middle", 3, [1]), ("multi", 3, [0, 1, 2])]
    )
    def test_positions(self, position: str, stages: int, expected: list[int]) -> None:
        assert positions(position, stages) == expected

    def test_interactions_are_their_equations(self) -> None:
        torch.manual_seed(0)
        v, l = torch.randn(B, N, D), torch.randn(B, L, D)  # noqa: E741 - the paper's letters
        mask = torch.arange(L) < torch.tensor([5, 3, 1])[:, None]
        mean_l, mean_v = masked_mean(l, mask)[:, None], v.mean(1, keepdim=True)

        exchanged = INTERACTIONS["hadamard"](D, HEADS, D)(v, l, mask)
        torch.testing.assert_close(exchanged[0], v * mean_l)
        torch.testing.assert_close(exchanged[1], l * mean_v)

        exchanged = INTERACTIONS["matrix"](D, HEADS, D)(v, l, mask)
        for b, words in enumerate((5, 3, 1)):
            affinity = v[b] @ l[b, :words].T / D**0.5
            torch.testing.assert_close(exchanged[0][b], affinity @ l[b, :words] / words)
            torch.testing.assert_close(exchanged[1][b, :words], affinity.T @ v[b] / N)

        mlp = INTERACTIONS["concat_mlp"](D, HEADS, D)
        exchanged = mlp(v, l, mask)
        for side, (x, mean) in enumerate(((v, mean_l), (l, mean_v))):
            weight = torch.cat([mlp.own[side].weight, mlp.other[side].weight], dim=1)
            hidden = torch.relu(torch.cat([x, mean.expand_as(x)], -1) @ weight.T + mlp.own[side].bias)
            torch.testing.assert_close(exchanged[side], mlp.last[side](hidden))

        both = INTERACTIONS["bidirectional"](D, HEADS, D)
        exchanged = both(v, l, mask)
        assert isinstance(both.vision_reads, Attention)
        torch.testing.assert_close(exchanged[0], both.vision_reads(v, l, mask)[0])
        torch.testing.assert_close(exchanged[1], both.language_reads(l, v)[0])
        assert INTERACTIONS["attention"](D, HEADS, D)(v, l, mask)[1] is None

    @pytest.mark.parametrize("interaction", sorted(INTERACTIONS))
    def test_both_sides_continue_with_what_was_exchanged(self, interaction: str) -> None:
        """The words' last layer and the picture's next stage see the exchange, not what was before it."""
        torch.manual_seed(0)
        language = TextTransformer(TextTransformerConfig(layers=2), TEXT).eval()
        ids, mask = torch.randint(2, 30, (B, L)), torch.ones(B, L, dtype=torch.bool)
        fusion = built("intermediate", interaction=interaction, position="middle")
        seen, other = torch.randn(2, B, N, C)
        results = []
        for vision in (seen, other):
            exchange = fusion.exchange(language, language.embed(ids, mask))
            assert exchange.after(0, vision) is vision  # nothing is exchanged there
            changed = exchange.after(1, vision)
            assert changed.shape == vision.shape
            assert not torch.equal(changed, vision)
            results.append(exchange.encoded_text().tokens)
        alone = language(ids, mask).tokens
        one_way = interaction == "attention"
        assert torch.equal(results[0], results[1]) is one_way
        assert torch.equal(results[0], alone) is one_way

    @pytest.mark.parametrize("position", ["early", "middle", "multi"])
    def test_bidirectional_can_exchange_the_same_as_well(self, position: str) -> None:
        torch.manual_seed(0)
        language = TextTransformer(TextTransformerConfig(layers=2), TEXT).eval()
        words = language.embed(torch.randint(2, 30, (B, L)), torch.ones(B, L, dtype=torch.bool))
        both, between = built("bidirectional", during=position), built("intermediate", position=position)
        both.exchanges.load_state_dict(between.exchanges.state_dict())
        exchanges = [fusion.exchange(language, words) for fusion in (both, between)]
        for stage in range(SETUP.stages):
            vision = torch.randn(B, N, C)
            changed = [exchange.after(stage, vision) for exchange in exchanges]
            assert torch.equal(*changed)
        assert torch.equal(*(exchange.encoded_text().tokens for exchange in exchanges))

    def test_the_language_layers_are_spread_over_the_stages(self) -> None:
        torch.manual_seed(0)
        language = TextTransformer(TextTransformerConfig(layers=3), TEXT).eval()
        read: list[int] = []
        for i, layer in enumerate(language.layers):
            layer.register_forward_hook(lambda *_, i=i: read.append(i))
        interaction = StageExchange("hadamard", D, HEADS, C)
        words = language.embed(torch.randint(2, 30, (B, L)), torch.ones(B, L, dtype=torch.bool))
        exchange = CrossModalExchange(language, words, dict.fromkeys(range(3), interaction), stages=3)
        before = []
        for stage in range(3):
            exchange.after(stage, torch.randn(B, N, C))
            before.append(len(read))
        exchange.encoded_text()
        assert before == [0, 1, 2]
        assert read == [0, 1, 2]
