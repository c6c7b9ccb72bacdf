"""Attention in training without the masks that keep torch from its flash kernels.

- Padding is on the right, where a causal model's real tokens never look, and it is not scored: the
  mask that hides it changes nothing, so it is left out (`skip_padding_mask`).
- Packed examples must not see each other. Instead of a mask over the whole sequence, whose cost
  grows with its square, each example is attended to by itself (`attend_apart`): by torch's kernel
  for sequences of different lengths on a GPU, one after the other elsewhere.
"""

from __future__ import annotations

import inspect
import logging
import types
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

PACKED = "ratchet_packed"
_NOT_PLAIN = (
    "sliding_window",
    "attention_chunk_size",
    "attn_logit_softcapping",
    "attention_dropout",
)
_CLOSE = 2e-2  # between two orders of adding up in bfloat16, of values around 1


def skip_padding_mask(model: Any) -> bool:
    """Have scored forward passes leave out a mask that hides padding on the right alone.

    A model that routes tokens to experts keeps it: its balancing loss counts the real tokens.

    Args:
        model: The base model inside an adapter, after TRL gave it its fused head.

    Returns:
        Whether the model was changed.
    """
    if getattr(model.config.get_text_config(), "output_router_logits", False):
        return False
    inner = model.forward

    def forward(
        _self: Any, *args: Any, fused_lm_head: bool = False, attention_mask: Any = None, **more: Any
    ) -> Any:
        """Attend without the mask where it hides nothing that is looked at."""
        if fused_lm_head:
            more["fused_lm_head"] = True
            if attention_mask is not None and _hides_the_right_alone(attention_mask):
                attention_mask = None
        return inner(*args, attention_mask=attention_mask, **more)

    # `generate` reads the arguments off the signature, which `inner` carries on from the model
    forward.__wrapped__ = inner  # type: ignore[attr-defined]
    model.forward = types.MethodType(forward, model)
    return True


def _hides_the_right_alone(mask: Any) -> bool:
    """Tell whether each row's real tokens come first; shape (rows, tokens)."""
    return mask.ndim == 2 and bool((mask.long().diff(dim=1) <= 0).all() & mask[:, 0].all())


def attend_apart(model: Any) -> bool:
    """Have packed examples attended to one by one.

    A model whose attention is not plain (a sliding window, capped scores, dropout) keeps the mask
    that transformers makes for packed examples.

    Args:
        model: The base model.

    Returns:
        Whether the model was changed.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    special = [name for name in _NOT_PLAIN if getattr(config, name, None)]
    if special or kinds != {"full_attention"} or config._attn_implementation != "sdpa":
        return False
    _register()
    model.set_attn_implementation(PACKED)
    return True


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _mask)


def _mask(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
    """Make no mask for packed examples; where there is padding, as in generation, sdpa's."""
    from transformers.masking_utils import sdpa_mask

    if attention_mask is None:
        return None
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def packed_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """Attend causally within each packed example; the signature is transformers'.

    Args:
        module: The layer.
        query: Shape (1, heads, tokens, width); `key` and `value` may have fewer heads.
        key: See `query`.
        value: See `query`.
        attention_mask: None for packed examples.
        dropout: 0 for packed examples.
        scaling: Of the scores; None means 1 / sqrt(width).
        kwargs: `cu_seq_lens_q` has the places where examples begin, and the end; without it this is
            torch's ordinary attention.

    Returns:
        Shape (1, tokens, heads, width), and None for the weights.
    """
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is None or attention_mask is not None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Any, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return found
    query, key, value = _narrow(query, key, value)
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # (tokens, heads, width)
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    if q.is_cuda and q.element_size() == 2 and _flash_works(q.shape[-1]):
        attended = _together(q, k, v, bounds.int(), int(kwargs["max_length_q"]), scale)
    else:
        attended = _one_by_one(q, k, v, bounds, scale)
    return attended[None], None


def _narrow(*parts: Any) -> tuple[Any, ...]:
    """Take over the precision of autocast, as torch's own attention does."""
    import torch

    kind = parts[0].device.type
    if not torch.is_autocast_enabled(kind):
        return parts
    return tuple(part.to(torch.get_autocast_dtype(kind)) for part in parts)


def _together(q: Any, k: Any, v: Any, bounds: Any, longest: int, scale: float) -> Any:
    """Attend to all examples in one call of torch's kernel for different lengths."""
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {"scale": scale} | _causal(varlen_attn)
    if q.shape[1] != k.shape[1]:
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
    return varlen_attn(
        q.contiguous(), k.contiguous(), v.contiguous(), bounds, bounds, longest, longest, **options
    )


@cache
def _causal(varlen_attn: Any) -> dict[str, Any]:
    """Return how this version of torch is told that a token sees those before it alone."""
    known = inspect.signature(varlen_attn).parameters
    return {"is_causal": True} if "is_causal" in known else {"window_size": (-1, 0)}


def _one_by_one(q: Any, k: Any, v: Any, bounds: Any, scale: float) -> Any:
    """Attend to the examples in turn."""
    import torch

    if q.shape[1] != k.shape[1]:
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
    sizes = bounds.diff().tolist()
    split = [part.transpose(0, 1)[None].split(sizes, dim=2) for part in (q, k, v)]
    attended = [
        torch.nn.functional.scaled_dot_product_attention(
            one, two, three, is_causal=True, scale=scale
        )
        for one, two, three in zip(*split, strict=True)
    ]
    return torch.cat(attended, dim=2)[0].transpose(0, 1)


@cache
def _flash_works(width: int) -> bool:
    """Try torch's kernel once, values and gradients, against one example after the other."""
    import torch

    generator = torch.Generator("cuda").manual_seed(0)
    bounds = torch.tensor([0, 33, 96], dtype=torch.int32, device="cuda")
    q, k, v, pull = (
        torch.randn(96, 4, width, device="cuda", dtype=torch.bfloat16, generator=generator)
        for _ in range(4)
    )
    try:
        found, expected = (
            _value_and_gradients(attend, (q, k, v), pull)
            for attend in (
                lambda a, b, c: _together(a, b, c, bounds, 63, width**-0.5),
                lambda a, b, c: _one_by_one(a, b, c, bounds, width**-0.5),
            )
        )
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two, atol=_CLOSE, rtol=_CLOSE)
    except Exception as error:  # whatever it is, attention one by one does without the kernel
        logger.warning("packed examples are attended to one by one, more slowly: %s", error)
        return False
    return True


def _value_and_gradients(attend: Any, parts: tuple[Any, ...], pull: Any) -> list[Any]:
    import torch

    with torch.enable_grad():
        leaves = [part.detach().clone().requires_grad_() for part in parts]
        value = attend(*leaves)
        return [value.detach(), *torch.autograd.grad(value, leaves, pull)]
