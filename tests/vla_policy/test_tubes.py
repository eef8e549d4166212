"""What a policy makes of the tubes that it finds, in each camera, of target and goal; what its action head is told."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from configs.policy import GroundingConfig, PolicyConfig
from vla_policy.contract import Batch, Shapes, fake_batch
from vla_policy.policy import PATH_SCALE, VLAPolicy, path_features, path_width

MakePolicy = Callable[..., VLAPolicy]

CHUNK = 2


def test_path_features_are_the_newest_place_and_the_steps_that_led_there() -> None:
    boxes = torch.rand(2, 3, 4)
    features = path_features(boxes)
    assert features.shape == (2, 12)
    expected = torch.cat([boxes[:, 2] - 0.5, 4 * (boxes[:, 1] - boxes[:, 0]), 4 * (boxes[:, 2] - boxes[:, 1])], dim=1)
    torch.testing.assert_close(features, PATH_SCALE * expected)
    still = path_features(boxes[:, :1].expand(-1, 3, -1))
    assert (still[:, 4:] == 0).all()


def test_steps_between_frames_that_are_not_evenly_apart_are_brought_to_one_length() -> None:
    config = PolicyConfig(frames=4, frame_stride=8, frame_ages=(16, 8, 2, 0))
    assert config.step_scale == (1, 8 / 6, 4)
    boxes = 0.01 * torch.tensor([[[0.0], [8], [14], [16]]]).expand(-1, -1, 4)  # at one speed
    steps = path_features(boxes, None, config.step_scale)[:, 4:]
    torch.testing.assert_close(steps, torch.full_like(steps, PATH_SCALE * 4 * 0.08))
    for even in ((), (25, 20, 15, 10, 5, 0)):
        assert PolicyConfig(frame_ages=even).step_scale is None


def test_path_features_of_boxes_that_may_be_guesses_count_as_far_as_the_target_is_seen() -> None:
    boxes = torch.rand(2, 3, 4)
    visible = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.25, 0.5]])
    features = path_features(boxes, visible)
    assert features.shape == (2, path_width(3, visible=True))
    assert path_features(boxes).shape == (2, path_width(3, visible=False))
    torch.testing.assert_close(features[:, :3], visible)
    torch.testing.assert_close(features[0, 3:15], PATH_SCALE * (boxes[0] - 0.5).flatten())
    torch.testing.assert_close(features[1, 7:11], PATH_SCALE * 0.25 * (boxes[1, 1] - 0.5))
    torch.testing.assert_close(features[0, 15:], PATH_SCALE * 4 * boxes[0].diff(dim=0).flatten())
    torch.testing.assert_close(features[1, 19:], PATH_SCALE * 4 * 0.125 * (boxes[1, 2] - boxes[1, 1]))


ALL_TUBES = GroundingConfig(things=("target", "goal"), cameras="all", visibility_weight=0.5)


class TestTubes:
    """A policy that finds the target and the goal in both of its cameras."""

    @pytest.fixture(params=["two_stream", "single_frame"])
    def both(self, request: pytest.FixtureRequest, make_policy: MakePolicy, shapes: Shapes) -> VLAPolicy:
        torch.manual_seed(0)
        cameras = ("front", "wrist")
        return make_policy(
            encoder=request.param, grounding=ALL_TUBES, shapes=replace(shapes, cameras=2), cameras=cameras
        ).eval()

    def test_their_order_is_by_camera_then_by_thing(self, both: VLAPolicy) -> None:
        assert both.config.tubes == (("front", "target"), ("front", "goal"), ("wrist", "target"), ("wrist", "goal"))

    def test_all_are_found_and_the_first_is_the_one_that_is_shown(self, both: VLAPolicy) -> None:
        aux = both.act(fake_batch(both.shapes, CHUNK, batch=3).observation).aux
        frames = both.encoder.grounded_frames
        assert aux.tubes is not None
        assert aux.boxes is not None
        assert aux.visible is not None
        assert aux.tubes.shape == (3, frames, 4, 4)
        assert torch.equal(aux.boxes, aux.tubes[:, :, 0])
        assert aux.visible.shape == (3, frames)

    def test_each_is_pulled_to_its_own_label(self, both: VLAPolicy) -> None:
        batch = fake_batch(both.shapes, CHUNK, batch=3, tubes=4)
        assert batch.more_boxes is not None
        optimizer = torch.optim.Adam(both.parameters(), 3e-3)
        for _ in range(80):
            optimizer.zero_grad()
            both.loss(batch)[0].backward()
            optimizer.step()
        found = both.act(batch.observation).aux.tubes
        assert found is not None
        true = batch.tubes[0][:, -found.shape[1] :]
        assert (found - true).abs().mean() < 0.5 * (found - true.flip(2)).abs().mean()

    def test_what_is_hidden_teaches_nothing(self, both: VLAPolicy) -> None:
        batch = fake_batch(both.shapes, CHUNK, batch=3, tubes=4)
        assert batch.more_boxes is not None
        assert batch.more_visible is not None
        hidden = batch.more_visible.clone()
        hidden[:, :, 1] = False
        elsewhere = batch.more_boxes.clone()
        elsewhere[:, :, 1] = torch.nan
        torch.manual_seed(0)
        loss, _ = both.loss(replace(batch, more_visible=hidden))
        torch.manual_seed(0)
        assert loss == both.loss(replace(batch, more_visible=hidden, more_boxes=elsewhere))[0]
        assert torch.isfinite(loss)


@pytest.mark.parametrize("things", [(), ("goal",), ("goal", "target"), ("target", "target")])
def test_things_are_the_target_and_then_the_goal(things: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"grounding\.things .* must be \[target\] or \[target, goal\]"):
        GroundingConfig(things=things)


def test_the_action_head_gets_whether_the_event_holds_now(make_policy: MakePolicy, batch: Batch) -> None:
    policy = make_policy(grounding=GroundingConfig(interval_weight=1.0)).eval()
    features = policy(batch.observation)
    assert features.grounding.event is not None
    width, path = policy.config.width, path_width(features.grounding.boxes.shape[1], visible=False)
    torch.testing.assert_close(features.action[:, width + path], features.grounding.event.during[:, -1].sigmoid())


def test_octaves_tell_the_action_head_places_more_finely(small: PolicyConfig, shapes: Shapes, batch: Batch) -> None:
    policy = VLAPolicy(replace(small, head=replace(small.head, octaves=2, blocks=1)), shapes).eval()
    policy.normaliser.set_statistics(torch.zeros(shapes.proprioception), torch.full((shapes.proprioception,), 2.0))
    features = policy(batch.observation)
    width, path = policy.config.width, path_width(features.grounding.boxes.shape[1], visible=False)
    told = features.action[:, width : width + 5 * path]
    places = told[:, :path]
    expected = [places, places.sin(), (2 * places).sin(), places.cos(), (2 * places).cos()]
    torch.testing.assert_close(told, torch.cat(expected, dim=-1))
    felt = policy.normaliser(batch.observation.agent_pos[:, -1])
    torch.testing.assert_close(features.action[:, -5 * felt.shape[1] : -4 * felt.shape[1]], felt)
