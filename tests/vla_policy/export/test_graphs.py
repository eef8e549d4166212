"""The graphs say what the policy says, for every encoder, fusion and head, and torch can trace them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configs.policy import TEXT_ENCODERS, LanguageConfig, PretrainedTextConfig
from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import ActionChunk, Observation, Shapes, fake_batch
from vla_policy.encoders import ENCODERS
from vla_policy.export.formats import trace
from vla_policy.export.graphs import Graph, Stream, Units, Window, graphs_of
from vla_policy.fusion import FUSIONS
from vla_policy.heads import HEADS
from vla_policy.policy import VLAPolicy

NAMES = ("dx", "dy", "dz")
PLAIN = Units.plain(NAMES)
# Every part at least once; with EXPORT=all in the environment, every encoder with every fusion and head.
PARTS = [
    ("two_stream", "bidirectional", "chunk_l1"),
    ("frame_lstm", "cross_attention", "gaussian_mixture"),
    ("frame_transformer", "self_attention", "binned"),
    ("conv3d", "intermediate", "flow_matching"),
    ("space_time_attention", "concat", "chunk_l1"),
    ("slow_fast", "none", "gaussian_mixture"),
    ("single_frame", "weighted", "binned"),
    ("two_stream", "vote", "flow_matching"),
    ("single_frame", "concat", "none"),
]
ALL = [
    parts for parts in itertools.product(ENCODERS, FUSIONS, HEADS) if parts[1] != "none" or parts[0] in TEXT_ENCODERS
]
EXCHANGES = [
    ("bidirectional", {"during": "none"}, 1),
    ("bidirectional", {"during": "early"}, 0),
    ("bidirectional", {"during": "middle"}, 1),
    ("bidirectional", {"during": "multi"}, 0),
    ("intermediate", {"position": "middle", "interaction": "matrix"}, 1),
    ("concat", {}, 1),
]
AsCheckpoint = Callable[[VLAPolicy], Checkpoint]


def observe(policy: VLAPolicy, batch: int = 2) -> Observation:
    words = policy.config.language.max_words
    return fake_batch(policy.shapes, policy.config.head.chunk, batch=batch, words=words).observation


def window(seen: Observation, frames: int) -> dict[str, Tensor]:
    """The same as the graph's inputs."""
    return {
        "frames": seen.frames[:, -frames:].movedim(3, -1).contiguous(),
        "agent_pos": seen.agent_pos[:, -1],
        "tokens": seen.tokens,
        "token_mask": seen.token_mask,
    }


def close(got: dict[str, Tensor], expected: ActionChunk) -> None:
    torch.testing.assert_close(got["actions"], expected.action, rtol=0, atol=1e-5)
    for name in ("boxes", "visible", "during"):
        value = getattr(expected.aux, name)
        assert (name in got) == (value is not None)
        if value is not None:
            torch.testing.assert_close(got[name], value, rtol=0, atol=1e-5)


def test_every_part_is_among_those_that_are_tried() -> None:
    for registry, tried in zip((ENCODERS, FUSIONS, HEADS), zip(*PARTS, strict=True), strict=True):
        assert set(registry) == set(tried)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "fusion", "head"), ALL if os.environ.get("EXPORT") == "all" else PARTS)
def test_a_traced_graph_says_what_the_policy_says(
    encoder: str, fusion: str, head: str, make_policy: Callable[..., VLAPolicy], as_checkpoint: AsCheckpoint
) -> None:
    policy = make_policy(encoder=encoder, fusion=fusion, head=head).eval()
    graphs = graphs_of(as_checkpoint(policy), PLAIN)
    graph: Graph = graphs.get("stream", graphs["window"])
    program = trace(graph, graph.inputs())[0].module()
    for batch in (1, 3):
        seen = observe(policy, batch)
        inputs = window(seen, graph.frames)
        if isinstance(graph, Stream):
            frames = inputs.pop("frames")
            with torch.no_grad():
                earlier = graph._look(frames[:, :-1])
            inputs |= {"frame": frames[:, -1], "begins": torch.zeros(batch, dtype=torch.bool), "earlier": earlier}
        close(program(**inputs), policy.act(seen))


