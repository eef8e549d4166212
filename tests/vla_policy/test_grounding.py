from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from configs.policy import GroundingConfig
from vla_policy.grounding.decoder import (
    PRIOR_EXTENT,
    DecoderBlock,
    SpaceTimeDecoder,
)
from vla_policy.grounding.losses import (
    grounding_loss,
)
from vla_policy.layers import cell_centres
from vla_policy.tokens import FusedTokens, LanguageTokens, VisualTokens

B, T, D, C, POOLED = 2, 3, 16, 8, 32
GRID = (4, 6)
N = GRID[0] * GRID[1]


def inputs(seed: int = 0, newest: int = 1, cameras: int = 1) -> tuple[VisualTokens, FusedTokens]:
    torch.manual_seed(seed)
    vision = VisualTokens(
        fused=torch.randn(B, newest, cameras * N, D), frames=torch.randn(B, T, cameras * N, C), grid=GRID
    )
    fused = FusedTokens(
        vision=torch.randn(B, newest, cameras * N, D),
        language=torch.randn(B, 5, D),
        pooled=torch.randn(B, POOLED),
        attention={},
    )
    return vision, fused


def decoder(layers: int = 2, *, through_time: bool = True) -> SpaceTimeDecoder:
    torch.manual_seed(1)
    made = SpaceTimeDecoder(GroundingConfig(layers=layers), D, 2, C, POOLED, T)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if not through_time:
            for block in made.blocks:
                block.time.out.weight.zero_()
                block.time.out.bias.zero_()
    return made


class TestDecoder:
    @pytest.mark.parametrize(("newest", "cameras"), [(1, 1), (T, 1), (1, 2)])
    def test_shapes_and_ranges(self, newest: int, cameras: int) -> None:
        output = decoder()(*inputs(newest=newest, cameras=cameras))
        assert output.queries.shape == (B, T, D)
        assert output.boxes.shape == (B, T, 4)
        assert output.logits.shape == (B, T, N)  # the first camera's cells, however many cameras there are
        assert output.centre.shape == (B, T, 2)
        assert ((output.boxes > 0) & (output.boxes < 1)).all()
        for i in range(2):
            assert output.attention[f"decoder_time_{i}"].shape == (B, 2, T, T)
            assert output.attention[f"decoder_space_{i}"].shape == (B, 2, 1, cameras * N)
        for weights in output.attention.values():
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))

    def test_a_tube_in_another_camera_is_found_in_that_cameras_cells_alone(self) -> None:
        vision, fused = inputs(cameras=2)
        vision.frames.requires_grad_()
        torch.manual_seed(1)
        both = SpaceTimeDecoder(GroundingConfig(things=("target", "goal"), cameras="all"), D, 2, C, POOLED, T, 2)
        with torch.no_grad():
            both.blocks[0].time.out.weight.zero_()
            both.blocks[0].time.out.bias.zero_()
        output = both(vision, fused)
        assert output.tubes.shape == (B, T, 4, 4)
        assert output.tube_logits.shape == (B, T, 4, N)
        assert output.attention["decoder_space_0"].shape == (B, 2, 4, N)
        for tube in range(4):
            [gradient] = torch.autograd.grad(
                output.tube_logits[:, :, tube].sin().sum() + output.tubes[:, :, tube].sin().sum(),
                vision.frames,
                retain_graph=True,
            )
            reached = gradient.unflatten(2, (2, N)).abs().sum((0, 1, 3, 4)) > 0
            assert reached.tolist() == [tube < 2, tube >= 2]

    def test_the_centre_is_the_location_maps_mean(self) -> None:
        output = decoder()(*inputs())
        torch.testing.assert_close(output.centre, output.logits.softmax(-1) @ cell_centres(GRID))

    def test_before_training_a_box_lies_on_the_centre_with_the_usual_extent(self) -> None:
        torch.manual_seed(0)
        output = SpaceTimeDecoder(GroundingConfig(), D, 2, C, POOLED, T)(*inputs())
        torch.testing.assert_close(output.boxes[..., :2], output.centre)
        torch.testing.assert_close(output.boxes[..., 2:], torch.full((B, T, 2), PRIOR_EXTENT))

    @pytest.mark.parametrize("frame", range(T))
    @pytest.mark.parametrize("seen", ["queries", "boxes", "logits"])
    def test_a_query_sees_its_own_frame_only(self, frame: int, seen: str) -> None:
        vision, fused = inputs()
        vision.frames.requires_grad_()
        getattr(decoder(through_time=False)(vision, fused), seen)[:, frame].sin().sum().backward()
        assert vision.frames.grad is not None
        reached = vision.frames.grad.abs().sum((0, 2, 3)) > 0
        assert reached.tolist() == [t == frame for t in range(T)]

    @pytest.mark.parametrize("frame", range(T))
    def test_queries_attend_to_each_other_over_time(self, frame: int) -> None:
        vision, fused = inputs()
        vision.frames.requires_grad_()
        decoder()(vision, fused).queries[:, frame].sin().sum().backward()
        assert vision.frames.grad is not None
        assert (vision.frames.grad.abs().sum((0, 2, 3)) > 0).all()

    @pytest.mark.parametrize("newest", [1, 2, T])
    def test_fused_tokens_reach_the_newest_frames(self, newest: int) -> None:
        vision, fused = inputs(newest=newest)
        other = FusedTokens(vision=fused.vision + 1, language=fused.language, pooled=fused.pooled, attention={})
        model = decoder(through_time=False)
        changed = (model(vision, fused).logits - model(vision, other).logits).abs().amax((0, 2)) > 1e-6
        assert changed.tolist() == [False] * (T - newest) + [True] * newest

    def test_queries_of_equal_frames_differ_by_their_time(self) -> None:
        vision, fused = inputs()
        same = VisualTokens(fused=vision.fused, frames=vision.frames[:, :1].expand(-1, T, -1, -1).clone(), grid=GRID)
        queries = decoder()(same, fused).queries
        assert (queries[:, 0] - queries[:, 1]).abs().max() > 1e-3

    def test_the_target_depends_on_the_pooled_tokens(self) -> None:
        vision, fused = inputs()
        other = FusedTokens(vision=fused.vision, language=fused.language, pooled=-fused.pooled, attention={})
        model = decoder()
        assert (model(vision, fused).centre - model(vision, other).centre).abs().max() > 1e-3

    def test_the_inputs_are_left_as_they_are(self) -> None:
        vision, fused = inputs()
        before = vision.frames.clone()
        decoder()(vision, fused)
        assert torch.equal(vision.frames, before)

    def test_every_block_has_losses_if_asked(self) -> None:
        torch.manual_seed(0)
        model = SpaceTimeDecoder(GroundingConfig(layers=2, auxiliary=True), D, 2, C, POOLED, T)
        output = model(*inputs())
        [earlier] = output.earlier
        boxes = torch.rand(B, T, 4) * 0.3 + 0.3
        everywhere = torch.ones(B, T, dtype=torch.bool)
        labels = (boxes[:, :, None], everywhere[:, :, None], everywhere)
        got, _ = grounding_loss(GroundingConfig(), output, *labels)
        last, _ = grounding_loss(GroundingConfig(), replace(output, earlier=()), *labels)
        first, _ = grounding_loss(GroundingConfig(), earlier, *labels)
        torch.testing.assert_close(got, last + first)


