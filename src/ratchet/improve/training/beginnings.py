"""Examples that begin alike: what all of a batch begin with goes through the model once.

Prompts of one application begin with the same system text, often longer than all that follows. A
causal model reads it the same way in each example; its keys and values are computed once, and the
gradients of all examples add up in them. Losses and gradients are the same but for rounding.
"""

from __future__ import annotations

from typing import Any

from ratchet.models.prefix_cache import LEAST, Prefix, is_plain


def last_states(model: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what the last layer makes of each token, of shape (rows, tokens, width).

    Args:
        model: A causal model of transformers.
        args: Of its body.
        kwargs: Of its body. Examples share a beginning where there are `input_ids` alone, with
            padding on the right.
    """
    import torch

    body = model.base_model
    tokens: Any = kwargs.get("input_ids")
    given = {name for name, value in kwargs.items() if value is not None and value is not False}
    length = _alike(tokens) if given == {"input_ids"} and not args and _can_share(model) else 0
    if length < LEAST:
        return body(*args, **kwargs).last_hidden_state
    first = body(input_ids=tokens[:1, :length], use_cache=True)
    if not is_plain(model, first.past_key_values):
        return body(*args, **kwargs).last_hidden_state
    rows = len(tokens)
    cache = Prefix(cache=first.past_key_values).for_rows(length, rows)
    rest = body(input_ids=tokens[:, length:], past_key_values=cache, use_cache=True)
    begun = first.last_hidden_state.expand(rows, -1, -1)
    return torch.cat([begun, rest.last_hidden_state], dim=1)


def _alike(tokens: Any) -> int:
    """Return with how many of the same tokens all rows begin, without the last; 0 of one row."""
    if len(tokens) == 1:
        return 0
    same = (tokens[:, :-1] == tokens[:1, :-1]).all(dim=0)
    return int(same.long().cumprod(dim=0).sum())


def _can_share(model: Any) -> bool:
    """Tell whether each row is computed alike: dropout would draw for each of its own."""
    import torch

    drawn = getattr(model.config.get_text_config(), "attention_dropout", 0.0) or any(
        module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)
    )
    return not (model.training and drawn) and not any(
        getattr(module, "gradient_checkpointing", False) for module in model.modules()
    )
