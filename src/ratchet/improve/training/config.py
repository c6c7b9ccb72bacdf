"""How an adapter is trained: every setting that determines it, and none that does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.errors import InvalidInputError
from ratchet.improve.training.examples import Method
from ratchet.records import digest

_Positive = Annotated[int, Field(ge=1)]
_TOKEN_STEP = 64
TOKENS_BEFORE = 512
"""What `maximum_tokens` was, unless it was set, when it did not follow the rows."""
_LEARNING_RATES: dict[Method, float] = {"sft": 1e-3, "kto": 5e-5, "dpo": 5e-5}


class FinetuneConfig(BaseModel):
    """How the adapter is trained.

    Attributes:
        method: SFT learns answers, with the loss on the answer's tokens alone; KTO learns from
            thumbs (Ethayarajh et al. 2024), DPO from preferences (Rafailov et al. 2023), both
            against the model that training starts from.
        rank: LoRA rank.
        alpha: LoRA scale; the update is multiplied by alpha / rank.
        dropout: On the input of the adapter, in SFT alone: TRL turns it off for KTO and DPO.
        targets: Names of the linear layers that get an adapter; None means all but the head.
        dora: Learn magnitude and direction apart (Liu et al. 2024).
        rslora: Scale by alpha / sqrt(rank), steadier at high ranks (Kalajdzievski 2023).
        quantize: QLoRA: the base in 4 bits (NF4); needs a GPU and bitsandbytes.
        epochs: Passes over the data.
        learning_rate: Peak of a linear schedule; None means 1e-3 for SFT and 5e-5 for KTO and DPO,
            which must stay near the model that they start from.
        batch_size: Examples a step, over all processes; with packing, packed sequences.
        micro_batch: Examples that go through the model at once, a process; None means as many as
            a step has, or as fit: SFT on a GPU finds out by trial before the first step, and
            whatever runs out of memory starts again with half. Gradients add up, so it changes
            speed and memory, but for KTO, which estimates its divergence within a micro-batch of
            at least two.
        warmup_steps: Steps in which the learning rate rises.
        weight_decay: AdamW's.
        maximum_tokens: Longer examples are left out, since a cut would take their answer. None
            follows the rows: as long as the longest, at most `token_ceiling` and what the base
            model reads.
        token_ceiling: The most that None means; what it costs in memory grows with it.
        packing: SFT alone: put short examples into one sequence; they do not see each other.
        gradient_checkpointing: Recompute activations: about a fifth slower, much less memory;
            turned on by itself where not even one example fits without.
        precision: `auto` means bfloat16 on a GPU that has it and float32 on a CPU.
        multiply: How float32 matrices are multiplied: `highest` is exact, `medium` lets a machine
            that can multiply in bfloat16 do so and add up in float32, at more than twice the speed.
        beta: KTO and DPO: how much leaving the start costs; both papers' 0.1.
        desirable_weight: KTO: weight of wanted answers over that of unwanted ones; None balances
            their numbers (equation 8 of the paper).
        validation_share: Share of the prompts that is held out to measure the loss on; ignored
            where validation rows are given.
        evaluations: Measurements of the validation loss an epoch.
        patience: Stop after so many measurements in a row that are no better than the best before,
            and keep the best; None never stops and keeps the last.
        seed: Of the adapter's start, the order and the dropout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = "sft"
    rank: _Positive = 16
    alpha: _Positive = 32
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    targets: tuple[str, ...] | None = None
    dora: bool = False
    rslora: bool = False
    quantize: bool = False
    epochs: Annotated[float, Field(gt=0.0, le=1000.0)] = 2.0
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    batch_size: _Positive = 8
    micro_batch: _Positive | None = None
    warmup_steps: Annotated[int, Field(ge=0)] = 4
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    maximum_tokens: _Positive | None = None
    token_ceiling: _Positive = 4096
    packing: bool = False
    gradient_checkpointing: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    multiply: Literal["highest", "high", "medium"] = "highest"
    beta: Annotated[float, Field(gt=0.0)] = 0.1
    desirable_weight: Annotated[float, Field(gt=0.0)] | None = None
    validation_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    evaluations: _Positive = 2
    patience: _Positive | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _holds_together(self) -> FinetuneConfig:
        if self.packing and self.method != "sft":
            raise ValueError(f"packing is for method 'sft', got {self.method!r}; turn it off")
        if self.method == "kto" and 1 in (self.batch_size, self.micro_batch):
            raise ValueError("KTO needs batches of at least 2, got 1; raise batch_size")
        return self

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, or the method's default."""
        return self.learning_rate or _LEARNING_RATES[self.method]

    def resolved(self) -> dict[str, object]:
        """Return every setting as it will be used, with the defaults filled in."""
        return self.model_dump(mode="json") | {"learning_rate": self.peak_learning_rate}


def finetune_key(
    rows_digest: str, config: FinetuneConfig, base_digest: str, start_digest: str | None
) -> str:
    """Return the digest of everything that determines an adapter.

    Args:
        rows_digest: Of what a trainer reads of the rows (`TrainingSet.learnt`); of a set of before,
            the set's own digest.
        config: How it is trained.
        base_digest: Of the base model.
        start_digest: Of the adapter that training goes on from; None begins a new one.
    """
    given = config.model_dump(mode="json")
    if config.maximum_tokens is not None:
        del given["token_ceiling"]  # it means nothing, and keys of before had none
    return digest([rows_digest, given, base_digest, start_digest])


def token_limit(config: FinetuneConfig, longest: int, context: int | None) -> int:
    """Return how many tokens an example may have.

    Args:
        config: What is wanted.
        longest: Tokens of the longest example.
        context: Tokens that the base model reads; None where it does not say.
    """
    if config.maximum_tokens is not None:
        return config.maximum_tokens
    # packed sequences are as long as the limit, which short rows must not make short
    wanted = max(longest, TOKENS_BEFORE if config.packing else 1)
    rounded = -(-wanted // _TOKEN_STEP) * _TOKEN_STEP
    return min(rounded, config.token_ceiling, context or rounded)


@dataclass(frozen=True, slots=True)
class Start:
    """What a training begins with, by digest.

    Attributes:
        base: Of the base model.
        adapter: Of the adapter that it goes on from; None begins a new one.
    """

    base: str
    adapter: str | None

    def key(self, rows_digest: str, config: FinetuneConfig) -> str:
        """Return the key of a training that begins here."""
        return finetune_key(rows_digest, config, self.base, self.adapter)


def micro_batch(config: FinetuneConfig, examples: int, processes: int, most: int | None) -> int:
    """Return how many examples go through the model at once, in one process.

    Args:
        config: What is wanted.
        examples: How many there are.
        processes: How many share a step.
        most: A bound from an earlier try that ran out of memory.

    Raises:
        InvalidInputError: The batch cannot be shared by the processes.
    """
    batch = effective_batch(config, examples, processes)
    share = batch // processes
    bounds = [size for size in (config.micro_batch, most) if size is not None]
    return max(size for size in _divisors(share) if size <= min([share, *bounds]))


def effective_batch(config: FinetuneConfig, examples: int, processes: int) -> int:
    """Return the examples of a step, at most all there are.

    Raises:
        InvalidInputError: The batch cannot be shared by the processes.
    """
    batch = min(config.batch_size, max(processes, examples - examples % processes))
    if batch % processes:
        raise InvalidInputError(
            f"batch_size must be a multiple of the processes, got {batch} for {processes}; "
            f"use {-(-batch // processes) * processes}"
        )
    return batch


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
