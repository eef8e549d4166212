"""An episode on the server: the window is a runner's, and what is no observation is refused and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vla_policy.checkpoint import Checkpoint
from vla_policy.contract import ActionChunk, Observation
from vla_policy.runner import PolicyRunner
from vla_policy.server.session import Session

Observe = Callable[..., dict[str, Any]]


@pytest.fixture
def session(served: Checkpoint) -> Session:
    return Session(served)


class TestWindow:
    def test_is_what_a_runner_shows_the_policy(
        self, served: Checkpoint, session: Session, observe: Observe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Though the runner gets every observation, and the session those alone that it needs."""
        runner, shown = PolicyRunner(served), []

        def act(observation: Observation) -> ActionChunk:
            shown.append(observation)
            return ActionChunk(action=torch.zeros(1, 4, served.policy.shapes.actions), aux=None)  # type: ignore[arg-type]

        monkeypatch.setattr(served.policy, "act", act)
        monkeypatch.setattr(runner, "_boxes", True)
        runner.reset(["follow the red ball"])
        for step in range(23):
            seen = observe(step, prompt="follow the red ball")
            runner.act([seen])
            if not runner.fresh:
                continue
            session.take({**seen, "step": step})
            window, expected = session.window(), shown[-1]
            assert window.step == step
            assert np.array_equal(np.moveaxis(window.frames, -1, 2), expected.frames[0].numpy())
            assert np.array_equal(window.agent_pos, expected.agent_pos[0].numpy())
            assert np.array_equal(window.tokens, expected.tokens[0].numpy())
            assert np.array_equal(window.mask, expected.token_mask[0].numpy())

    def test_takes_the_newest_that_was_there_at_each_time(self, session: Session, observe: Observe) -> None:
        stride = session._ages[-2]
        for number, step in enumerate((0, 1, stride + 1, 2 * stride + 3)):
            session.take(observe(number, step=step))
        # Wanted are the steps 3, stride + 3 and 2 * stride + 3.
        first, second, third = session.window().frames[:, 0]
        assert np.array_equal(first, observe(1)["pixels"]["front"])
        assert np.array_equal(second, observe(2)["pixels"]["front"])
        assert np.array_equal(third, observe(3)["pixels"]["front"])

    def test_keeps_no_more_than_it_needs(self, session: Session, observe: Observe) -> None:
        for step in range(200):
            session.take(observe(step))
        assert len(session._seen) == session._ages[0] + 1

    def test_a_reset_forgets_what_was_seen(self, session: Session, observe: Observe) -> None:
        for number in range(5):
            session.take(observe(number))
        taken = session.take(observe(7, reset=True))
        assert taken.step == 0
        window = session.window()
        assert all(np.array_equal(frame[0], observe(7)["pixels"]["front"]) for frame in window.frames)

    def test_other_words_keep_what_was_seen(self, session: Session, observe: Observe) -> None:
        session.take(observe(0, prompt="follow the red ball"))
        before = session.window()
        session.take(observe(1, step=session._ages[-2], prompt="track the blue cube"))
        window = session.window()
        assert np.array_equal(window.frames[-2], before.frames[-1])
        assert not np.array_equal(window.tokens, before.tokens)


class TestInstruction:
    def test_may_be_left_out_after_the_first_observation(self, session: Session, observe: Observe) -> None:
        session.take(observe(0))
        before = session.window().tokens
        session.take(observe(1, prompt=None))
        assert np.array_equal(session.window().tokens, before)

    @pytest.mark.parametrize("begun", [False, True])
    def test_must_come_with_a_new_episode(self, session: Session, observe: Observe, begun: bool) -> None:
        if begun:
            session.take(observe(0))
        with pytest.raises(ValueError, match=r"prompt: got nothing, expected .* with an episode's first"):
            session.take(observe(1, prompt=None, reset=True))

    def test_words_that_the_policy_does_not_know_are_named(self, session: Session, observe: Observe) -> None:
        session.take(observe(0, prompt="follow the turquoise ball"))
        assert session.notice == "the policy does not know 'turquoise'"
        session.take(observe(1, prompt="follow the red ball"))
        assert session.notice == ""


BIG = np.full(12, 1e300)
NAN = np.full(12, np.nan, np.float32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pixels": None}, "pixels: got nothing"),
        ({"pixels": {}}, r"pixels: got cameras \[\], expected .* front"),
        ({"pixels": {"back": np.zeros((32, 32, 3), np.uint8)}}, "got cameras .*back.*expected .*front"),
        ({"pixels": {"front": np.zeros((32, 32, 3), np.float32)}}, r"\(32, 32, 3\) float32, expected .* uint8"),
        ({"pixels": {"front": np.zeros((3, 32, 32), np.uint8)}}, r"got \(3, 32, 32\) uint8, expected \(32, 32, 3\)"),
        ({"pixels": {"front": np.zeros((64, 64, 3), np.uint8)}}, r"got \(64, 64, 3\) uint8"),
        ({"pixels": {"front": [[1]]}}, "got list"),
        ({"pixels": {b"front": np.zeros((32, 32, 3), np.uint8)}}, "got cameras"),
        ({"pixels": np.zeros((32, 32, 3), np.uint8)}, r"got \(32, 32, 3\) uint8, expected a map"),
        ({"agent_pos": None}, "agent_pos: got nothing"),
        ({"agent_pos": np.zeros(3, np.float32)}, r"agent_pos: got \(3,\) float32, expected \(12,\) float32"),
        ({"agent_pos": np.zeros(12, np.int64)}, "int64"),
        ({"agent_pos": [0.0] * 12}, "agent_pos: got list"),
        ({"agent_pos": NAN}, "is not finite"),
        ({"agent_pos": BIG}, "is not finite"),
        ({"prompt": ""}, "prompt: got 0 characters"),
        ({"prompt": " \n"}, "prompt: got 2 characters"),
        ({"prompt": "red " * 300}, "prompt: got 1200 characters"),
        ({"prompt": 7}, "prompt: got int"),
        ({"step": -1}, "step: got -1"),
        ({"step": True}, "step: got True"),
        ({"step": 1.0}, "step: got 1.0"),
        ({"step": 2**60}, "step: got 11529"),
        ({"reset": 1}, "reset: got 1, expected true or false"),
        ({"act": "no"}, "act: got 'no', expected true or false"),
        ({"agentpos": 1}, r"'agentpos' is unknown \(did you mean agent_pos\?\)"),
        ({b"prompt": "x"}, "is unknown"),
    ],
)
def test_what_is_no_observation_is_refused_and_changes_nothing(
    session: Session, observe: Observe, changes: dict[Any, Any], said: str
) -> None:
    session.take(observe(0, step=0))
    before = session.window()
    message = {**observe(1), **changes}
    with pytest.raises(ValueError, match=said) as caught:
        session.take({key: value for key, value in message.items() if value is not None})
    assert len(str(caught.value)) < 500
    after = session.window()
    assert after.step == before.step
    assert np.array_equal(after.frames, before.frames)
    assert np.array_equal(after.tokens, before.tokens)


@pytest.mark.parametrize("message", [None, [], "observation", 3, np.zeros(3)])
def test_a_message_that_is_no_map_is_refused(session: Session, message: Any) -> None:
    with pytest.raises(ValueError, match="expected a map"):
        session.take(message)


def test_steps_must_go_on(session: Session, observe: Observe) -> None:
    session.take(observe(0, step=4))
    for step in (4, 3):
        with pytest.raises(ValueError, match="expected a whole number above 4"):
            session.take(observe(1, step=step))
    assert session.take(observe(1, step=np.int64(9))).step == 9
