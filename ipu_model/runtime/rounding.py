"""Types on the device, and rounding to half, to nearest and stochastically."""

from __future__ import annotations

import torch

_NARROW = {torch.int64: torch.int32, torch.float64: torch.float32, torch.bfloat16: torch.float32}
_DROPPED_BITS = 13  # mantissa bits that float32 has and half (IEEE 754 binary16) has not
_SMALLEST_NORMAL = 2.0**-14  # of half


def narrow_dtype(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the type it has on the device: float64 and bfloat16 become float32.

    int64 stays as it is inside, since torch's index arguments demand it; it reports int32 there and comes back as int32.
    """
    return tensor.to(torch.float32) if tensor.dtype in (torch.float64, torch.bfloat16) else tensor


def device_dtype(tensor: torch.Tensor) -> torch.Tensor:
    """A result in the type in which the device returns it: int64 as int32, float64 as float32."""
    return tensor.to(_NARROW[tensor.dtype]) if tensor.dtype in _NARROW else tensor


def round_to_half(value: torch.Tensor) -> torch.Tensor:
    """The values rounded to the nearest half, as float32."""
    return value.to(torch.float16).to(torch.float32)


def stochastic_round_to_half_in_float32(value: torch.Tensor) -> torch.Tensor:
    """The values rounded stochastically to half, as float32."""
    return stochastic_round_to_half(value.to(torch.float32)).to(torch.float32)


def store(value: torch.Tensor, dtype: torch.dtype, is_stochastic: bool = False) -> torch.Tensor:
    """A float32 result in the type in which the device stores it; half rounds to nearest, or stochastically."""
    if dtype == torch.float16 and is_stochastic:
        return stochastic_round_to_half(value)
    return value.to(dtype)


def stochastic_round_to_half(value: torch.Tensor) -> torch.Tensor:
    """Round float32 to one of the two nearest half numbers, up with probability equal to the distance from the lower one.

    Half keeps 10 of float32's 23 mantissa bits: a random number is added to the other 13, which are then cut off. Below 2^-14 half
    numbers are 2^-24 apart. Values that are half numbers, infinite or NaN stay as they are.
    """
    random = torch.rand_like(value)
    bits = (value.view(torch.int32) + (random * 2**_DROPPED_BITS).to(torch.int32)).bitwise_and_(-(2**_DROPPED_BITS))
    normal = bits.view(torch.float32)
    subnormal = torch.floor(value * 2.0**24 + random) * 2.0**-24
    rounded = torch.where(value.abs() < _SMALLEST_NORMAL, subnormal, normal)
    return torch.where(torch.isfinite(value), rounded, value).to(torch.float16)
