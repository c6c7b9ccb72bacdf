"""A local model of Hugging Face, with an adapter or without."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ratchet.errors import InvalidInputError, ModelError
from ratchet.models.base import Completion, Conversation, Formats, Offered
from ratchet.models.choosing import score_answers
from ratchet.models.given_template import check_template
from ratchet.models.own_base import check_base
from ratchet.models.prefix_cache import PrefixCache
from ratchet.models.templates import ChatTemplate, context_of
from ratchet.models.weights import model_digest, quiet_transformers, require_safetensors
from ratchet.records.asking import Usage


class HuggingFaceModel:
    """A causal language model in this process, with a LoRA adapter or without."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        model_digest: str,
        batch_size: int,
        *,
        one_line: bool = True,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._digest, self._batch_size = model_digest, batch_size
        self._one_line = one_line
        self._template, self._context = ChatTemplate(tokenizer), context_of(model)
        self._prefix_cache = PrefixCache(tokenizer.pad_token_id)

    @classmethod
    def load(
        cls,
        base: Path,
        adapter: Path | None = None,
        *,
        batch_size: int = 32,
        one_line: bool = True,
    ) -> HuggingFaceModel:
        """Load a model folder and, where given, merge an adapter into it.

        Args:
            base: Folder in Hugging Face format.
            adapter: Folder of a LoRA adapter.
            batch_size: Conversations answered at once.
            one_line: Whether an answer ends at the first line break.

        Raises:
            ModelError: A folder is not there or holds no safetensors, or the adapter was trained
                with another chat template or on another base model.
        """
        require_safetensors(base, "model*.safetensors")
        model, tokenizer = load_pretrained(base)
        if adapter is not None:
            require_safetensors(adapter, "adapter_model.safetensors")
            check_base(base, adapter)
            check_template(tokenizer, adapter)
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        model.eval()
        return cls(model, tokenizer, model_digest(base, adapter), batch_size, one_line=one_line)

    @property
    def digest(self) -> str:
        """Digest of base weights and adapter."""
        return self._digest

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        tools: Offered | None = None,
        response_formats: Formats | None = None,
    ) -> list[Completion]:
        """Answer in batches; sampled from the whole distribution where the temperature is above 0.

        The same batches with the same seed give the same answers; without a seed one is drawn. A
        conversation that the chat template refuses, or that does not fit into the model's context,
        has an error in place of an answer. Where there are tools an answer has as many lines as it
        needs.
        """
        del response_formats  # nothing here binds an answer to a form
        offered = list(tools) if tools is not None else [None] * len(conversations)
        read = self._encoded(conversations, offered)
        made = {
            place: Completion("", 0.0, why) for place, why in read.items() if isinstance(why, str)
        }
        prompts = {place: found for place, found in read.items() if not isinstance(found, str)}
        places = list(prompts)
        if temperature == 0.0:  # prompts of similar lengths need little padding
            places.sort(key=lambda place: len(prompts[place]), reverse=True)
        for start in range(0, len(places), self._batch_size):
            batch = places[start : start + self._batch_size]
            asked = [prompts[place] for place in batch]
            started = time.monotonic()
            with _sampling(temperature, None if seed is None else seed + start) as options:
                texts = self._generate_batch(asked, max_new_tokens, options)
            seconds = time.monotonic() - started
            said = [
                self._said(text, whole=bool(offered[place]))
                for place, text in zip(batch, texts, strict=True)
            ]
            for place, text, usage in zip(batch, said, self._used(asked, said), strict=True):
                made[place] = Completion(text, seconds, usage=usage)
        return [made[place] for place in range(len(conversations))]

    def _said(self, text: str, *, whole: bool) -> str:
        if whole or not self._one_line:
            return text.strip()
        return text.strip().split("\n", 1)[0].strip()

    def _used(self, prompts: Sequence[list[int]], texts: Sequence[str]) -> list[Usage]:
        """Count the tokens of requests, and of answers as they are read."""
        answers = self._tokenizer(list(texts), add_special_tokens=False).input_ids
        return [
            Usage(prompt_tokens=len(asked), completion_tokens=len(answered))
            for asked, answered in zip(prompts, answers, strict=True)
        ]

    def _encoded(
        self, conversations: Sequence[Conversation], offered: Offered
    ) -> dict[int, list[int] | str]:
        """Return by place the tokens of each conversation, or why it cannot be answered."""
        found: dict[int, list[int] | str] = {}
        for place, (conversation, tools) in enumerate(zip(conversations, offered, strict=True)):
            turns = [message.canonical() for message in conversation]
            try:
                found[place] = self._template.encode(turns, context=self._context, tools=tools)
            except InvalidInputError as error:
                found[place] = str(error)
        return found

    def _generate_batch(
        self, prompts: Sequence[list[int]], max_new_tokens: int, options: dict[str, Any]
    ) -> list[str]:
        import torch

        encoded = self._prefix_cache.inputs(self._model, prompts)
        with torch.inference_mode():
            tokens = self._model.generate(
                **encoded,
                max_new_tokens=max_new_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
                **options,
            )
        answers = tokens[:, encoded["input_ids"].shape[1] :]
        return list(self._tokenizer.batch_decode(answers, skip_special_tokens=True))

    def log_likelihoods(
        self, conversations: Sequence[Conversation], answers: Sequence[str]
    ) -> list[tuple[float, int]]:
        """Return how likely given answers are: natural log of the probability, number of tokens.

        The end of the turn is not counted. Only the answers' tokens are scored, each given the
        conversation and the tokens before it.

        Raises:
            InvalidInputError: The chat template refuses a conversation.
            ModelError: Lengths differ, or an answer has no tokens.
        """
        if len(conversations) != len(answers):
            raise ModelError(
                f"each conversation needs its answer, got {len(conversations)} and {len(answers)}"
            )
        scores: list[tuple[float, int]] = []
        for start in range(0, len(answers), self._batch_size):
            rows = slice(start, start + self._batch_size)
            scores += self._score_batch(conversations[rows], answers[rows])
        return scores

    def likeliest(self, conversations: Sequence[Conversation], answers: Sequence[str]) -> list[int]:
        """Return for each conversation the place of the likeliest of some answers.

        That is what the model would answer if it could say nothing else: of answers of which none
        begins with another, the one with the greatest probability of being what it writes first.

        Raises:
            InvalidInputError: The chat template refuses a conversation.
            ModelError: There are no answers, or one has no tokens.
        """
        if not conversations:
            return []
        prompts = [
            self._template.render([message.canonical() for message in turns])
            for turns in conversations
        ]
        asked = self._tokenizer(prompts, add_special_tokens=False).input_ids
        spoken = self._answer_tokens(answers)
        if not spoken:
            raise ModelError("the likeliest answer needs at least 1 to choose from, got none")
        scores = score_answers(self._model, asked, spoken)
        return [int(place) for place in scores.argmax(axis=1)]

    def _answer_tokens(self, answers: Sequence[str]) -> list[list[int]]:
        """Return the tokens of answers to be scored.

        Raises:
            ModelError: One has none.
        """
        plain = [self._template.plain(answer, "assistant") for answer in answers]
        tokens = list(self._tokenizer(plain, add_special_tokens=False).input_ids) if plain else []
        if not all(tokens):
            raise ModelError("an answer to be scored needs at least 1 token, got an empty answer")
        return tokens

    def _score_batch(
        self, conversations: Sequence[Conversation], answers: Sequence[str]
    ) -> list[tuple[float, int]]:
        import torch

        prompts = [
            self._template.render([message.canonical() for message in turns])
            for turns in conversations
        ]
        before = self._tokenizer(prompts, add_special_tokens=False).input_ids
        after = self._answer_tokens(answers)
        # padded on the left, so that all answers end together and only their places are scored
        lengths = [len(one) + len(two) for one, two in zip(before, after, strict=True)]
        longest, kept = max(lengths), max(len(tokens) for tokens in after)
        tokens = torch.full((len(lengths), longest), self._tokenizer.pad_token_id)
        mask = torch.zeros_like(tokens)
        for row, (one, two) in enumerate(zip(before, after, strict=True)):
            tokens[row, longest - lengths[row] :] = torch.tensor(one + two)
            mask[row, longest - lengths[row] :] = 1
        tokens, mask = tokens.to(self._model.device), mask.to(self._model.device)
        with torch.inference_mode():
            logits = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
                logits_to_keep=kept + 1,
            ).logits
        logs = logits[:, :-1].float().log_softmax(dim=-1)
        each = logs.gather(2, tokens[:, -kept:, None])[:, :, 0].double()
        return [
            (float(row[kept - len(answer) :].sum()), len(answer))
            for row, answer in zip(each, after, strict=True)
        ]


@contextmanager
def _sampling(temperature: float, seed: int | None) -> Iterator[dict[str, Any]]:
    """Options of a batch's decoding; the process's own random numbers go on as if none was drawn.

    What a model's folder says of top-k and top-p is left out, so that the temperature alone counts.
    """
    if temperature == 0.0:
        yield {"do_sample": False}
        return
    import torch

    with torch.random.fork_rng():
        if seed is None:
            torch.seed()
        else:
            torch.manual_seed(seed)
        yield {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def load_pretrained(folder: Path) -> tuple[Any, Any]:
    """Return model (float32 on CPU, bfloat16 on a GPU) and left-padding tokenizer of a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gpu = torch.cuda.is_available()
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=torch.bfloat16 if gpu else torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), padding_side="left", trust_remote_code=False
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return (model.cuda() if gpu else model), tokenizer
