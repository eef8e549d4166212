import pytest
import torch
from torch import Tensor, nn

from vla_policy.config import EncoderConfig
from vla_policy.contract import Shapes
from vla_policy.encoders import ENCODERS
from vla_policy.encoders.two_stream import TwoStreamEncoder
from vla_policy.layers import cell_centres

B, T, WIDTH, SIZE = 2, 4, 16, 32


def built(name: str, cameras: int = 1, size: int = SIZE) -> nn.Module:
    torch.manual_seed(0)
    shapes = Shapes(frames=T, cameras=cameras, size=size, proprioception=3, actions=2, vocabulary=9)
    config = EncoderConfig(name=name, channels=8, layers=1, temporal_channels=4)  # type: ignore[arg-type]
    encoder = ENCODERS[name](config, shapes, WIDTH).eval()
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
    assert tokens.frames.shape == (B, T, n, encoder.frame_width)


@pytest.mark.parametrize("frame", range(T))
def test_every_frame_reaches_the_fused_tokens_of_the_newest_moment(name: str, frame: int) -> None:
    encoder, frames = built(name), pictures()
    before, after = encoder(frames).fused, encoder(repainted(frames, frame=frame)).fused
    assert ((after[:, -1] - before[:, -1]).abs().amax((1, 2)) > 1e-4).all()


def test_the_order_of_frames_matters(name: str) -> None:
    encoder, frames = built(name), pictures()
    swapped = frames[:, [1, 0, 2, 3]]
    assert (encoder(swapped).fused[:, -1] - encoder(frames).fused[:, -1]).abs().max() > 1e-4


@pytest.mark.parametrize("frame", range(T))
def test_a_frames_own_tokens_depend_on_that_frame_only(name: str, frame: int) -> None:
    encoder, frames = built(name), pictures()
    change = (encoder(repainted(frames, frame=frame)).frames - encoder(frames).frames).abs().amax((0, 2, 3))
    assert [c > 1e-4 for c in change.tolist()] == [t == frame for t in range(T)]


def test_cameras_stay_apart_and_are_told_apart(name: str) -> None:
    encoder, frames = built(name, cameras=2), pictures(2)
    before, after = encoder(frames), encoder(repainted(frames, frame=T - 1, camera=1))
    half = before.frames.shape[2] // 2
    torch.testing.assert_close(after.fused[:, :, :half], before.fused[:, :, :half])
    torch.testing.assert_close(after.frames[:, :, :half], before.frames[:, :, :half])
    assert (after.frames[:, -1, half:] - before.frames[:, -1, half:]).abs().max() > 1e-4
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


class TestTwoStream:
    def test_the_spatial_stream_sees_the_newest_frame_only(self) -> None:
        encoder, frames = built("two_stream"), pictures()
        assert isinstance(encoder, TwoStreamEncoder)
        nn.init.zeros_(encoder.from_temporal.weight)
        before = encoder(frames).fused
        for frame in range(T - 1):
            torch.testing.assert_close(encoder(repainted(frames, frame=frame)).fused, before)
        assert (encoder(repainted(frames, frame=T - 1)).fused - before).abs().max() > 1e-4

    @pytest.mark.parametrize("frame", range(T))
    def test_the_temporal_stream_sees_every_frame(self, frame: int) -> None:
        encoder, frames = built("two_stream"), pictures()
        assert isinstance(encoder, TwoStreamEncoder)
        nn.init.zeros_(encoder.from_spatial.weight)
        change = encoder(repainted(frames, frame=frame)).fused - encoder(frames).fused
        assert (change.abs().amax((1, 2, 3)) > 1e-4).all()

    def test_adding_two_projections_is_projecting_the_concatenation(self) -> None:
        encoder, frames = built("two_stream"), pictures()
        assert isinstance(encoder, TwoStreamEncoder)
        found: dict[str, Tensor] = {}
        encoder.from_spatial.register_forward_hook(lambda _m, args, _out: found.update(spatial=args[0]))
        encoder.from_temporal.register_forward_hook(lambda _m, args, _out: found.update(temporal=args[0]))
        fused = encoder(frames).fused[:, 0]
        weight = torch.cat([encoder.from_spatial.weight, encoder.from_temporal.weight], dim=1)
        joined = torch.cat([found["spatial"], found["temporal"]], dim=-1)
        torch.testing.assert_close(fused, joined @ weight.T + encoder.from_spatial.bias + encoder.camera[0])
