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

What it writes around tools, calls and results (`<tool_call>`) is the form of the model's own turns;
where users or tools write it, it is made harmless too, so that nobody forges a call or a result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ratchet.errors import ContextLengthError, InvalidInputError
from ratchet.files.text import printable
from ratchet.records import ToolCall

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
_OUTSIDE = ("user", "tool")  # whose words the model must not take for its own or the application's
_TOOL_MARKS = tuple(
    f"<{slash}{name}>" for name in ("tools", "tool_call", "tool_response") for slash in ("", "/")
)
_CALL_ID = "callabc12"  # nine letters or digits: some templates take no other
# without lists, whose brackets would read as marks
_SAMPLE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "sample",
        "description": "text",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    },
}
_SAMPLE_CALL: list[dict[str, Any]] = [
    {"role": "user", "content": "text"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": _CALL_ID,
                "type": "function",
                "function": {"name": "sample", "arguments": {"a": "text"}},
            }
        ],
    },
    {"role": "tool", "tool_call_id": _CALL_ID, "name": "sample", "content": "text"},
]
_WAY_OUT = "RATCHET_CHAT_TEMPLATE=hermes gives one to ChatML models"


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
        self._knows_developers = "developer" in str(getattr(tokenizer, "chat_template", ""))
        self._in_every_text = _any_of(special | turns)
        # what marks calls and results is the form of the model's own turns, and text elsewhere
        self._outside = _any_of(special | turns | others | self._marks_of_tools())
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._normaliser = getattr(backend, "normalizer", None)

    def plain(self, text: str, role: str = "user") -> str:
        """Return a text without control tokens.

        Args:
            text: What somebody wrote.
            role: Of the turn.
        """
        marks = self._outside if role in _OUTSIDE else self._in_every_text
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
        """Return turns of OpenAI's chat format as templates take them, without control tokens.

        Parts of text become one text, arguments of calls an object, which templates write as JSON
        themselves; a template that names no role `developer` gets `system`.

        Raises:
            InvalidInputError: A turn holds a picture, sound or a file.
        """
        return [self._turn(turn) for turn in conversation]

    def _turn(self, turn: Mapping[str, Any]) -> dict[str, Any]:
        role = turn["role"]
        if role == "developer" and not self._knows_developers:
            role = "system"
        said = _text(turn.get("content")) or turn.get("refusal") or ""
        found: dict[str, Any] = {"role": role, "content": self.plain(said, role)}
        if turn.get("tool_calls"):
            found["tool_calls"] = [self._call(call) for call in turn["tool_calls"]]
        named = {name: turn[name] for name in ("name", "tool_call_id") if turn.get(name)}
        return found | {name: self.plain(value) for name, value in named.items()}

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        read = ToolCall.model_validate(call)
        given = read.arguments
        arguments = self._inside(read.function.arguments if given is None else given)
        function = {"name": self.plain(read.name), "arguments": arguments}
        return {"id": self.plain(read.id or ""), "type": "function", "function": function}

    def _inside(self, value: Any) -> Any:
        """Return arguments without control tokens, which JSON may have held as escapes."""
        if isinstance(value, str):
            return self.plain(value)
        if isinstance(value, dict):
            return {self.plain(name): self._inside(inner) for name, inner in value.items()}
        return [self._inside(inner) for inner in value] if isinstance(value, list) else value

    def definitions(self, tools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return definitions of tools as templates take them, without control tokens.

        Raises:
            InvalidInputError: One is no function.
        """
        found = []
        for tool in tools:
            function = tool.get("function")
            if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
                kind = printable(str(tool.get("type")), _SHOWN_CHARACTERS)
                raise InvalidInputError(
                    "a local model takes tools that are functions alone, got one of the type "
                    f"{kind!r}; "
                    "define it as {'type': 'function', 'function': {'name': ...}}"
                )
            found.append(self._inside({"type": "function", "function": _jsonable(function)}))
        return found

    def render(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        asks_for_answer: bool = True,
    ) -> str:
        """Return a conversation as the model reads it.

        Args:
            conversation: Turns with `role` and `content`.
            tools: Definitions of what it may call, as OpenAI's API has them.
            asks_for_answer: Whether the beginning of the assistant's turn follows.

        Raises:
            InvalidInputError: The template refuses the conversation, has no form for its tools or
                calls, or there is none.
        """
        turns = self.turns(conversation)
        defined = self.definitions(tools or ())
        text = self._render(turns, tools=defined, asks_for_answer=asks_for_answer)
        left_out = next(
            (said for said in _calls_and_results(turns) if not _is_in(text, said)), None
        )
        if left_out is not None:
            raise InvalidInputError(
                "the model's chat template must have a form for calls of tools and their results, "
                f"got one that leaves out {printable(left_out, _SHOWN_CHARACTERS)!r}; send "
                "conversations without calls, or take a model whose template knows them: "
                f"{_WAY_OUT}"
            )
        if defined:
            self._check_all_told(turns, defined, text, asks_for_answer=asks_for_answer)
        return text

    def _check_all_told(
        self,
        turns: list[dict[str, Any]],
        defined: list[dict[str, Any]],
        text: str,
        *,
        asks_for_answer: bool,
    ) -> None:
        """Refuse tools of which the model would not read.

        Raises:
            InvalidInputError: The text holds a name no more often than it would without tools.
        """
        bare = self._render(turns, asks_for_answer=asks_for_answer)
        for tool in defined:
            name = tool["function"]["name"]
            if _times_in(text, name) <= _times_in(bare, name):
                raise InvalidInputError(
                    "the model's chat template must have a form for tools, got one that leaves "
                    f"out {printable(name, _SHOWN_CHARACTERS)!r}; send conversations without "
                    f"tools, or take a model whose template knows them: {_WAY_OUT}"
                )

    def encode(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        context: int | None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Return the tokens that a model is given to answer a conversation.

        Args:
            conversation: Turns with `role` and `content`.
            context: Tokens that the model can hold, answer included; None where it has no limit.
            tools: Definitions of what it may call.

        Raises:
            InvalidInputError: The template refuses the conversation or its tools.
            ContextLengthError: No token of an answer would fit behind it.
        """
        text = self.render(conversation, tools=tools)
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if context is not None and len(tokens) >= context:
            raise ContextLengthError(
                f"a conversation must leave room for an answer in the model's context of "
                f"{context:,} tokens, got {len(tokens):,} tokens; shorten it"
            )
        return tokens

    def _render(
        self,
        turns: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        asks_for_answer: bool,
    ) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns,
                    tools=tools or None,
                    add_generation_prompt=asks_for_answer,
                    tokenize=False,
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

    def _marks_of_tools(self) -> set[str]:
        """Return what the template writes around tools, calls and results in brackets."""
        source = str(getattr(self._tokenizer, "chat_template", ""))
        known = {mark for mark in _TOOL_MARKS if mark in source}
        try:
            return known | set(
                _MARK.findall(
                    self._render(_SAMPLE_CALL, tools=[_SAMPLE_TOOL], asks_for_answer=True)
                )
            )
        except InvalidInputError:
            return known


def _jsonable(value: Any) -> Any:
    """Return a value with plain dicts and lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {str(name): _jsonable(inner) for name, inner in value.items()}
    return [_jsonable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _text(content: Any) -> str:
    """Return the words of a turn.

    Raises:
        InvalidInputError: It holds something else as well.
    """
    if not isinstance(content, list | tuple):
        return content or ""
    other = next((part["type"] for part in content if "text" not in part), None)
    if other is not None:
        raise InvalidInputError(
            f"a local model reads text alone, got a part of the type {printable(str(other))!r}; "
            "send turns of text, or ask a server whose model reads it"
        )
    return "\n".join(part["text"] for part in content)


def _calls_and_results(turns: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what a rendered conversation holds at least: names of tools, and what they gave."""
    for turn in turns:
        for call in turn.get("tool_calls") or ():
            yield call["function"]["name"]
        if turn["role"] == "tool":
            yield turn["content"].strip()


def _is_in(text: str, said: str) -> bool:
    """Tell whether a text holds what was said, as it is or as JSON."""
    return any(form in text for form in _forms(said))


def _times_in(text: str, said: str) -> int:
    """Count how often a text holds what was said, as it is or as JSON."""
    return sum(text.count(form) for form in _forms(said))


def _forms(said: str) -> set[str]:
    return {said, json.dumps(said, ensure_ascii=False)[1:-1], json.dumps(said)[1:-1]}


def context_of(model: Any) -> int | None:
    """Return how many tokens a model of transformers can hold; None where its folder names none."""
    tokens = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return tokens if isinstance(tokens, int) and tokens > 0 else None


def _any_of(marks: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for the marks, the longest first; without any it matches nothing."""
    telling = [mark for mark in marks if len(mark) >= _SHORTEST and mark.strip()]
    ordered = sorted(telling, key=lambda mark: (-len(mark), mark))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