@pytest.mark.parametrize(("fusion", "options", "stage"), EXCHANGES)
def test_a_stream_says_what_the_window_says(
    fusion: str,
    options: dict[str, Any],
    stage: int,
    make_policy: Callable[..., VLAPolicy],
    as_checkpoint: AsCheckpoint,
) -> None:
    """In the course of an episode, at the start of which the first frame stands for those before it."""
    policy = make_policy(fusion=fusion, options={"fusion": options}).eval()
    stream = graphs_of(as_checkpoint(policy), PLAIN)["stream"]
    assert isinstance(stream, Stream)
    assert stream._stage == stage
    course = observe(policy, batch=5)  # its rows are the decisions of one episode, and their newest frames its course
    features: list[Tensor] = []
    for step in range(5):
        steps = [max(step - back, 0) for back in reversed(range(stream.frames))]
        row = {name: getattr(course, name)[step : step + 1] for name in ("agent_pos", "tokens", "token_mask")}
        seen = Observation(frames=course.frames[steps, -1][None], **row)
        earlier = torch.stack([features[i][0] for i in steps[:-1]]) if step else torch.full_like(features_of(stream), 9)
        said = stream(
            frame=course.frames[step : step + 1, -1].movedim(2, -1),
            begins=torch.tensor([step == 0]),
            earlier=earlier[None],
            **{**row, "agent_pos": row["agent_pos"][:, -1]},
        )
        close(said, policy.act(seen))
        features.append(said["features"])


def features_of(stream: Stream) -> Tensor:
    return stream.inputs()["earlier"][0]


def test_looked_at_frames_take_the_place_of_frames(make_policy: Callable[..., VLAPolicy]) -> None:
    policy = make_policy().eval()
    seen = observe(policy)
    with torch.no_grad():
        looked = policy.encoder.look(seen.frames, 1)
    assert torch.equal(policy.act(replace(seen, frames=looked)).action, policy.act(seen).action)
    with pytest.raises(ValueError, match=r"frames: got .* torch.float32, expected .* torch.uint8"):
        policy.act(replace(seen, frames=seen.frames.float()))


def test_actions_leave_in_the_units_of_a_task(
    make_policy: Callable[..., VLAPolicy], as_checkpoint: AsCheckpoint
) -> None:
    policy = make_policy().eval()
    units = Units(names=("dz", "dx"), low=(-2.0, 0.0), high=(4.0, 1.0))
    seen = observe(policy)
    said = Window(as_checkpoint(policy), units)(**window(seen, 3))["actions"]
    action = policy.act(seen).action
    torch.testing.assert_close(said[..., 0], 1 + 3 * action[..., 2])
    torch.testing.assert_close(said[..., 1], 0.5 + 0.5 * action[..., 0])


def test_a_policy_of_one_frame_has_no_stream(
    make_policy: Callable[..., VLAPolicy], as_checkpoint: AsCheckpoint
) -> None:
    policy = make_policy(encoder="single_frame").eval()
    graphs = graphs_of(as_checkpoint(policy), PLAIN)
    assert list(graphs) == ["window"]
    assert graphs["window"].inputs()["frames"].shape[1] == 1


def test_boxes_that_were_never_learned_stay_inside(
    make_policy: Callable[..., VLAPolicy], as_checkpoint: AsCheckpoint, shapes: Shapes
) -> None:
    checkpoint = as_checkpoint(make_policy().eval())
    checkpoint.purpose = replace(checkpoint.purpose, boxes=False)
    graph = Window(checkpoint, PLAIN)
    assert list(graph(**graph.inputs())) == ["actions"]


def test_what_cannot_be_traced_is_said_in_one_line() -> None:
    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"y": x if x.sum() > 0 else -x}

    with pytest.raises(ValueError, match=r"^this policy cannot be exported, torch cannot trace it: [^\n]+$"):
        trace(Undecided(), {"x": torch.ones(2, 3)})  # type: ignore[arg-type]


def test_a_frozen_text_model_is_refused(make_policy: Callable[..., VLAPolicy], as_checkpoint: AsCheckpoint) -> None:
    checkpoint = as_checkpoint(make_policy().eval())
    frozen = LanguageConfig(name="pretrained", pretrained=PretrainedTextConfig(source="somewhere"))
    checkpoint.policy.config = replace(checkpoint.policy.config, language=frozen)
    with pytest.raises(ValueError, match=r"a frozen text model .* cannot be exported"):
        graphs_of(checkpoint, PLAIN)
