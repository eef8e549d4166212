import math

import pytest
import torch
from torch import Tensor, nn

from vla_policy.layers import (
    Attention,
    FeedForward,
    SelfAttentionBlock,
    cell_centres,
    masked_mean,
    multi_layer,
    octaves,
    residual_layers,
    sinusoid,
)

B, D, M = 3, 12, 4
ORDERS = [(9, 4), (4, 9), (5, 5), (1, 7), (7, 1)]  # queries and keys: fewer keys, fewer queries, equal, a single one


def made(keys: int, *, key_width: int | None = None, queries: int = 5) -> tuple[Attention, Tensor, Tensor, Tensor]:
    torch.manual_seed(queries * 10 + keys)
    attention = Attention(D, M, key_width=key_width).double()
    mask = torch.rand(B, keys) < 0.6
    mask[:, 0] = True
    query, key = torch.randn(B, queries, D).double(), torch.randn(B, keys, key_width or D).double()
    return attention, query, key, mask


def reference(attention: Attention, key_width: int) -> nn.MultiheadAttention:
    """torch's own attention with the same weights."""
    same = nn.MultiheadAttention(D, M, kdim=key_width, vdim=key_width, batch_first=True).double()
    with torch.no_grad():
        if key_width == D:
            same.in_proj_weight.copy_(torch.cat([attention.q.weight, attention.k.weight, attention.v.weight]))
        else:
            same.q_proj_weight.copy_(attention.q.weight)
            same.k_proj_weight.copy_(attention.k.weight)
            same.v_proj_weight.copy_(attention.v.weight)
        same.in_proj_bias.copy_(torch.cat([attention.q.bias, torch.zeros(D), attention.v.bias]))
        same.out_proj.weight.copy_(attention.out.weight)
        same.out_proj.bias.copy_(attention.out.bias)
    return same


