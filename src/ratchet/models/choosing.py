"""How likely each of a few answers is: what all prompts begin with is read once, each prompt once.

The same numbers as those of `HuggingFaceModel.log_likelihoods`, which reads the whole prompt anew
for each answer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[int]
_BATCH = 16


def score_answers(
    model: Any, prompts: Sequence[Tokens], answers: Sequence[Tokens]
) -> NDArray[np.float64]:
    """Return the natural log of each answer's probability, of shape (prompts, answers).

    Args:
        model: A causal model of transformers.
        prompts: At least one; each of at least one token.
        answers: Each of at least one token.
    """
    import torch

    with torch.inference_mode():
        # the last token of each prompt is left over: it tells the first one of an answer
        shared = _shared([prompt[:-1] for prompt in prompts])
        begun = None
        if shared:
            first = torch.tensor([list(prompts[0][:shared])], device=model.device)
            begun = model(input_ids=first, use_cache=True).past_key_values
        rest = [prompt[shared:] for prompt in prompts]
        parts = [
            _score(model, begun, shared, rest[at : at + _BATCH], answers)
            for at in range(0, len(rest), _BATCH)
        ]
    return np.concatenate(parts)


def _score(
    model: Any, begun: Any, shared: int, prompts: Sequence[Tokens], answers: Sequence[Tokens]
) -> NDArray[np.float64]:
    """Score all answers to a batch of prompts; the cache `begun` holds how all of them begin."""
    import torch

    rows, among, longest = len(prompts), len(answers), max(map(len, answers))
    cache = copy.deepcopy(begun)
    if cache is not None:
        cache.batch_repeat_interleave(rows)
    # padded on the left: all prompts end together, where their answers begin
    asked, is_asked = _padded(prompts, left=True)
    seen = torch.cat([torch.ones(rows, shared, dtype=torch.long), is_asked], dim=1)
    read = model(
        input_ids=asked.to(model.device),
        attention_mask=seen.to(model.device),
        position_ids=_places(seen)[:, shared:].to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    said, is_said = _padded(answers, left=False)
    read.past_key_values.batch_repeat_interleave(among)
    every, is_every = said.repeat(rows, 1), is_said.repeat(rows, 1)
    whole = torch.cat([seen.repeat_interleave(among, dim=0), is_every], dim=1)
    # each token of an answer is told by the one before it, the first one by the prompt's last
    logits = read.logits.repeat_interleave(among, dim=0)
    if longest > 1:
        more = model(
            input_ids=every[:, :-1].to(model.device),
            attention_mask=whole[:, :-1].to(model.device),
            position_ids=_places(whole)[:, -longest:-1].to(model.device),
            past_key_values=read.past_key_values,
        ).logits
        logits = torch.cat([logits, more], dim=1)
    logs = logits.float().log_softmax(dim=-1)
    each = logs.gather(2, every[:, :, None].to(model.device))[:, :, 0].double().cpu()
    found: NDArray[np.float64] = (each * is_every).sum(dim=1).view(rows, among).numpy()
    return found


def _shared(rows: Sequence[Tokens]) -> int:
    """Return with how many of the same tokens all rows begin."""
    for place, tokens in enumerate(zip(*rows, strict=False)):
        if len(set(tokens)) > 1:
            return place
    return min(map(len, rows))


def _places(mask: Any) -> Any:
    """Return the place of each token among those that count."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _padded(rows: Sequence[Tokens], *, left: bool) -> tuple[Any, Any]:
    """Return rows of tokens as one tensor, with what of it counts."""
    import torch

    longest = max(map(len, rows))
    tokens, mask = torch.zeros((2, len(rows), longest), dtype=torch.long)
    for row, found in enumerate(rows):
        span = slice(longest - len(found), longest) if left else slice(0, len(found))
        tokens[row, span], mask[row, span] = torch.tensor(list(found)), 1
    return tokens, mask
