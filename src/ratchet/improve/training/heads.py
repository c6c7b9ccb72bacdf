"""The last layer on a CPU, for the answer's tokens alone.

TRL's fused head leaves out positions without a label on GPUs only. On a CPU it multiplies every
token of the prompt by the whole vocabulary, forward, and again in the backward pass: for a small
model with a large vocabulary that is a third of the work, for nothing.
"""

from __future__ import annotations

import types
from typing import Any

from ratchet.improve.training.beginnings import last_states

_MOST_POSITIONS = 2048  # of one product: 400 MB of logits for a vocabulary of 50,000
_SCALES = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)


def score_answers_only(model: Any) -> bool:
    """Have a model that TRL gave its fused head skip positions without a label, on a CPU.

    The result is TRL's own but for rounding. A model whose logits are scaled or capped, one with
    experts, and one on a GPU keep TRL's head.

    Args:
        model: The base model inside an adapter, after `trl.trainer.utils.add_fused_lm_head`.

    Returns:
        Whether the model was changed.
    """
    config = model.config.get_text_config()
    scaled = [name for name in _SCALES if getattr(config, name, None) is not None]
    routed = getattr(config, "output_router_logits", False)
    if next(model.parameters()).device.type != "cpu" or scaled or routed:
        return False
    fused = model.forward

    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any
    ) -> Any:
        """Score the labelled positions, or do as TRL does."""
        scored = 0 if labels is None else int((labels[:, 1:] != -100).sum())
        plain = not fused_lm_head or "shift_labels" in kwargs or "num_items_in_batch" in kwargs
        if plain or not 0 < scored <= _MOST_POSITIONS:
            options = {"fused_lm_head": True} if fused_lm_head else {}
            return fused(*args, labels=labels, **options, **kwargs)
        kwargs["use_cache"] = False
        hidden = last_states(self, *args, **kwargs)[:, :-1]
        return _score(hidden, labels[:, 1:], self.get_output_embeddings())

    # `generate` reads the arguments off the signature, which `fused` carries on from the model
    forward.__wrapped__ = fused  # type: ignore[attr-defined]
    model.forward = types.MethodType(forward, model)
    return True


def _score(hidden: Any, labels: Any, head: Any) -> Any:
    import torch
    from trl.trainer.utils import FusedCausalLMOutput

    mask = labels != -100
    answer = labels[mask]
    logits = head(hidden[mask]).float()
    log_probs = -torch.nn.functional.cross_entropy(logits, answer, reduction="none")
    with torch.no_grad():
        logs = logits.log_softmax(dim=-1)
        entropy = -(logs.exp() * logs).sum(dim=-1)
        top = logits.argmax(dim=-1) == answer
        mean = logits.mean(dim=-1)

    def placed(values: Any) -> Any:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    spread = placed(log_probs)
    return FusedCausalLMOutput(
        loss=-spread.sum() / mask.sum(),
        log_probs=spread,
        entropy=placed(entropy),
        mean_logits=placed(mean),
        is_top1=placed(top),
        label_mask=mask,
    )
