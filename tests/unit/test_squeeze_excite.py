"""Where Proxy Norm's scale acts: folded into the gate and dropped at the top, or everywhere."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from config import load_preset
from models.factory import build_model
from models.freezing import train_only
from models.proxy_norm import ProxyNormAct, gaussian_quantiles, proxy_statistics
from models.squeeze_excite import ScaledSqueezeExcite, norm_before_gate


def build(scale="folded", **fields):
    torch.manual_seed(0)
    network = build_model(load_preset("digits", {"proxy_norm_scale": scale, "drop_path": 0.0, **fields}).model, 10)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ProxyNormAct):
                for values in module.parameters():
                    values.add_(0.2 * torch.randn(values.shape, generator=generator))
    return network


def proxy(norm):
    """mu and rho, written down: of swish over w ((1 + w') g + b') + b."""
    scale, shift = norm.weight * (1 + norm.proxy_weight), norm.weight * norm.proxy_bias + norm.bias
    mean, inverse, _ = proxy_statistics(scale, shift, gaussian_quantiles(), 0.03)
    return mean.view(-1, 1, 1), inverse.view(-1, 1, 1)


def activated(norm, x):
    return F.silu(F.group_norm(x, norm.num_groups, norm.weight, norm.bias, 1e-3))


def block_by_hand(block, x, is_folded):
    """The published order: subtract the mean, squeeze, gate, and only then (in the gate) the scale."""
    mean, inverse = proxy(block.bn1)
    expanded = (activated(block.bn1, block.conv_pw(x)) - mean) * inverse
    mean, inverse = proxy(block.bn2)
    centred = activated(block.bn2, block.conv_dw(expanded)) - mean
    squeezed = centred if is_folded else centred * inverse
    gate = torch.sigmoid(block.se.conv_expand(F.silu(block.se.conv_reduce(squeezed.mean((2, 3), keepdim=True)))))
    projected = F.group_norm(block.conv_pwl(centred * inverse * gate), 1, block.bn3.weight, None, 1e-3)
    return projected + x


@pytest.mark.parametrize("scale", ["folded", "everywhere"])
def test_a_block_and_its_gradients_are_the_equations(scale, generator):
    block = build(scale).get_submodule("blocks.1.1")
    x = torch.randn(2, 16, 6, 6, generator=generator)
    target = torch.randn(2, 16, 6, 6, generator=generator)
    ours, theirs = block(x), block_by_hand(block, x, scale == "folded")
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    parameters = list(block.parameters())
    expected = torch.autograd.grad((theirs * target).sum(), parameters)
    for mine, other in zip(torch.autograd.grad((ours * target).sum(), parameters), expected):
        torch.testing.assert_close(mine, other, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("scale", ["folded", "everywhere"])
def test_the_top_drops_the_scale_or_applies_it(scale, generator):
    network = build(scale).eval()
    images = torch.randn(2, 3, 16, 16, generator=generator)
    mean, inverse = proxy(network.bn2)
    centred = activated(network.bn2, network.conv_head(network.blocks(network.bn1(network.conv_stem(images))))) - mean
    expected = centred if scale == "folded" else centred * inverse
    torch.testing.assert_close(network.forward_features(images), expected, atol=1e-5, rtol=1e-4)


def test_every_block_folds_and_only_there():
    network = build()
    blocks = [module for module in network.modules() if hasattr(module, "se")]
    assert len(blocks) == 16
    assert all(norm_before_gate(block).scale == "returned" and isinstance(block.se, ScaledSqueezeExcite) for block in blocks)
    others = {module.scale for name, module in network.named_modules() if isinstance(module, ProxyNormAct) and name != "bn2"}
    assert others == {"returned", "applied"} and network.bn2.scale == "dropped" and network.bn1.scale == "applied"
    everywhere = build("everywhere")
    assert {module.scale for module in everywhere.modules() if isinstance(module, ProxyNormAct)} == {"applied"}
    assert not any(isinstance(module, ScaledSqueezeExcite) for module in everywhere.modules())


def test_weights_have_the_same_names_and_shapes_in_both():
    one, other = build().state_dict(), build("everywhere").state_dict()
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in other.items()}


class Passes(TorchDispatchMode):
    """Counts operations that give a tensor of at least this many elements."""

    def __init__(self, elements):
        super().__init__()
        self.elements, self.count = elements, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        is_view = func.overloadpacket.__name__ in ("view", "_unsafe_view", "expand", "detach", "t", "transpose", "alias", "unsqueeze")
        if isinstance(result, torch.Tensor) and result.numel() >= self.elements and not is_view:
            self.count += 1
        return result


def test_folding_takes_fewer_passes_over_the_activations():
    """Of the block after its spatial convolution: without the product with rho forward, and without its two passes backward."""

    def passes(scale):
        block = build(scale).get_submodule("blocks.1.1")
        x = torch.randn(2, 64, 16, 16, requires_grad=True)
        with Passes(x.numel()) as forward:
            out = block.se(block.bn2(x))
        gradient = torch.ones_like(out)
        with Passes(x.numel()) as backward:
            torch.autograd.grad(out, [x, *block.bn2.parameters()], gradient)
        return forward.count, backward.count

    folded, everywhere = passes("folded"), passes("everywhere")
    assert folded[0] == everywhere[0] - 1  # mul_ by rho
    assert folded[1] == everywhere[1] - 2  # grad * out, and mul_ by rho


@pytest.mark.skipif(torch.__version__.startswith("2.0."), reason="torch 2.0 has no group norm of half tensors on the CPU")
def test_half_is_close_to_float32(generator):
    """A block's gate and norm on half input and half weights, against the same weights in float32."""
    half = copy.deepcopy(build().get_submodule("blocks.1.1"))
    x = torch.randn(2, 64, 6, 6, generator=generator).half()
    half.bn2.half()
    wide = copy.deepcopy(half)
    wide.bn2.float()
    centred, scale = half.bn2(x)
    assert centred.dtype == torch.float16 and scale.dtype == torch.float32
    expected, expected_scale = wide.bn2(x.float())
    torch.testing.assert_close(scale, expected_scale)
    torch.testing.assert_close(centred.float(), expected, atol=4e-3, rtol=0)  # roundings of 2^-11 of values up to 4
    gated = half.se.half().float()((centred.float(), scale))
    torch.testing.assert_close(gated, wide.se((expected, expected_scale)), atol=2e-2, rtol=0)


def test_frozen_layers_keep_their_scale_and_get_no_gradients(generator):
    network = build()
    train_only(network, ("blocks.6", "conv_head", "bn2", "classifier"))
    network(torch.randn(2, 3, 16, 16, generator=generator)).square().sum().backward()
    trained = {name for name, values in network.named_parameters() if values.grad is not None}
    assert trained == {name for name, _ in network.named_parameters() if name.startswith(("blocks.6", "conv_head", "bn2", "classifier"))}
    assert all(torch.isfinite(values.grad).all() for values in network.parameters() if values.grad is not None)


def test_a_copy_is_independent(generator):
    network = build().eval()
    images = torch.randn(1, 3, 16, 16, generator=generator)
    clone = copy.deepcopy(network)
    before = network(images)
    assert torch.equal(clone(images), before)
    with torch.no_grad():
        for module in clone.modules():
            if isinstance(module, ProxyNormAct):
                module.weight.mul_(2)
    assert torch.equal(network(images), before) and not torch.equal(clone(images), before)
