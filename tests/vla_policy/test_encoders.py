import itertools
from typing import Any, get_type_hints

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.policy import BackboneConfig, EncoderConfig, SlowFastConfig
from vla_policy.backbone import to_maps, to_tokens
from vla_policy.contract import Shapes
from vla_policy.encoders import ENCODERS
from vla_policy.encoders.conv3d import Conv3dEncoder
from vla_policy.encoders.frame_transformer import FrameTransformerEncoder
from vla_policy.encoders.slow_fast import FastBranch, SlowFastEncoder
from vla_policy.encoders.two_stream import ConcatStreams, GatedStreams, TwoStreamEncoder
from vla_policy.exchange import CrossModalExchange, LanguageEncoder
from vla_policy.layers import FusedSelfAttentionBlock, cell_centres, newest_at_zero, place_encoding
from vla_policy.tokens import LanguageTokens
from vla_policy.vision import EncoderSetup, VisionEncoder

B, T, WIDTH, SIZE = 2, 4, 16, 32


def own(name: str, **options: Any) -> Any:
    """The encoder's own settings."""
    kind = get_type_hints(EncoderConfig).get(name)
    small = {"temporal_channels": 4} if name == "two_stream" else {}
    return kind(**small, **options) if kind else None


def setup_of(shapes: Shapes) -> EncoderSetup:
    backbone = BackboneConfig(channels=8, layers=1)
    return EncoderSetup(backbone=backbone, shapes=shapes, width=WIDTH, attention_heads=2)


def built(name: str, cameras: int = 1, size: int = SIZE, **options: Any) -> VisionEncoder:
    torch.manual_seed(0)
    shapes = Shapes(frames=T, cameras=cameras, size=size, proprioception=3, actions=2, vocabulary=9)
    encoder = ENCODERS[name](own(name, **options), setup_of(shapes)).eval()
    with torch.no_grad():
        encoder.camera.add_(torch.randn_like(encoder.camera))
    return encoder


def pictures(cameras: int = 1, size: int = SIZE, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (B, T, cameras, 3, size, size), generator=generator, dtype=torch.uint8)


def repainted(frames: Tensor, *, frame: int, camera: int = 0) -> Tensor:
    changed = frames.clone()
    changed[:, frame, camera] = 255 - changed[:, frame, camera]
    return changed


@pytest.fixture(params=sorted(ENCODERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# "slow_fast" leaves it to the decoder to compare frames.
@pytest.fixture(params=sorted(set(ENCODERS) - {"single_frame", "slow_fast"}))
def temporal(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(("cameras", "size"), [(1, 32), (2, 32), (1, 48)])
def test_shapes(name: str, cameras: int, size: int) -> None:
    encoder = built(name, cameras, size)
    tokens = encoder(pictures(cameras, size))
    h, w = tokens.grid
    n = cameras * h * w
    assert h == w > 1
    assert tokens.fused.shape[0] == B
    assert tokens.fused.shape[1] in (1, T)
    assert tokens.fused.shape[2:] == (n, WIDTH)
    assert tokens.frames.shape == (B, encoder.grounded_frames, n, encoder.frame_width)


@pytest.mark.parametrize("frame", range(T))
def test_every_frame_reaches_the_fused_tokens_of_the_newest_frame(temporal: str, frame: int) -> None:
    encoder, frames = built(temporal), pictures()
    before, after = encoder(frames).fused, encoder(repainted(frames, frame=frame)).fused
    assert ((after[:, -1] - before[:, -1]).abs().amax((1, 2)) > 1e-4).all()


def test_the_order_of_frames_matters(temporal: str) -> None:
    encoder, frames = built(temporal), pictures()
    swapped = frames[:, [1, 0, 2, 3]]
    assert (encoder(swapped).fused[:, -1] - encoder(frames).fused[:, -1]).abs().max() > 1e-4


@pytest.mark.parametrize("frame", range(T))
def test_a_frames_own_tokens_depend_on_that_frame_only(temporal: str, frame: int) -> None:
    encoder, frames = built(temporal), pictures()
    change = (encoder(repainted(frames, frame=frame)).frames - encoder(frames).frames).abs().amax((0, 2, 3))
    assert [c > 1e-4 for c in change.tolist()] == [t == frame for t in range(T)]


# The slow branch of "slow_fast" sees the cameras of a frame together.
@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"slow_fast"}))
def test_cameras_stay_apart(name: str) -> None:
    encoder, frames = built(name, cameras=2), pictures(2)
    before, after = encoder(frames), encoder(repainted(frames, frame=T - 1, camera=1))
    half = before.frames.shape[2] // 2
    torch.testing.assert_close(after.fused[:, :, :half], before.fused[:, :, :half])
    torch.testing.assert_close(after.frames[:, :, :half], before.frames[:, :, :half])
    assert (after.frames[:, -1, half:] - before.frames[:, -1, half:]).abs().max() > 1e-4


