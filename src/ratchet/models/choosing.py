"""How likely each of a few answers is: what all prompts begin with is read once, each prompt once.

The same numbers as those of `HuggingFaceModel.log_likelihoods`, which reads the whole prompt anew
for each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.models.prefix_cache import Prefix, Tokens, padded, read, shared

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
        length = shared([prompt[:-1] for prompt in prompts])
        begun = read(model, prompts[0][:length]) if length else None
        length = 0 if begun is None else length
        # prompts of similar lengths need little padding
        order = np.argsort([len(prompt) for prompt in prompts])
        rest = [prompts[place][length:] for place in order]
        parts = [
            _score(model, begun, rest[at : at + _BATCH], answers)
            for at in range(0, len(rest), _BATCH)
        ]
    found = np.empty((len(prompts), len(answers)))
    found[order] = np.concatenate(parts)
    return found


def _score(
    model: Any, begun: Prefix | None, prompts: Sequence[Tokens], answers: Sequence[Tokens]
) -> NDArray[np.float64]:
    """Score all answers to a batch of prompts, without how all of them begin."""
    import torch

    rows, among, longest = len(prompts), len(answers), max(map(len, answers))
    length = 0 if begun is None else len(begun.tokens)
    # padded on the left: all prompts end together, where their answers begin
    asked, is_asked = padded(prompts)
    seen = torch.cat([torch.ones(rows, length, dtype=torch.long), is_asked], dim=1)
    done = model(
        input_ids=asked.to(model.device),
        attention_mask=seen.to(model.device),
        position_ids=_places(seen)[:, length:].to(model.device),
        past_key_values=None if begun is None else begun.for_rows(length, rows),
        use_cache=True,
        logits_to_keep=1,
    )
    said, is_said = padded(answers, left=False)
    done.past_key_values.batch_repeat_interleave(among)
    every, is_every = said.repeat(rows, 1), is_said.repeat(rows, 1)
    whole = torch.cat([seen.repeat_interleave(among, dim=0), is_every], dim=1)
    # each token of an answer is told by the one before it, the first one by the prompt's last
    logits = done.logits.repeat_interleave(among, dim=0)
    if longest > 1:
        more = model(
            input_ids=every[:, :-1].to(model.device),
            attention_mask=whole[:, :-1].to(model.device),
            position_ids=_places(whole)[:, -longest:-1].to(model.device),
            past_key_values=done.past_key_values,
        ).logits
        logits = torch.cat([logits, more], dim=1)
    logs = logits.float().log_softmax(dim=-1)
    each = logs.gather(2, every[:, :, None].to(model.device))[:, :, 0].double().cpu()
    found: NDArray[np.float64] = (each * is_every).sum(dim=1).view(rows, among).numpy()
    return found


def _places(mask: Any) -> Any:
    """Return the place of each token among those that count."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
