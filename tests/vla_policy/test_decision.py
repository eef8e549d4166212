import pytest
import torch

from configs.policy import VoteConfig
from vla_policy.decision import HeadSetup, VotingHead, majority
from vla_policy.heads.chunk_l1 import ChunkL1Head

B, S, A, F = 4, 3, 2, 10


def voting(rule: str, voters: int = 3) -> VotingHead:
    torch.manual_seed(0)
    setup = HeadSetup(chunk=S, hidden=8, features=F, actions=A)
    return VotingHead(rule, voters, lambda: ChunkL1Head(None, setup))  # type: ignore[arg-type]


def votes(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("cast", "decided"),
    [
        ((0.52, 0.58, -0.9), 0.55),  # two in one bin
        ((0.51, 0.53, 0.58), 0.54),  # all in one bin
        ((-0.9, 0.1, 0.7), 0.1),  # no two agree: the median
        ((1.0, 0.96, -0.5), 0.98),  # a full command is in the last bin
        ((0.31, 0.32, 0.71, 0.72, 0.33), 0.32),  # three against two
    ],
)
def test_a_majority_decides(cast: tuple[float, ...], decided: float) -> None:
    assert majority(votes(*cast)).item() == pytest.approx(decided)


def test_every_step_and_dimension_is_voted_on_separately() -> None:
    torch.manual_seed(0)
    cast = torch.rand(5, 3, S, A) * 2 - 1
    together = majority(cast)
    for b in range(5):
        for s in range(S):
            for a in range(A):
                assert together[b, s, a] == majority(cast[b : b + 1, :, s : s + 1, a : a + 1]).item()


def test_a_soft_vote_is_the_mean() -> None:
    head, features = voting("soft"), torch.randn(B, 3, F)
    each = [one.act(features[:, r]) for r, one in enumerate(head.heads)]  # type: ignore[operator]
    torch.testing.assert_close(head.act(features), torch.stack(each).mean(0))


def test_trust_moves_to_the_voter_that_errs_least() -> None:
    head, features = voting("weighted"), torch.randn(B, 3, F)
    mask = torch.ones(B, S, dtype=torch.bool)
    with torch.no_grad():
        action = head.heads[1].act(features[:, 1])  # type: ignore[operator]
    assert head.trust is not None
    optimizer = torch.optim.Adam([head.trust], 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        head.loss(features, action, mask).backward()
        optimizer.step()
    assert head.trust.softmax(0)[1] > 0.8
    assert (head.act(features) - action).abs().mean() < (voting("soft").act(features) - action).abs().mean()


def test_a_majority_among_two_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"a majority needs at least 3 voters; choose fusion\.vote\.rule soft or weighted"
    ):
        VoteConfig(rule="majority", voters=("spatial", "language"))
    VoteConfig(rule="soft", voters=("spatial", "language"))
    with pytest.raises(ValueError, match="one or more different voters"):
        VoteConfig(voters=("spatial", "spatial"))
