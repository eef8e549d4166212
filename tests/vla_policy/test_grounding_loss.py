"""What grounding learns from: boxes, where they are, when the event is, and padding that changes nothing."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from configs.policy import GroundingConfig
from vla_policy.grounding.boxes import STEP_SCALE, iou_and_giou, location_target
from vla_policy.grounding.decoder import (
    EventLogits,
    EventPredictor,
    GroundingOutput,
)
from vla_policy.grounding.interval import best_interval
from vla_policy.grounding.losses import (
    bounds,
    event_loss,
    grounding_loss,
    guided_attention_loss,
    interval_loss,
    published_guided_attention_loss,
    published_interval_loss,
)

B, T, D, C, POOLED = 2, 3, 16, 8, 32
GRID = (4, 6)
N = GRID[0] * GRID[1]
EVERYWHERE = torch.ones(B, T, dtype=torch.bool)


def output_of(boxes: Tensor, logits: Tensor) -> GroundingOutput:
    return GroundingOutput(
        tube_queries=torch.zeros(B, T, 1, D),
        tubes=boxes[:, :, None],
        tube_logits=logits[:, :, None],
        tube_centre=boxes[:, :, None, :2],
        grid=GRID,
        attention={},
    )


def loss_of(
    config: GroundingConfig, output: GroundingOutput, boxes: Tensor, visible: Tensor, event: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    return grounding_loss(config, output, boxes[:, :, None], visible[:, :, None], event)


class TestLoss:
    def setup_method(self) -> None:
        torch.manual_seed(0)
        self.boxes = torch.rand(B, T, 4) * 0.3 + 0.3
        self.predicted = (torch.rand(B, T, 4) * 0.3 + 0.3).requires_grad_()
        self.logits = torch.randn(B, T, N, requires_grad=True)
        self.visible = torch.tensor([[True, False, True], [False, True, True]])

    def loss(self, boxes: Tensor | None = None, visible: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return loss_of(
            GroundingConfig(),
            output_of(self.predicted, self.logits),
            self.boxes if boxes is None else boxes,
            self.visible if visible is None else visible,
            EVERYWHERE,
        )

    def test_it_is_the_mean_over_visible_frames_of_its_parts(self) -> None:
        location, drawn = [], []
        for b, t in self.visible.nonzero().tolist():
            target = location_target(self.boxes[b, t], GRID)
            location.append(-(target * self.logits[b, t].log_softmax(-1)).sum())
            _, giou = iou_and_giou(self.predicted[b, t], self.boxes[b, t])
            drawn.append(5 * (self.predicted[b, t] - self.boxes[b, t]).abs().mean() + 1 - giou)
        total, metrics = self.loss()
        expected = torch.stack(location).mean(), torch.stack(drawn).mean()
        torch.testing.assert_close(total, expected[0] + expected[1])
        torch.testing.assert_close((metrics["location"], metrics["box"]), tuple(v.detach() for v in expected))
        iou, _ = iou_and_giou(self.predicted[:, -1], self.boxes[:, -1])
        torch.testing.assert_close(metrics["iou"], iou.mean().detach())

    def test_weights_scale_the_parts(self) -> None:
        output = output_of(self.predicted, self.logits)
        config = GroundingConfig(location_weight=2.0, box_weight=0.5)
        total, metrics = loss_of(config, output, self.boxes, self.visible, EVERYWHERE)
        torch.testing.assert_close(total, 2 * metrics["location"] + 0.5 * metrics["box"])

    def test_invisible_frames_do_not_count(self) -> None:
        elsewhere = torch.where(self.visible[..., None], self.boxes, torch.rand(B, T, 4))
        torch.testing.assert_close(self.loss(elsewhere)[0], self.loss()[0])
        self.loss()[0].backward()
        assert self.predicted.grad is not None
        assert self.logits.grad is not None
        for gradient in (self.predicted.grad, self.logits.grad):
            assert torch.equal(gradient.abs().sum(-1) > 0, self.visible)

    def test_without_any_visible_frame_it_is_zero(self) -> None:
        total, metrics = self.loss(visible=torch.zeros_like(self.visible))
        assert total == 0
        assert metrics["iou"] == 0
        total.backward()
        assert self.logits.grad is not None
        assert (self.logits.grad == 0).all()

    def test_boxes_count_within_the_event_unless_all_visible_ones_are_wanted(self) -> None:
        event = torch.tensor([[True, True, False], [False, True, False]])
        output = output_of(self.predicted, self.logits)
        both = self.visible & event
        for scope, counted in (("event", both), ("visible", self.visible)):
            config = GroundingConfig(scope=scope)  # type: ignore[arg-type]
            got, _ = loss_of(config, output, self.boxes, self.visible, event)
            expected, _ = loss_of(GroundingConfig(), output, self.boxes, counted, EVERYWHERE)
            torch.testing.assert_close(got, expected)

    def test_visibility_is_learned_in_all_frames_of_the_event_and_outside_it(self) -> None:
        logits = torch.randn(B, T)
        output = replace(output_of(self.predicted, self.logits), tube_visible=logits[:, :, None])
        event = torch.zeros(B, T, dtype=torch.bool)
        config = GroundingConfig(visibility_weight=2.0)
        total, metrics = loss_of(config, output, self.boxes, self.visible, event)
        p = logits.sigmoid()
        expected = -torch.where(self.visible, p.log(), (1 - p).log()).mean()
        torch.testing.assert_close(metrics["visible"], expected)
        torch.testing.assert_close(total, 2 * expected)

    def test_the_parts_of_time_are_added_with_their_weights(self) -> None:
        event = torch.tensor([[True, True, False], [False, True, True]])
        predicted = EventLogits(**{name: torch.randn(B, T) for name in ("start", "end", "during")})
        maps = torch.randn(B, 2, T, T).softmax(-1)
        output = replace(output_of(self.predicted, self.logits), event=predicted, attention={"decoder_time_0": maps})
        plain, _ = loss_of(GroundingConfig(), output_of(self.predicted, self.logits), self.boxes, self.visible, event)
        config = GroundingConfig(interval_weight=2.0, attention_weight=3.0)
        total, metrics = loss_of(config, output, self.boxes, self.visible, event)
        assert set(metrics) == {"location", "box", "iou", "interval", "event", "guided"}
        torch.testing.assert_close(total, plain + 2 * (metrics["interval"] + metrics["event"]) + 3 * metrics["guided"])

    def test_perfect_boxes_leave_only_the_locations_entropy(self) -> None:
        target = location_target(self.boxes, GRID)
        output = output_of(self.boxes, target.clamp(min=1e-12).log())
        total, metrics = loss_of(GroundingConfig(), output, self.boxes, EVERYWHERE, EVERYWHERE)
        entropy = torch.special.entr(target).sum(-1).mean()
        torch.testing.assert_close(total, entropy, atol=1e-4, rtol=1e-4)
        assert metrics["iou"].item() == pytest.approx(1, abs=1e-5)


class TestTime:
    def test_start_and_end_are_compared_with_narrow_gaussians(self) -> None:
        """Summed term by term with `math`, for events that begin and end at the frames named."""
        frames, sigma = 5, 0.8
        event = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
        torch.manual_seed(0)
        predicted = EventLogits(**{name: torch.randn(3, frames) for name in ("start", "end", "during")})
        expected = []
        for row, (first, last) in enumerate([(1, 2), (0, 4)]):
            kl = 0.0
            for true, logits in ((first, predicted.start[row].tolist()), (last, predicted.end[row].tolist())):
                density = [math.exp(-((t - true) ** 2) / (2 * sigma**2)) for t in range(frames)]
                partition = sum(math.exp(x) for x in logits)
                for t in range(frames):
                    p, q = density[t] / sum(density), math.exp(logits[t]) / partition
                    kl += p * math.log(p / q)
            expected.append(kl)
        got = interval_loss(predicted, event, sigma)
        assert got.item() == pytest.approx(sum(expected) / 2, rel=1e-5)  # the third sample has no event

    def test_without_any_event_there_is_nothing_to_learn_about_its_bounds(self) -> None:
        predicted = EventLogits(**{name: torch.randn(B, T, requires_grad=True) for name in ("start", "end", "during")})
        loss = interval_loss(predicted, torch.zeros(B, T, dtype=torch.bool), 1.0)
        loss.backward()
        assert loss == 0
        assert predicted.start.grad is not None
        assert (predicted.start.grad == 0).all()

    def test_the_event_is_predicted_from_queries_and_the_boxs_steps_into_and_out_of_each_frame(self) -> None:
        torch.manual_seed(0)
        predictor = EventPredictor(8)
        queries, boxes = torch.randn(B, T, 8), torch.rand(B, T, 4, requires_grad=True)
        logits_of = predictor(queries, boxes)
        for t in range(T):
            into = boxes[:, t] - boxes[:, t - 1] if t > 0 else torch.zeros(B, 4)
            out_of = boxes[:, t + 1] - boxes[:, t] if t < T - 1 else torch.zeros(B, 4)
            seen = torch.cat([queries[:, t], STEP_SCALE * into, STEP_SCALE * out_of], dim=1)
            for layers, logits in (
                (predictor.start, logits_of.start),
                (predictor.end, logits_of.end),
                (predictor.during, logits_of.during),
            ):
                torch.testing.assert_close(logits[:, t], layers(seen)[:, 0])
        # Boxes have labels of their own.
        assert not torch.autograd.grad(logits_of.during.sum(), boxes, allow_unused=True)[0]

    def test_bounds(self) -> None:
        event = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).bool()
        first, last, there = bounds(event)
        assert there.tolist() == [True, True, True, False]
        assert list(zip(first[:3].tolist(), last[:3].tolist(), strict=True)) == [(1, 2), (0, 0), (3, 3)]

    def test_event_loss_is_binary_cross_entropy(self) -> None:
        torch.manual_seed(0)
        during, event = torch.randn(B, T), torch.tensor([[True, False, True], [False, False, True]])
        terms = [
            -math.log(p if e else 1 - p)
            for p, e in zip(during.sigmoid().flatten().tolist(), event.flatten().tolist(), strict=True)
        ]
        got = event_loss(during, event)
        assert got.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)

    def test_guided_attention_counts_what_leaves_the_event(self) -> None:
        torch.manual_seed(0)
        weights = torch.randn(B, 2, T, T).softmax(-1)
        event = torch.tensor([[True, True, False], [False, False, True]])
        terms = []
        for b in range(B):
            for q in range(T):
                for k in range(T):
                    if event[b, q] and not event[b, k]:
                        terms.append(-math.log(1 - weights[b, :, q, k].mean().item()))
        assert len(terms) == 4
        assert guided_attention_loss(weights, event).item() == pytest.approx(sum(terms) / 4, rel=1e-5)
        assert guided_attention_loss(weights, torch.ones_like(event)) == 0

    @pytest.mark.parametrize("frames", [2, 3, 9])
    def test_the_best_interval_is_the_best_of_all(self, frames: int) -> None:
        generator = torch.Generator().manual_seed(frames)
        start, end = (torch.rand(40, frames, generator=generator).softmax(-1) for _ in range(2))
        first, last, confidence = best_interval(start.log(), end.log() + 3)  # logits tell no more than differences
        for row in range(40):
            pairs = {(s, e): (start[row, s] * end[row, e]).item() for s in range(frames) for e in range(s + 1, frames)}
            best = max(pairs, key=pairs.__getitem__)
            assert (first[row].item(), last[row].item()) == best
            assert confidence[row].item() == pytest.approx(pairs[best])

    def test_an_end_never_comes_before_its_start(self) -> None:
        start, end = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
        first, last, confidence = best_interval(start.log(), end.log())
        assert first < last
        assert confidence == 0

    def test_confident_logits_leave_the_best_interval_to_be_found(self) -> None:
        """Products of probabilities in float32 are zero for almost all pairs here."""
        generator = torch.Generator().manual_seed(0)
        start, end = (100 * torch.randn(300, 20, generator=generator) for _ in range(2))
        first, last, _ = best_interval(start, end)
        exact = start.double().log_softmax(-1)[:, :, None] + end.double().log_softmax(-1)[:, None]
        later = torch.ones(20, 20, dtype=torch.bool).triu(1)
        best = exact.masked_fill(~later, -torch.inf).flatten(1).argmax(1)
        assert torch.equal(20 * first + last, best)

    def test_peaks_in_the_wrong_order_do_not_end_in_the_first_frames(self) -> None:
        """The best of those in the right order is the peak of the start with the end that comes next best after it."""
        start, end = torch.zeros(1, 8), torch.zeros(1, 8)
        start[0, 5], end[0, 2], end[0, 6] = 300.0, 150.0, 20.0
        assert tuple(int(x) for x in best_interval(start, end)[:2]) == (5, 6)

    def test_a_single_frame_is_its_own_interval(self) -> None:
        assert [x.tolist() for x in best_interval(torch.zeros(2, 1), torch.ones(2, 1))] == [[0, 0], [0, 0], [1, 1]]

    def test_the_published_divergence_term_by_term(self) -> None:
        frames, sigma, eps = 5, 0.8, 1e-6
        event = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
        torch.manual_seed(0)
        predicted = EventLogits(start=torch.randn(3, frames), end=torch.randn(3, frames))
        expected = []
        for row, (first, last) in enumerate([(1, 2), (0, 4)]):
            kl = 0.0
            for true, logits in ((first, predicted.start[row].tolist()), (last, predicted.end[row].tolist())):
                density = [math.exp(-((t - true) ** 2) / (2 * sigma**2)) + eps for t in range(frames)]
                partition = sum(math.exp(x) for x in logits)
                for t in range(frames):
                    p, q = math.exp(logits[t]) / partition, density[t] / sum(density)
                    kl += p * math.log((p + eps) / q)
            expected.append(kl / frames)
        got = published_interval_loss(predicted, event, sigma)
        assert got.item() == pytest.approx(sum(expected) / 2, rel=1e-5)

    def test_published_guided_attention_counts_what_queries_outside_the_event_attend_to(self) -> None:
        torch.manual_seed(0)
        weights = torch.randn(B, 2, T, T).softmax(-1)
        event = torch.tensor([[True, True, False], [False, False, True]])
        means = []
        for b in range(B):
            paid = [
                sum(-math.log(1 - weights[b, :, q, k].mean().item() + 1e-6) for k in range(T))
                for q in range(T)
                if not event[b, q]
            ]
            means.append(sum(paid) / len(paid))
        got = published_guided_attention_loss(weights, event)
        assert got.item() == pytest.approx(sum(means) / B, rel=1e-4)
        assert published_guided_attention_loss(weights, torch.ones_like(event)) == 0

    @pytest.mark.parametrize("guide", [guided_attention_loss, published_guided_attention_loss])
    def test_each_tube_is_guided(self, guide: Callable[..., Tensor]) -> None:
        torch.manual_seed(0)
        weights, event = torch.randn(B, 2, T, T).softmax(-1), torch.tensor([[True, True, False], [False, False, True]])
        doubled = weights.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) / 2  # of two tubes, t k in order
        expected = guide(doubled, event.repeat_interleave(2, dim=1))
        torch.testing.assert_close(guide(doubled, event), expected)

    @pytest.mark.parametrize("divergence", ["from_truth", "from_prediction"])
    @pytest.mark.parametrize("guided", ["inside", "outside"])
    def test_padding_changes_no_loss(self, divergence: str, guided: str) -> None:
        """But for the published divergence, whose truth and mean are over all frames."""
        torch.manual_seed(0)
        config = GroundingConfig(
            interval_weight=1.0,
            attention_weight=1.0,
            visibility_weight=1.0,
            divergence=divergence,
            guided=guided,  # type: ignore[arg-type]
        )
        event = torch.tensor([[False, True, True]] * B)
        visible, boxes = torch.rand(B, T) < 0.7, torch.rand(B, T, 4) * 0.3 + 0.3
        output = replace(
            output_of(torch.rand(B, T, 4) * 0.3 + 0.3, torch.randn(B, T, N)),
            tube_visible=torch.randn(B, T, 1),
            event=EventLogits(**{name: torch.randn(B, T) for name in ("start", "end", "during")}),
            attention={"decoder_time_0": torch.randn(B, 2, T, T).softmax(-1)},
        )
        _, before = loss_of(config, output, boxes, visible, event)

        def longer(x: Tensor) -> Tensor:
            return torch.cat([x, x.flip(1)], dim=1)

        assert output.event is not None
        assert output.tube_logits is not None
        assert output.tube_visible is not None
        maps = torch.zeros(B, 2, 2 * T, 2 * T)
        maps[..., :T, :T] = output.attention["decoder_time_0"]
        padded = replace(
            output,
            tubes=longer(output.tubes),
            tube_logits=longer(output.tube_logits),
            tube_visible=longer(output.tube_visible),
            event=EventLogits(**{k: longer(v) for k, v in vars(output.event).items()}),
            attention={"decoder_time_0": maps},
        )
        frames = torch.arange(2 * T).expand(B, -1) < T
        labels = [longer(x)[:, :, None] for x in (boxes, visible)]
        _, after = grounding_loss(config, padded, *labels, longer(event), frames)
        for name in set(before) - {"iou", *(("interval",) if divergence == "from_prediction" else ())}:
            torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-5)

    def test_l1_is_a_mean_or_a_sum(self) -> None:
        boxes = torch.rand(B, T, 4) * 0.3 + 0.3
        output = output_of(torch.rand(B, T, 4) * 0.3 + 0.3, torch.zeros(B, T, N))
        mean, total = (
            loss_of(GroundingConfig(giou_weight=0.0, l1=kind), output, boxes, EVERYWHERE, EVERYWHERE)[1]["box"]  # type: ignore[arg-type]
            for kind in ("mean", "sum")
        )
        torch.testing.assert_close(total, 4 * mean)
