"""What prompts begin with is read once: a system text, a list of queues, definitions of tools.

    prefix_cache = PrefixCache(pad_token_id)
    tokens = model.generate(**prefix_cache.inputs(model, prompts), max_new_tokens=12)

A causal model reads the first tokens of a prompt the same way whatever follows. What it makes of
them, its key-value cache, is kept from one batch to the next, so that each prompt costs its own
part alone. Answers are the same but for the rounding of float arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Tokens: TypeAlias = Sequence[int]
LEAST = 16  # tokens that are worth keeping
_MOST = 1_024  # tokens that are kept
_ADAPTERS = 4  # whose beginnings are kept
_BY_LENGTH = ("dynamic", "longrope")  # ways to place tokens that depend on how many there are


@dataclass(frozen=True, slots=True)
class Prefix:
    """How prompts begin, as a model has read it.

    Attributes:
        tokens: The beginning.
        cache: Keys and values of one row.
    """

    tokens: Tokens = ()
    cache: Any = None

    def for_rows(self, length: int, rows: int) -> Any:
        """Return a cache of the first tokens for so many rows; gradients pass through."""
        from transformers import DynamicCache

        found = DynamicCache()
        for place, layer in enumerate(self.cache.layers):
            keys, values = (
                part[:, :, :length].expand(rows, -1, -1, -1) for part in (layer.keys, layer.values)
            )
            found.update(keys, values, place)
        return found


def read(model: Any, tokens: Tokens, adapter: str | None = None) -> Prefix | None:
    """Have a model read a beginning; None where it keeps something else than keys and values.

    Args:
        model: A causal model of transformers.
        tokens: At least one.
        adapter: PEFT's name of whose weights read it; None for the model as it is.
    """
    import torch

    first = torch.tensor([list(tokens)], device=next(model.parameters()).device)
    options = {} if adapter is None else {"adapter_names": [adapter]}
    cache = model(input_ids=first, use_cache=True, logits_to_keep=1, **options).past_key_values
    return Prefix(tokens, cache) if is_plain(model, cache) else None


def is_plain(model: Any, cache: Any) -> bool:
    """Tell whether a cache holds every token's keys and values, whatever follows them.

    A window drops some, other kinds of models keep another state, and a few place tokens otherwise
    in a long text than in a short one.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    places = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    if not isinstance(cache, DynamicCache) or places.get("rope_type") in _BY_LENGTH:
        return False
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def shared(rows: Sequence[Tokens]) -> int:
    """Return with how many of the same tokens all rows begin.

    Example:
        >>> shared([[1, 2, 3], [1, 2, 4, 5]]), shared([[1, 2]]), shared([])
        (2, 2, 0)
    """
    for place, tokens in enumerate(zip(*rows, strict=False)):
        if len(set(tokens)) > 1:
            return place
    return min(map(len, rows), default=0)


@dataclass(slots=True)
class PrefixCache:
    """See the module's text. One thread at a time.

    Attributes:
        pad: Token that fills up shorter prompts.
    """

    pad: int
    _begun: dict[str | None, Prefix] = field(default_factory=dict)
    _last: dict[str | None, Tokens] = field(default_factory=dict)
    _can: bool = True

    def inputs(
        self, model: Any, prompts: Sequence[Tokens], *, adapters: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Return arguments of `generate` for prompts: tokens, what of them counts, what is read.

        Args:
            model: The model that is asked, not in training.
            prompts: Their tokens, each at least one.
            adapters: PEFT's name of whose weights answer, by prompt; several read each prompt anew.
        """
        import torch

        with torch.inference_mode():
            several = len(set(adapters or ())) > 1
            adapter = adapters[0] if adapters else None
            begun, length = (None, 0) if several else self._known(model, prompts, adapter)
            device = next(model.parameters()).device
            # what all begin with comes first, so that padding lies between it and the rest
            tokens, counts = padded([prompt[length:] for prompt in prompts], pad=self.pad)
            first = torch.tensor([list(prompts[0][:length])] * len(prompts), dtype=torch.long)
            found: dict[str, Any] = {
                "input_ids": torch.cat([first, tokens], dim=1).to(device),
                "attention_mask": torch.cat([torch.ones_like(first), counts], dim=1).to(device),
            }
            if begun is not None:
                found["past_key_values"] = begun.for_rows(length, len(prompts))
        return found

    def _known(
        self, model: Any, prompts: Sequence[Tokens], adapter: str | None
    ) -> tuple[Prefix | None, int]:
        """Return what is read of all prompts, and how many tokens of it they begin with."""
        # the last token of a prompt is left over: it tells the first one of an answer
        open_ = [prompt[:-1] for prompt in prompts]
        begun = self._begun.get(adapter)
        length = 0 if begun is None else shared([begun.tokens, *open_])
        compared = [*open_, *([self._last[adapter]] if adapter in self._last else [])]
        likely = open_[0][: min(shared(compared), _MOST)]
        self._last[adapter] = open_[0]
        if self._can and len(compared) > 1 and len(likely) - length >= LEAST:
            begun, length = read(model, likely, adapter), len(likely)
            self._keep(adapter, begun)
        return (None, 0) if begun is None or length < LEAST else (begun, length)

    def _keep(self, adapter: str | None, begun: Prefix | None) -> None:
        self._begun.pop(adapter, None)
        if begun is None:
            self._can = False
            return
        self._begun[adapter] = begun
        for oldest in list(self._begun)[:-_ADAPTERS]:
            del self._begun[oldest], self._last[oldest]


def padded(rows: Sequence[Tokens], *, pad: int = 0, left: bool = True) -> tuple[Any, Any]:
    """Return rows of tokens as one tensor of shape (n, longest), with what of it counts."""
    import torch

    longest = max(map(len, rows))
    tokens = torch.full((len(rows), longest), pad, dtype=torch.long)
    counts = torch.zeros_like(tokens)
    for row, found in enumerate(rows):
        span = slice(longest - len(found), longest) if left else slice(0, len(found))
        tokens[row, span], counts[row, span] = torch.tensor(list(found), dtype=torch.long), 1
    return tokens, counts
