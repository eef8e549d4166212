import math

import pytest
import torch

from configs.checks import own_settings
from configs.policy import BinnedConfig, FlowMatchingConfig, GaussianMixtureConfig, HeadConfig
from vla_policy.decision import ActionHead, HeadSetup
from vla_policy.heads import HEADS as ALL_HEADS
from vla_policy.heads.binned import SPREAD, BinnedHead
from vla_policy.heads.chunk_l1 import ChunkL1Head
from vla_policy.heads.flow_matching import FlowMatchingHead
from vla_policy.heads.gaussian_mixture import GaussianMixtureHead

HEADS = {name: make for name, make in ALL_HEADS.items() if name != "none"}  # those that learn

B, S, A, F = 4, 3, 2, 10


def setup(*, chunk: int = S, hidden: int = 8, actions: int = A, blocks: int = 0) -> HeadSetup:
    return HeadSetup(chunk=chunk, hidden=hidden, features=F, actions=actions, blocks=blocks)


def built(name: str, hidden: int = 8, blocks: int = 0) -> ActionHead:
    shape = setup(hidden=hidden, blocks=blocks)
    return HEADS[name](own_settings(HeadConfig(name=name)), shape)  # type: ignore[arg-type]


@pytest.fixture(params=[(name, blocks) for name in sorted(HEADS) for blocks in (0, 2)], ids=lambda p: f"{p[0]}-{p[1]}")
def head(request: pytest.FixtureRequest) -> ActionHead:
    torch.manual_seed(0)
    name, blocks = request.param
    return built(name, blocks=blocks)


def test_actions_have_their_shape_and_stay_in_their_range(head: ActionHead) -> None:
    seen = torch.randn(B, F)
    actions = head.act(100 * seen)
    assert actions.shape == (B, S, A)
    assert actions.dtype == torch.float32
    assert actions.abs().max() <= 1
    assert torch.equal(actions, head.act(100 * seen))


def test_loss_is_a_finite_number_with_gradients(head: ActionHead) -> None:
    loss = head.loss(torch.randn(B, F), torch.rand(B, S, A) * 2 - 1, torch.ones(B, S, dtype=torch.bool))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_steps_past_the_end_do_not_count(head: ActionHead) -> None:
    features, action = torch.randn(B, F), torch.rand(B, S, A) * 2 - 1
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]).bool()

    def loss(labels: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)  # flow matching draws noise
        return head.loss(features, labels, mask)

    before = loss(action)
    if not isinstance(head, FlowMatchingHead):  # there the steps of a chunk move together, as they do when it acts
        torch.testing.assert_close(loss(torch.where(mask[..., None], action, 0.9)), before)
    assert loss(torch.where(mask[..., None], action - 0.5, action)) != before


def test_no_head_drowns_what_grounding_teaches_the_encoder() -> None:
    """Scaled, every head's gradient at the features is about as large as that of regression, well into training."""
    gradients = {name: gradient_at_features(name) for name in HEADS}
    assert all(0.4 < gradient / gradients["chunk_l1"] < 2 for gradient in gradients.values()), gradients


