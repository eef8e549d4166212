import pytest
import torch

from vla_policy.config import HeadConfig
from vla_policy.heads import HEADS
from vla_policy.heads.chunk_l1 import ChunkL1Head

B, S, A, F = 4, 3, 2, 10


@pytest.fixture(params=sorted(HEADS))
def head(request: pytest.FixtureRequest) -> ChunkL1Head:
    torch.manual_seed(0)
    return HEADS[request.param](HeadConfig(name=request.param, chunk=S, hidden=8), F, A)


def test_actions_have_their_shape_and_stay_in_their_range(head: ChunkL1Head) -> None:
    actions = head.act(100 * torch.randn(B, F))
    assert actions.shape == (B, S, A)
    assert actions.dtype == torch.float32
    assert actions.abs().max() == 1  # features this large push some to the limit


def test_loss_is_a_finite_number_with_gradients(head: ChunkL1Head) -> None:
    loss = head.loss(torch.randn(B, F), torch.rand(B, S, A) * 2 - 1, torch.ones(B, S, dtype=torch.bool))
    assert loss.shape == ()
    assert loss > 0
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_steps_past_the_end_do_not_count(head: ChunkL1Head) -> None:
    features, action = torch.randn(B, F), torch.rand(B, S, A) * 2 - 1
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]).bool()
    before = head.loss(features, action, mask)
    torch.testing.assert_close(head.loss(features, torch.where(mask[..., None], action, 50.0), mask), before)
    assert head.loss(features, torch.where(mask[..., None], action + 1, action), mask) != before


def test_loss_without_any_step_is_zero(head: ChunkL1Head) -> None:
    loss = head.loss(torch.randn(B, F), torch.zeros(B, S, A), torch.zeros(B, S, dtype=torch.bool))
    assert loss == 0


def test_training_on_one_batch_brings_the_actions_close(head: ChunkL1Head) -> None:
    features, action = torch.randn(B, F), torch.rand(B, S, A) - 0.5
    mask = torch.ones(B, S, dtype=torch.bool)
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    for _ in range(400):
        optimizer.zero_grad()
        head.loss(features, action, mask).backward()
        optimizer.step()
    assert (head.act(features) - action).abs().mean() < 0.05


def test_chunk_l1_is_the_mean_absolute_error() -> None:
    head, features = ChunkL1Head(HeadConfig(chunk=S, hidden=8), F, A), torch.randn(2, F)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    offset = torch.tensor([0.5, -0.1])
    # Three steps count, each off by the mean of 0.5 and 0.1.
    assert head.loss(features, head(features).detach() + offset, mask).item() == pytest.approx(0.3, abs=1e-6)