def test_cameras_are_told_apart(name: str) -> None:
    encoder, frames = built(name, cameras=2), pictures(2)
    half = encoder(frames).fused.shape[2] // 2
    twins = encoder(frames[:, :, :1].expand(-1, -1, 2, -1, -1, -1).contiguous()).fused
    assert (twins[:, :, :half] - twins[:, :, half:]).abs().max() > 1e-3


def test_tokens_keep_their_place_row_by_row(name: str) -> None:
    encoder, frames = built(name), torch.full((B, T, 1, 3, SIZE, SIZE), 90, dtype=torch.uint8)
    h, w = encoder(frames).grid
    row, column = 5, 2
    bright = frames.clone()
    bright[..., row * SIZE // h : (row + 1) * SIZE // h, column * SIZE // w : (column + 1) * SIZE // w] = 255
    change = (encoder(bright).frames - encoder(frames).frames).norm(dim=-1)
    centroid = (change / change.sum(-1, keepdim=True)) @ cell_centres((h, w))
    expected = torch.tensor([(column + 0.5) / w, (row + 0.5) / h])
    assert ((centroid - expected).abs() < 1 / h).all()


def test_the_layout_in_memory_does_not_matter(name: str) -> None:
    """Batches come with channels last; anything else must give the same."""
    encoder, frames = built(name), pictures()
    moved = frames.movedim(3, -1).contiguous().movedim(-1, 3)
    assert not moved.is_contiguous()
    torch.testing.assert_close(encoder(moved).fused, encoder(frames).fused)


class TestSlowFast:
    @pytest.mark.parametrize(("pick", "frames", "chosen"), [
        ("centre", 6, [1, 4]), ("first", 6, [0, 3]), ("centre", 7, [1, 4, 6]), ("centre", 8, [1, 4, 7]),
        ("centre", 2, [1]), ("random", 7, [1, 4, 6]),
    ])  # fmt: skip
    def test_one_frame_stands_for_each_clip(self, pick: str, frames: int, chosen: list[int]) -> None:
        encoder = built("slow_fast", clip=3, pick=pick)
        assert isinstance(encoder, SlowFastEncoder)
        picked, clip_of = encoder.clips(frames, torch.device("cpu"))
        assert picked.tolist() == chosen
        assert clip_of.tolist() == [i // 3 for i in range(frames)]

    def test_in_training_a_random_frame_of_each_clip_is_picked(self) -> None:
        encoder = built("slow_fast", clip=3, pick="random").train()
        assert isinstance(encoder, SlowFastEncoder)
        drawn = {tuple(encoder.clips(8, torch.device("cpu"))[0].tolist()) for _ in range(200)}
        assert drawn == set(itertools.product((0, 1, 2), (3, 4, 5), (6, 7)))

    @pytest.mark.parametrize("stride", [1, 2])
    def test_the_slow_branch_is_repeated_and_the_fast_one_added(self, stride: int) -> None:
        """Written out from its parts, frame by frame: `h_v + W'(h_v + W x)`."""
        encoder, frames = built("slow_fast", clip=3, stride=stride), pictures()
        assert isinstance(encoder, SlowFastEncoder)
        words = LanguageTokens(
            tokens=torch.randn(B, 5, WIDTH), mask=torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
        )
        tokens = encoder(frames, exchange_of(words))
        h, w = tokens.grid
        places = encoder.place(place_encoding((h // stride, w // stride), WIDTH))
        for t in range(T):
            stands_for = {0: 1, 1: 1, 2: 1, 3: 3}[t]
            features = encoder.backbone(frames[:, [t, stands_for], 0].flatten(0, 1).float() / 255)
            plain, chosen = encoder.embed(to_tokens(features)).unflatten(0, (B, 2)).unbind(1)
            pooled = F.avg_pool2d(to_maps(chosen, (h, w)), stride) if stride > 1 else to_maps(chosen, (h, w))
            x = torch.cat([to_tokens(pooled) + places + encoder.camera[0], words.tokens], dim=1)
            mask = torch.cat([torch.ones(B, x.shape[1] - 5, dtype=torch.bool), words.mask], dim=1)
            for layer in encoder.slow:
                x, _ = layer(x, mask)
            x = encoder.norm(x)
            slow = x[:, :-5].unflatten(1, (h // stride, w // stride))
            slow = slow.repeat_interleave(stride, 1).repeat_interleave(stride, 2).flatten(1, 2)
            fast = plain @ encoder.fast.linear.weight.T + encoder.fast.linear.bias
            expected = slow + (slow + fast) @ encoder.fast.join.weight.T + encoder.fast.join.bias
            torch.testing.assert_close(tokens.frames[:, t], expected, atol=1e-5, rtol=1e-4)
            assert tokens.text is not None
            torch.testing.assert_close(tokens.text.tokens[:, t], x[:, -5:], atol=1e-5, rtol=1e-4)

    def test_what_a_frame_carries_comes_from_itself_and_its_clips_frame(self) -> None:
        encoder, frames = built("slow_fast", clip=3), pictures()
        for frame in range(T):
            change = (encoder(repainted(frames, frame=frame)).frames - encoder(frames).frames).abs().amax((0, 2, 3))
            reached = {0: {0}, 1: {0, 1, 2}, 2: {2}, 3: {3}}[frame]
            assert {t for t, c in enumerate(change.tolist()) if c > 1e-4} == reached

    def test_padded_words_are_not_read(self) -> None:
        encoder, frames = built("slow_fast"), pictures()
        mask = torch.tensor([[True, True, False]] * B)
        tokens = torch.randn(B, 3, WIDTH)
        other = torch.where(mask[..., None], tokens, torch.randn(B, 3, WIDTH))
        first, second = (
            encoder(frames, exchange_of(LanguageTokens(tokens=x, mask=mask))).frames for x in (tokens, other)
        )
        torch.testing.assert_close(first, second)

    def test_what_words_read_is_spread_over_the_places_they_read(self) -> None:
        encoder = built("slow_fast", clip=3)
        words = LanguageTokens(tokens=torch.randn(B, 5, WIDTH), mask=torch.ones(B, 5, dtype=torch.bool))
        tokens = encoder(pictures(), exchange_of(words))
        weights = tokens.attention["slow_language_reads_vision_0"]
        h, w = tokens.grid
        assert weights.shape == (B, 2, 5, h * w)
        blocks = weights.unflatten(-1, (h // 2, 2, w // 2, 2))
        torch.testing.assert_close(blocks, blocks[..., :1, :, :1].expand_as(blocks))

    @pytest.mark.parametrize("kind", ["none", "linear", "gated", "transformer", "pooled"])
    def test_fast_branches(self, kind: str) -> None:
        torch.manual_seed(0)
        branch = FastBranch(SlowFastConfig(fast=kind), WIDTH, 2)  # type: ignore[arg-type]
        slow, plain = torch.randn(B, T, 6, WIDTH), torch.randn(B, T, 6, WIDTH)
        joined = branch(slow, plain)
        if kind == "none":
            assert joined is slow
            return
        fast = branch.linear(plain)
        if kind == "gated":
            torch.testing.assert_close(joined, slow * (1 + 1 / (1 + torch.exp(-fast))))
            return
        assert branch.join is not None
        if kind == "pooled":
            fast = fast.mean(2, keepdim=True)
        if kind == "transformer":
            for place in range(6):
                timed = fast[:, :, place] + newest_at_zero(T, WIDTH)
                torch.testing.assert_close(
                    joined[:, :, place] - slow[:, :, place],
                    branch.join(slow[:, :, place] + branch.over_time(timed)),
                )
            return
        torch.testing.assert_close(joined, slow + branch.join(slow + fast))


def exchange_of(words: LanguageTokens) -> CrossModalExchange:
    """An exchange whose language encoder has no layers left."""

    class Encoded(LanguageEncoder):
        layers = nn.ModuleList()

        def finish(self, text: LanguageTokens) -> LanguageTokens:
            return text

    return CrossModalExchange(Encoded(), words)


class TestTwoStream:
    def test_the_spatial_stream_sees_the_newest_frame_only(self) -> None:
        encoder, frames = built("two_stream"), pictures()
        assert isinstance(encoder, TwoStreamEncoder)
        assert isinstance(encoder.streams, ConcatStreams)
        nn.init.zeros_(encoder.streams.from_temporal.weight)
        before = encoder(frames).fused
        for frame in range(T - 1):
            torch.testing.assert_close(encoder(repainted(frames, frame=frame)).fused, before)
        assert (encoder(repainted(frames, frame=T - 1)).fused - before).abs().max() > 1e-4

    @pytest.mark.parametrize("frame", range(T))
    def test_the_temporal_stream_sees_every_frame(self, frame: int) -> None:
        encoder, frames = built("two_stream"), pictures()
        assert isinstance(encoder, TwoStreamEncoder)
        assert isinstance(encoder.streams, ConcatStreams)
        nn.init.zeros_(encoder.streams.from_spatial.weight)
        change = encoder(repainted(frames, frame=frame)).fused - encoder(frames).fused
        assert (change.abs().amax((1, 2, 3)) > 1e-4).all()

    def test_a_single_place_is_refused(self) -> None:
        encoder = built("two_stream", size=4)
        with pytest.raises(
            ValueError,
            match=r"got 1 x 1 places per picture, expected 2 x 2 or more; lower encoder\.backbone\.timm\.stride",
        ):
            encoder(pictures(size=4))

    def test_adding_two_projections_is_projecting_the_concatenation(self) -> None:
        encoder, frames = built("two_stream"), pictures()
        assert isinstance(encoder, TwoStreamEncoder)
        assert isinstance(encoder.streams, ConcatStreams)
        found: dict[str, Tensor] = {}
        encoder.streams.from_spatial.register_forward_hook(lambda _m, args, _out: found.update(spatial=args[0]))
        encoder.streams.from_temporal.register_forward_hook(lambda _m, args, _out: found.update(temporal=args[0]))
        fused = encoder(frames).fused[:, 0]
        weight = torch.cat([encoder.streams.from_spatial.weight, encoder.streams.from_temporal.weight], dim=1)
        place = encoder.place(place_encoding((SIZE // 4, SIZE // 4), WIDTH))
        joined = torch.cat([found["spatial"], found["temporal"]], dim=-1)
        torch.testing.assert_close(
            fused, joined @ weight.T + encoder.streams.from_spatial.bias + encoder.camera[0] + place
        )

    def test_a_gate_mixes_the_two_streams(self) -> None:
        torch.manual_seed(0)
        streams, (spatial, temporal) = GatedStreams(WIDTH, 2), torch.randn(2, B, 5, WIDTH)
        weight = torch.cat([streams.gate.from_spatial.weight, streams.gate.from_temporal.weight], dim=1)
        gate = torch.sigmoid(torch.cat([spatial, temporal], -1) @ weight.T + streams.gate.from_spatial.bias)
        torch.testing.assert_close(streams(spatial, temporal), gate * spatial + (1 - gate) * temporal)


def test_a_single_frame_encoder_sees_no_history() -> None:
    encoder, frames = built("single_frame"), pictures()
    before = encoder(frames)
    for frame in range(T - 1):
        after = encoder(repainted(frames, frame=frame))
        assert torch.equal(after.fused, before.fused)
        assert torch.equal(after.frames, before.frames)


def test_conv3d_is_its_sum() -> None:
    encoder = built("conv3d", kernel=(2, 3))
    assert isinstance(encoder, Conv3dEncoder)
    c, side, where = 8, 4, (1, 2)
    x = torch.randn(1, c, T, side, side)
    convolved = encoder._over_time(encoder.first, x)
    kernel, bias = encoder.first.weight, encoder.first.bias
    assert bias is not None
    for t in (0, 2):
        expected = bias.clone()
        for i in range(2):  # frames back
            for j in range(3):
                for k in range(3):
                    row, column, frame = where[0] + j - 1, where[1] + k - 1, t - i
                    if 0 <= row < side and 0 <= column < side and frame >= 0:
                        expected = expected + kernel[:, :, 1 - i, j, k] @ x[0, :, frame, row, column]
        torch.testing.assert_close(convolved[0, :, t, *where], expected)


def test_attention_without_weights_is_the_equation() -> None:
    torch.manual_seed(0)
    for causal in (False, True):
        block, x = FusedSelfAttentionBlock(WIDTH, 2, causal=causal, feed=False), torch.randn(B, 5, WIDTH)
        q, k, v = block.qkv(block.norm_attention(x)).chunk(3, dim=-1)
        heads = []
        for part in (slice(0, WIDTH // 2), slice(WIDTH // 2, WIDTH)):
            scores = q[..., part] @ k[..., part].mT / (WIDTH // 2) ** 0.5
            if causal:
                scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
            heads.append(scores.softmax(-1) @ v[..., part])
        torch.testing.assert_close(block(x), x + block.out(torch.cat(heads, -1)))


def test_a_frame_transformer_attends_to_no_later_frame() -> None:
    encoder = built("frame_transformer")
    assert isinstance(encoder, FrameTransformerEncoder)
    x = torch.randn(B, T, WIDTH)
    for frame in range(T):
        changed = x.clone()
        changed[:, frame, 0] += 3
        for layer in encoder.layers:
            reached = (layer(changed) - layer(x)).abs().amax((0, 2)) > 1e-6
            assert reached.tolist() == [t >= frame for t in range(T)]


def test_divided_attention_is_along_time_and_within_frames() -> None:
    """One layer: what changes at one place of one frame reaches that frame, and that place in every frame."""
    from vla_policy.encoders.space_time_attention import DividedBlock, JointBlock

    torch.manual_seed(0)
    x = torch.randn(1, T, 6, WIDTH)
    changed = x.clone()
    changed[0, 1, 2, 0] += 3
    divided, joint = DividedBlock(WIDTH, 2), JointBlock(WIDTH, 2)
    time_only = divided.time(changed.transpose(1, 2).flatten(0, 1)) - divided.time(x.transpose(1, 2).flatten(0, 1))
    assert [i for i, c in enumerate(time_only.abs().amax((1, 2)).tolist()) if c > 1e-6] == [2]
    for block in (divided, joint):
        assert ((block(changed) - block(x)).abs().amax(-1) > 1e-7).all()  # both together reach everywhere


@pytest.mark.parametrize("options", [
    {"name": "two_stream"},
    {"name": "space_time_attention", "attention": "divided"},
    {"name": "space_time_attention", "attention": "joint"},
    {"name": "frame_transformer"},
], ids=lambda options: options.get("attention", options["name"]))  # fmt: skip
def test_memory_of_training_grows_linearly_with_the_frames(options: dict[str, Any]) -> None:
    def kept(frames: int) -> int:
        """Bytes that the backward pass holds on to, each storage once."""
        shapes = Shapes(frames=frames, cameras=1, size=SIZE, proprioception=3, actions=2, vocabulary=9)
        settings = {key: value for key, value in options.items() if key != "name"}
        encoder = ENCODERS[options["name"]](own(options["name"], **settings), setup_of(shapes))
        parameters = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
        found: dict[int, int] = {}

        def note(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in parameters:
                found[storage.data_ptr()] = storage.nbytes()
            return x

        pixels = torch.zeros(1, frames, 1, 3, SIZE, SIZE, dtype=torch.uint8)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            tokens = encoder(pixels)
            (tokens.fused.sum() + tokens.frames.sum()).backward()
        return sum(found.values())

    at = {frames: kept(frames) for frames in (80, 160, 320)}
    assert at[320] - at[160] == pytest.approx(2 * (at[160] - at[80]), rel=0.05)
