import pytest
import torch

from vla_policy.normaliser import Normaliser


def ready() -> Normaliser:
    normaliser = Normaliser(3)
    normaliser.set_statistics(torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.5, 2.0, 0.0]))
    return normaliser


def test_without_statistics_it_refuses_to_work() -> None:
    with pytest.raises(ValueError, match="no statistics; call set_statistics or load a checkpoint"):
        Normaliser(3)(torch.zeros(1, 3))


def test_it_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    got = ready()(torch.tensor([[2.0, -2.0, 0.03]]))
    torch.testing.assert_close(got, torch.tensor([[2.0, 0.0, 3.0]]))  # what never varies keeps a scale of 0.01


def test_recorded_values_come_out_standardised() -> None:
    recorded = torch.randn(10_000, 3) * torch.tensor([0.1, 4.0, 30.0]) + torch.tensor([5.0, 0.0, -100.0])
    normaliser = Normaliser(3)
    normaliser.set_statistics(recorded.mean(0), recorded.std(0))
    standard = normaliser(recorded)
    torch.testing.assert_close(standard.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(0), torch.ones(3), atol=1e-4, rtol=0)


def test_statistics_travel_with_the_weights() -> None:
    source, copy = ready(), Normaliser(3)
    assert not list(source.parameters())
    copy.load_state_dict(source.state_dict())
    x = torch.randn(4, 3)
    torch.testing.assert_close(copy(x), source(x))


def test_loading_weights_without_statistics_leaves_it_refusing() -> None:
    copy = Normaliser(3)
    copy.load_state_dict(Normaliser(3).state_dict())
    with pytest.raises(ValueError, match="no statistics"):
        copy(torch.zeros(1, 3))


@pytest.mark.parametrize(("mean", "std"), [(2, 3), (3, 2), (1, 1)])
def test_statistics_of_other_dimensions_are_refused(mean: int, std: int) -> None:
    with pytest.raises(ValueError, match=r"must be \(3,\)"):
        Normaliser(3).set_statistics(torch.zeros(mean), torch.ones(std))
