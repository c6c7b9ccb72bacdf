"""A tokenizer's chat template: control tokens in texts made harmless, refusals told with a reason.

    template = ChatTemplate(tokenizer)
    text = template.render(conversation)     # InvalidInputError where the template refuses it

A tokenizer reads `<|im_end|>` in a user's text as the end of the turn, so that whoever writes it
can end a turn and begin another one: `system`, say. In texts such marks are written with look-alike
brackets, which tokenizers read as ordinary characters. Training, serving and judges' local models
do so alike; what is stored stays as it came.

Which marks these are is read off the tokenizer: its special tokens, other added tokens in brackets,
and what its template writes around turns in brackets (`[INST]` is no token of Llama 2). A template
that tells turns apart by words alone (`USER:`) has no mark that could be made harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ratchet.errors import ContextLengthError, InvalidInputError
from ratchet.files.text import printable

_LOOK_ALIKES = str.maketrans("<>[]", "‹›❲❳")
_MARK = re.compile(r"<{1,2}[^<>\s]{1,64}>{1,2}|\[[^\[\]\s]{1,64}\]")
_SHORTEST = 2  # a single character that is an added token is ordinary text
_NORMALISATIONS = 3
_SHOWN_CHARACTERS = 200
_SAMPLES = (
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user"),
    ("user",),
)


def harmless(mark: str) -> str:
    """Return a control token as text: with look-alike brackets, or with a space where it has none.

    Example:
        >>> harmless("<|im_end|>"), harmless("[/INST]"), harmless("endoftext")
        ('‹|im_end|›', '❲/INST❳', 'e ndoftext')
    """
    changed = mark.translate(_LOOK_ALIKES)
    return changed if changed != mark else f"{mark[0]} {mark[1:]}"


class ChatTemplate:
    """See the module's text.

    Args:
        tokenizer: A tokenizer of transformers, with a chat template or without.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = [*getattr(tokenizer, "added_tokens_decoder", {}).values()]
        special = {token.content for token in added if token.special}
        special |= {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
        others = {t.content for t in added if _MARK.fullmatch(t.content)} - special
        turns = self._marks_of_turns() - others
        # A model's own answers may hold added tokens that are not special, such as <think>, and a
        # system prompt may explain them; of a user they are text.
        self._in_every_text = _any_of(special | turns)
        self._in_user_texts = _any_of(special | turns | others)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._normaliser = getattr(backend, "normalizer", None)

    def plain(self, text: str, role: str = "user") -> str:
        """Return a text without control tokens.

        Args:
            text: What somebody wrote.
            role: Of the turn.
        """
        marks = self._in_user_texts if role == "user" else self._in_every_text
        text = marks.sub(lambda match: harmless(match.group()), text)
        if self._normaliser is None:
            return text
        for _ in range(_NORMALISATIONS):  # a tokenizer may find its tokens in normalised text
            normal = self._normaliser.normalize_str(text)
            if not marks.search(normal):
                break
            text = marks.sub(lambda match: harmless(match.group()), normal)
        return text

    def turns(self, conversation: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return turns (`role`, `content`) without control tokens in their contents."""
        return [
            {**turn, "content": self.plain(turn["content"], turn["role"])} for turn in conversation
        ]

    def render(
        self, conversation: Sequence[Mapping[str, Any]], *, asks_for_answer: bool = True
    ) -> str:
        """Return a conversation as the model reads it.

        Args:
            conversation: Turns with `role` and `content`.
            asks_for_answer: Whether the beginning of the assistant's turn follows.

        Raises:
            InvalidInputError: The template refuses the conversation, or there is none.
        """
        return self._render(self.turns(conversation), asks_for_answer=asks_for_answer)

    def encode(
        self, conversation: Sequence[Mapping[str, Any]], *, context: int | None
    ) -> list[int]:
        """Return the tokens that a model is given to answer a conversation.

        Args:
            conversation: Turns with `role` and `content`.
            context: Tokens that the model can hold, answer included; None where it has no limit.

        Raises:
            InvalidInputError: The template refuses the conversation.
            ContextLengthError: No token of an answer would fit behind it.
        """
        text = self.render(conversation)
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if context is not None and len(tokens) >= context:
            raise ContextLengthError(
                f"a conversation must leave room for an answer in the model's context of "
                f"{context:,} tokens, got {len(tokens):,} tokens; shorten it"
            )
        return tokens

    def _render(self, turns: list[dict[str, Any]], *, asks_for_answer: bool) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, add_generation_prompt=asks_for_answer, tokenize=False
                )
            )
        except Exception as error:  # a template is a program of whoever made the model
            roles = ", ".join(str(turn["role"]) for turn in turns) or "no turns"
            if not getattr(self._tokenizer, "chat_template", None):
                raise InvalidInputError(
                    "a conversation needs the chat template of its model, got a model without "
                    "one; take an instruction-tuned model, or add chat_template.jinja to its folder"
                ) from error
            raise InvalidInputError(
                f"the model's chat template must take the conversation, got turns of {roles} and "
                f"its refusal: {printable(str(error), _SHOWN_CHARACTERS)}; send turns that it takes"
            ) from error

    def _marks_of_turns(self) -> set[str]:
        """Return what the template writes around turns in brackets."""
        for roles in _SAMPLES:
            turns = [{"role": role, "content": "text"} for role in roles]
            try:
                return set(_MARK.findall(self._render(turns, asks_for_answer=True)))
            except InvalidInputError:
                continue
        return set()


def context_of(model: Any) -> int | None:
    """Return how many tokens a model of transformers can hold; None where its folder names none."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def _any_of(marks: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for the marks, the longest first; without any it matches nothing."""
    telling = [mark for mark in marks if len(mark) >= _SHORTEST and mark.strip()]
    ordered = sorted(telling, key=lambda mark: (-len(mark), mark))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
