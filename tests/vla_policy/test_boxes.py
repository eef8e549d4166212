import pytest
import torch
from torch import Tensor

from vla_policy.grounding.boxes import iou_and_giou, location_target, to_corners
from vla_policy.layers import cell_centres

GRID = (4, 6)
N = GRID[0] * GRID[1]


def box(x0: float, y0: float, x1: float, y1: float) -> Tensor:
    return torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dtype=torch.float64)


class TestBoxes:
    @pytest.mark.parametrize(
        ("a", "b", "iou", "giou"),
        [
            (box(0, 0, 0.4, 0.4), box(0, 0, 0.4, 0.4), 1, 1),
            # Halves that touch: nothing shared, and the hull holds nothing else.
            (box(0, 0, 0.2, 0.4), box(0.2, 0, 0.4, 0.4), 0, 0),
            # One quarter of the other.
            (box(0, 0, 0.4, 0.4), box(0, 0, 0.2, 0.2), 1 / 4, 1 / 4),
            # 0.1 × 0.1 shared of 2 × 0.04 - 0.01; the hull is 0.3 × 0.3.
            (box(0, 0, 0.2, 0.2), box(0.1, 0.1, 0.3, 0.3), 1 / 7, 1 / 7 - 2 / 9),
            # Unit squares in opposite corners of a 3 × 3 hull: minus seven ninths.
            (box(0, 0, 0.1, 0.1), box(0.2, 0.2, 0.3, 0.3), 0, -7 / 9),
        ],
    )
    def test_worked_cases(self, a: Tensor, b: Tensor, iou: float, giou: float) -> None:
        for pair in ((a, b), (b, a)):
            got_iou, got_giou = iou_and_giou(*pair)
            assert got_iou.item() == pytest.approx(iou)
            assert got_giou.item() == pytest.approx(giou)

    def test_counting_pixels_gives_the_same(self) -> None:
        side, generator = 40, torch.Generator().manual_seed(0)
        corners = torch.randint(0, side, (200, 2, 2, 2), generator=generator)
        low, high = corners.min(2).values, corners.max(2).values + 1
        cells = torch.arange(side)
        inside = (cells >= low[..., None]) & (cells < high[..., None])  # (pair, box, axis, cell)
        painted = inside[:, :, 1, :, None] & inside[:, :, 0, None, :]
        shared = (painted[:, 0] & painted[:, 1]).sum((1, 2))
        union = (painted[:, 0] | painted[:, 1]).sum((1, 2))
        hull = (high.max(1).values - low.min(1).values).prod(-1)
        boxes = torch.cat([(low + high) / 2, high - low], dim=-1).double() / side
        iou, giou = iou_and_giou(boxes[:, 0], boxes[:, 1])
        torch.testing.assert_close(iou, shared.double() / union)
        torch.testing.assert_close(giou, shared.double() / union - (hull - union) / hull.double())

    def test_empty_boxes_stay_finite(self) -> None:
        point = torch.tensor([0.5, 0.5, 0.0, 0.0])
        assert all(torch.isfinite(v) for v in iou_and_giou(point, point))

    def test_corners(self) -> None:
        torch.testing.assert_close(to_corners(torch.tensor([0.5, 0.4, 0.2, 0.4])), torch.tensor([0.4, 0.2, 0.6, 0.6]))

    def test_location_target_is_a_distribution_around_the_centre(self) -> None:
        h, w = GRID
        boxes = torch.rand(50, 3, 4)
        low, high = torch.tensor([0.5 / w, 0.5 / h]), torch.tensor([1 - 0.5 / w, 1 - 0.5 / h])
        target = location_target(boxes, GRID)
        assert target.shape == (50, 3, N)
        assert (target >= 0).all()
        assert ((target > 0).sum(-1) <= 4).all()
        torch.testing.assert_close(target.sum(-1), torch.ones(50, 3))
        # A centre beyond the outermost cells' centres counts as on them.
        torch.testing.assert_close(target @ cell_centres(GRID), boxes[..., :2].clamp(low, high))