def run_block(block: DecoderBlock, queries: Tensor, memory: Tensor) -> Tensor:
    """One tube in one camera."""
    found: Tensor = block(queries[:, :, None], memory[:, :, None])[0][:, :, 0]
    return found


class TestBlock:
    def parts(self, norm: str) -> tuple[DecoderBlock, Tensor, Tensor]:
        torch.manual_seed(0)
        block = DecoderBlock(D, 2, C, temporal=True, norm=norm)
        for parameter in block.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        return block, torch.randn(B, T, D), torch.randn(B, T, N, C)

    def test_post_norm_is_the_papers_order(self) -> None:
        """`LN(x + f(x))` three times, query by query, with torch's own attention."""
        block, queries, memory = self.parts("post")
        got = run_block(block, queries, memory)
        assert block.time is not None
        assert block.norm_time is not None
        time, space = (nn.MultiheadAttention(D, 2, kdim=k, vdim=k, batch_first=True) for k in (D, C))
        for ours, theirs in ((block.time, time), (block.space, space)):
            state = {"in_proj_bias": torch.cat([ours.q.bias, torch.zeros(D), ours.v.bias])}
            state |= {"out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias}
            weights = [ours.q.weight, ours.k.weight, ours.v.weight]
            if ours is block.time:
                state["in_proj_weight"] = torch.cat(weights)
            else:
                names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
                state |= dict(zip(names, weights, strict=True))
            theirs.load_state_dict(state)
        x = block.norm_time(queries + time(queries, queries, queries)[0])
        looked = torch.stack([space(x[:, t : t + 1], memory[:, t], memory[:, t])[0][:, 0] for t in range(T)], dim=1)
        x = block.norm_space(x + looked)
        torch.testing.assert_close(got, block.norm_feed(x + block.feed(x)), atol=1e-5, rtol=1e-4)

    def test_pre_norm_leaves_the_residual_alone(self) -> None:
        block, queries, memory = self.parts("pre")
        got = run_block(block, 1000 * queries, memory)
        assert (got - 1000 * queries).abs().max() < 100

    def test_text_tokens_join_every_frame_and_padding_does_not(self) -> None:
        vision, fused = inputs()
        mask = torch.tensor([[True, True, False]] * B)
        tokens = torch.randn(B, T, 3, C)
        model = decoder(through_time=False)

        def queries(tokens: Tensor) -> Tensor:
            changed = replace(vision, text=LanguageTokens(tokens=tokens, mask=mask))
            found: Tensor = model(changed, fused).queries
            return found

        before = queries(tokens)
        padded, word = tokens.clone(), tokens.clone()
        padded[:, :, 2] += 1
        word[:, 1, 0] += 1
        torch.testing.assert_close(queries(padded), before)
        changed = (queries(word) - before).abs().amax((0, 2)) > 1e-6
        assert changed.tolist() == [False, True, False]
        assert not torch.allclose(before, model(vision, fused).queries)