@pytest.mark.parametrize(("queries", "keys"), ORDERS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("key_width", [D, 6])
def test_attention_is_that_of_torch(queries: int, keys: int, masked: bool, key_width: int) -> None:
    attention, query, key, mask = made(keys, queries=queries, key_width=key_width)
    output, weights = attention(query, key, mask if masked else None)
    expected, expected_weights = reference(attention, key_width)(
        query, key, key, key_padding_mask=~mask if masked else None, average_attn_weights=False
    )
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(weights, expected_weights)


@pytest.mark.parametrize(("queries", "keys"), ORDERS)
def test_attention_takes_queries_and_gives_answers_of_other_widths(queries: int, keys: int) -> None:
    """In both orders of computing it, as torch's with the same matrices applied outside."""
    torch.manual_seed(0)
    attention = Attention(D, M, query_width=6, key_width=5, out_width=3).double()
    query, key = torch.randn(B, queries, 6).double(), torch.randn(B, keys, 5).double()
    mask = torch.rand(B, keys) < 0.6
    mask[:, 0] = True
    output, weights = attention(query, key, mask)
    q, k, v = (
        x.unflatten(-1, (M, -1)).transpose(1, 2) for x in (attention.q(query), attention.k(key), attention.v(key))
    )
    scores = (q @ k.mT * (D // M) ** -0.5).masked_fill(~mask[:, None, None], -torch.inf)
    torch.testing.assert_close(weights, scores.softmax(-1))
    torch.testing.assert_close(output, attention.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))


@pytest.mark.parametrize(("queries", "keys"), ORDERS)
def test_attention_is_the_equation(queries: int, keys: int) -> None:
    attention, query, key, mask = made(keys, queries=queries)

    def heads(x: Tensor) -> Tensor:
        return x.reshape(B, -1, M, D // M).permute(0, 2, 1, 3)

    q, k, v = heads(attention.q(query)), heads(attention.k(key)), heads(attention.v(key))
    scores = torch.einsum("bmqe,bmke->bmqk", q, k) / math.sqrt(D // M)
    weights = scores.masked_fill(~mask[:, None, None], -math.inf).softmax(-1)
    output = attention.out(torch.einsum("bmqk,bmke->bqme", weights, v).reshape(B, queries, D))
    got, got_weights = attention(query, key, mask)
    torch.testing.assert_close(got, output)
    torch.testing.assert_close(got_weights, weights)


@pytest.mark.parametrize(("queries", "keys"), ORDERS)
def test_both_orders_of_computation_agree_in_values_and_gradients(queries: int, keys: int) -> None:
    attention, query, key, mask = made(keys, queries=queries)
    found = []
    for order in (attention._few_keys, attention._few_queries):
        inputs = [query.clone().requires_grad_(), key.clone().requires_grad_()]
        output, weights = order(*inputs, inputs[1], mask)
        wanted = inputs + list(attention.parameters())
        found.append([output, weights, *torch.autograd.grad((output * weights.sum()).sin().sum(), wanted)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("queries", "keys"), ORDERS)
def test_masked_keys_weigh_nothing_and_change_nothing(queries: int, keys: int) -> None:
    attention, query, key, mask = made(keys, queries=queries)
    before, weights = attention(query, key, mask)
    assert (weights.transpose(2, 3)[~mask[:, None].expand(B, M, keys)] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, M, queries).double())
    after, _ = attention(query, torch.where(mask[..., None], key, 100.0), mask)
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize(("queries", "keys"), [(9, 4), (4, 9)])
def test_attention_with_nothing_to_look_at_stays_finite(queries: int, keys: int) -> None:
    attention, query, key, mask = made(keys, queries=queries)
    output, _ = attention(query, key, torch.zeros_like(mask))
    assert torch.isfinite(output).all()


@pytest.mark.parametrize(("queries", "keys"), [(9, 4), (4, 9)])
def test_attention_under_bfloat16_autocast_stays_near(queries: int, keys: int) -> None:
    attention, query, key, mask = made(keys, queries=queries)
    attention, query, key = attention.float(), query.float(), key.float()
    exact, _ = attention(query, key, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = attention(query, key, mask)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)


def test_width_must_divide_into_heads() -> None:
    with pytest.raises(ValueError, match="width 10 must be a multiple of attention_heads 4"):
        Attention(10, 4)


def test_self_attention_block_is_its_equation() -> None:
    torch.manual_seed(0)
    block, x, mask = SelfAttentionBlock(D, M).double(), torch.randn(B, 6, D).double(), torch.rand(B, 6) < 0.7
    mask[:, 0] = True
    normed = block.norm_attention(x)
    middle = x + block.attention(normed, normed, mask)[0]
    output, weights = block(x, mask)
    torch.testing.assert_close(output, middle + block.feed(block.norm_feed(middle)))
    assert weights.shape == (B, M, 6, 6)


def test_feed_forward_is_two_layers_with_a_relu() -> None:
    feed, x = FeedForward(D, 1.5), torch.randn(4, D)
    assert feed[0].out_features == 18
    torch.testing.assert_close(feed(x), feed[2](feed[0](x).clamp(min=0)))


def test_octaves_are_sines_and_cosines_of_doubled_values() -> None:
    x = torch.tensor([[0.3, -2.0], [1.0, 0.0]])
    expected = [x.sin(), (2 * x).sin(), (4 * x).sin(), x.cos(), (2 * x).cos(), (4 * x).cos()]
    torch.testing.assert_close(octaves(x, 3), torch.cat(expected, dim=-1))


def test_residual_layers_are_what_their_equation_says() -> None:
    torch.manual_seed(0)
    net, x = residual_layers(3, D, 5, blocks=2), torch.randn(4, 3)
    assert len(net) == 5
    inside = net[0](x)
    for block in (net[1], net[2]):
        inside = inside + block.feed[2](block.feed[0](block.norm(inside)).clamp(min=0))
    torch.testing.assert_close(net(x), net[4](net[3](inside)))
    assert net(x).shape == (4, 5)


def test_sinusoid_is_the_published_one() -> None:
    width, positions = 8, torch.tensor([[0.0, 1.0], [2.5, -3.0]])
    encoded = sinusoid(positions, width)
    assert encoded.shape == (2, 2, width)
    for place, position in ((encoded[0, 0], 0.0), (encoded[1, 0], 2.5), (encoded[1, 1], -3.0)):
        for i in range(4):
            angle = position / 10000 ** (i / 3)
            assert place[i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert place[4 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_masked_mean_is_the_mean_of_what_is_left() -> None:
    x, mask = torch.randn(3, 5, 2), torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]]).bool()
    mean = masked_mean(x, mask)
    torch.testing.assert_close(mean[0], x[0, :2].mean(0))
    torch.testing.assert_close(mean[1], x[1, [0, 2, 4]].mean(0))
    assert (mean[2] == 0).all()


def test_cell_centres_run_row_by_row() -> None:
    expected = [[1 / 6, 0.25], [0.5, 0.25], [5 / 6, 0.25], [1 / 6, 0.75], [0.5, 0.75], [5 / 6, 0.75]]
    torch.testing.assert_close(cell_centres((2, 3)), torch.tensor(expected))


def test_multi_layer_has_relus_between_but_none_at_the_end() -> None:
    layers, x = multi_layer([4, 8, 6, 2]), torch.randn(5, 4)
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(4, 8), (8, 6), (6, 2)]
    expected = linear[2](linear[1](linear[0](x).clamp(min=0)).clamp(min=0))
    torch.testing.assert_close(layers(x), expected)