def gradient_at_features(name: str, steps: int = 600) -> float:
    """Mean norm over the second half of a training run on noisy actions that depend on their features."""
    torch.manual_seed(0)
    head, truth = built(name, hidden=64), torch.randn(F, A) / F**0.5
    optimizer, norms = torch.optim.AdamW(head.parameters(), 1.5e-3), []
    for _ in range(steps):
        features = torch.randn(64, F, requires_grad=True)
        meant = 2 * (features.detach() @ truth)[:, None].expand(-1, S, -1)
        action = (meant + 0.15 * torch.randn(64, S, A)).clamp(-1, 1)
        loss = head.loss_scale * head.loss(features, action, torch.ones(64, S, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert features.grad is not None
        norms.append(features.grad.norm().item())
    return sum(norms[steps // 2 :]) / (steps - steps // 2)


def test_loss_without_any_step_is_zero(head: ActionHead) -> None:
    loss = head.loss(torch.randn(B, F), torch.zeros(B, S, A), torch.zeros(B, S, dtype=torch.bool))
    assert loss == 0


def test_training_on_one_batch_brings_the_actions_close(head: ActionHead) -> None:
    features, action = torch.randn(B, F), torch.rand(B, S, A) - 0.5
    mask = torch.ones(B, S, dtype=torch.bool)
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    for _ in range(600):
        optimizer.zero_grad()
        head.loss(features, action, mask).backward()
        optimizer.step()
    assert (head.act(features) - action).abs().mean() < 0.05


def test_chunk_l1_is_the_mean_absolute_error() -> None:
    head, features = ChunkL1Head(None, setup()), torch.randn(2, F)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    offset = torch.tensor([0.5, -0.1])
    # Three steps count, each off by the mean of 0.5 and 0.1.
    assert head.loss(features, head(features).detach() + offset, mask).item() == pytest.approx(0.3, abs=1e-6)


def test_a_gaussian_mixture_is_its_density() -> None:
    torch.manual_seed(0)
    head, features = GaussianMixtureHead(GaussianMixtureConfig(components=3), setup()), torch.randn(2, F)
    action, mask = torch.rand(2, S, A) * 2 - 1, torch.ones(2, S, dtype=torch.bool)
    log_weight, mean, deviation = head(features)
    components = torch.distributions.Independent(torch.distributions.Normal(mean, deviation), 1)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=log_weight), components)
    torch.testing.assert_close(head.loss(features, action, mask), -mixture.log_prob(action).mean() / A)


def test_a_gaussian_mixture_keeps_two_good_actions_apart() -> None:
    torch.manual_seed(0)
    head = GaussianMixtureHead(GaussianMixtureConfig(), setup(chunk=1, hidden=16, actions=1))
    features, mask = torch.ones(64, F), torch.ones(64, 1, dtype=torch.bool)
    action = torch.tensor([-0.6, 0.6]).repeat(32).view(64, 1, 1)
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(features, action, mask).backward()
        optimizer.step()
    assert head.act(features[:1]).abs().item() == pytest.approx(0.6, abs=0.05)


def test_bins_share_a_label_so_that_its_place_is_kept() -> None:
    head = BinnedHead(BinnedConfig(bins=21), setup())
    spacing = 0.1
    inner = torch.rand(50, S, A) * 1.4 - 0.7
    share = head.share(inner)
    torch.testing.assert_close(share.sum(-1), torch.ones_like(inner))
    torch.testing.assert_close(share @ head.centres, inner, atol=0.002 * spacing, rtol=0)
    # Beyond the last bin there is nothing to balance it: a full command comes out a little smaller.
    ends = torch.tensor([-1.0, 1.0]).view(2, 1, 1).expand(2, S, A)
    assert ((head.share(ends) @ head.centres - ends).abs() < 0.5 * spacing).all()


def test_binned_loss_is_the_cross_entropy_with_a_narrow_gaussian() -> None:
    torch.manual_seed(0)
    bins, label = 5, 0.3
    head, features = BinnedHead(BinnedConfig(bins=bins), setup(chunk=1, actions=1)), torch.randn(1, F)
    logits = head(features).flatten().tolist()
    centres = [-1.0, -0.5, 0.0, 0.5, 1.0]
    density = [math.exp(-((c - label) ** 2) / (2 * (SPREAD * 0.5) ** 2)) for c in centres]
    partition = sum(math.exp(x) for x in logits)
    expected = -sum(d / sum(density) * (x - math.log(partition)) for d, x in zip(density, logits, strict=True))
    loss = head.loss(features, torch.full((1, 1, 1), label), torch.ones(1, 1, dtype=torch.bool))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    shares = [math.exp(x) / partition for x in logits]
    assert head.act(features).item() == pytest.approx(
        sum(p * c for p, c in zip(shares, centres, strict=True)), abs=1e-6
    )


def test_the_flow_is_integrated_by_euler_steps() -> None:
    torch.manual_seed(0)
    head, features = FlowMatchingHead(FlowMatchingConfig(integration_steps=3), setup()), torch.randn(B, F)
    context, x = head.context(features), torch.zeros(B, S, A)
    for time in (0.0, 1 / 3, 2 / 3):
        x = x + head(context, x, torch.full((B,), time)) / 3
    torch.testing.assert_close(head.act(features), x.clamp(-1, 1))


def test_no_head_has_no_parameters_and_rests() -> None:
    head = ALL_HEADS["none"](None, setup())
    assert not list(head.parameters())
    assert torch.equal(head.act(torch.randn(B, F)), torch.zeros(B, S, A))
    assert head.loss(torch.randn(B, F), torch.ones(B, S, A), torch.ones(B, S, dtype=torch.bool)) == 0
