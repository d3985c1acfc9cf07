"""From a text to the tokens that a language model is asked with, and from an answer to those it has to give.

Prompts are put together from token ids and not from text: what a user wrote is tokenized by itself, with special tokens
read as plain letters, so that no text can end its own turn, cutting it leaves the instructions whole, and what stands
in front of it is the same for every text and is computed once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from postgrad.errors import UserError
from postgrad.records import Generation, Row
from postgrad.train.base import CheckFailed

INPUT = "{input}"
# A prompt whose instructions leave less room than this for the text asks about nothing.
LEAST_ROOM = 8
_SLOT = re.compile(r"@@slot-(\d+)@@")


@dataclass(frozen=True)
class Example:
    """A question with its answer, for prompts and for training; `row` is what it was made of."""

    text: str
    answer: str
    row: Row | None = None


@dataclass(frozen=True)
class Prompt:
    """Token ids of a question, up to where the answer begins. `cut` tells that the text lost tokens."""

    ids: tuple[int, ...]
    cut: bool = False


@dataclass(frozen=True)
class Renderer:
    """Makes prompts and targets.

    Attributes:
        tokenizer: of the model, a fast one.
        pieces: token ids of what is the same in every prompt, and None for each place of the text.
        leads: what stands directly in front of each of these places, and then of the answer, where it is spaces: most
            tokenizers make one token of a space and the word behind it.
        end: the token that ends an answer.
        limit: the most tokens of a prompt.
    """

    tokenizer: Any
    pieces: tuple[tuple[int, ...] | None, ...]
    leads: tuple[str, ...]
    end: int
    limit: int

    @property
    def prefix(self) -> tuple[int, ...]:
        """What every prompt begins with, and goes on after."""
        return (self.pieces[0] or ())[:-1]

    def prompt(self, text: str) -> Prompt:
        """A text too long for the limit loses tokens from its middle."""
        room, cut = self.room, False
        leads = iter(self.leads)
        whole: list[int] = []
        for piece in self.pieces:
            if piece is not None:
                whole += piece
                continue
            ids = plain(self.tokenizer, next(leads) + text)
            if len(ids) > room:
                head = (room + 1) // 2
                ids, cut = ids[:head] + ids[len(ids) - (room - head) :], True
            whole += ids
        return Prompt(tuple(whole), cut)

    @property
    def room(self) -> int:
        """The most tokens of a text."""
        fixed = sum(len(piece) for piece in self.pieces if piece is not None)
        return (self.limit - fixed) // self.pieces.count(None)

    def target(self, answer: str) -> tuple[int, ...]:
        """Token ids of an answer, with the token that ends it."""
        return (*plain(self.tokenizer, self.leads[-1] + answer), self.end)


def plain(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, with special tokens read as letters."""
    found: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return found


def renderer(tokenizer: Any, generation: Generation, shots: Sequence[Example], limit: int) -> Renderer:
    """Set prompts up, with `shots` as answered examples in front of the question.

    Args:
        limit: the most tokens of a prompt.

    Raises:
        UserError: the prompt has no place for the text.
        CheckFailed: the chat template loses the text, or the instructions alone are too long.
    """
    if INPUT not in generation.prompt:
        raise UserError(
            f"The prompt has no place for the text: write {INPUT} where it is to stand (generation.prompt)."
        )
    values = [value for shot in shots for value in (shot.text, shot.answer)]
    text, last = _conversation(tokenizer, generation, len(shots))
    pieces, leads = _pieces(tokenizer, text, dict(enumerate(values)), last)
    if None not in pieces:
        raise CheckFailed(
            "template",
            "the chat template of the base model leaves the user's message out of the prompt. Take another base model, "
            "or one without a chat template.",
        )
    made = Renderer(tokenizer, pieces, leads, _end(tokenizer), limit)
    if made.room < LEAST_ROOM:
        raise CheckFailed(
            "prompt",
            f"the instructions and {len(shots)} examples leave {max(0, made.room)} of {limit} tokens for a text. Raise "
            "max_prompt_tokens (as far as the model's context goes), take fewer shots, or shorten the instructions.",
        )
    return made


def slot(number: int) -> str:
    """What stands in a message for a text that is put in as tokens."""
    return f"@@slot-{number}@@"


def around(tokenizer: Any, message: str, count: int) -> tuple[str, ...]:
    """The texts around `count` slots of a user's message, with the chat template, up to where the answer begins.

    Raises:
        CheckFailed: the chat template leaves a slot out, or the message has others than these.
    """
    turn = {"role": "user", "content": message}
    text = _chat(tokenizer, "", (turn,)) if tokenizer.chat_template else f"{message}\n"
    parts = _SLOT.split(text)
    if [int(number) for number in parts[1::2]] != list(range(count)):
        raise CheckFailed(
            "template",
            "the chat template of the model does not give a message as it was written. Take another model, or one "
            "without a chat template.",
        )
    return tuple(parts[::2])


def begins(tokenizer: Any) -> tuple[int, ...]:
    """The token that begins a text, for tokenizers that put one there by themselves. A chat template brings its own."""
    if tokenizer.chat_template:
        return ()
    found = tokenizer("")["input_ids"][:1]
    return tuple(found) if found == [tokenizer.bos_token_id] else ()


def _conversation(tokenizer: Any, generation: Generation, shots: int) -> tuple[str, int]:
    """The text of a prompt with slots for what users wrote, and the number of the question's slot."""
    turns = []
    for number in range(shots):
        turns.append({"role": "user", "content": generation.prompt.replace(INPUT, slot(2 * number))})
        turns.append({"role": "assistant", "content": slot(2 * number + 1)})
    turns.append({"role": "user", "content": generation.prompt.replace(INPUT, slot(2 * shots))})
    if tokenizer.chat_template:
        return _chat(tokenizer, generation.system, turns), 2 * shots
    # A model that was never taught to chat goes on with what it has seen: an answer stands on the line below.
    blocks = [generation.system] if generation.system else []
    for asked, answered in zip(turns[:-1:2], turns[1::2], strict=True):
        blocks.append(f"{asked['content'].rstrip()}\n{answered['content']}")
    return "\n\n".join([*blocks, f"{turns[-1]['content'].rstrip()}\n"]), 2 * shots


def _chat(tokenizer: Any, system: str, turns: Sequence[Mapping[str, str]], ask: bool = True) -> str:
    from jinja2 import TemplateError

    def rendered(messages: Sequence[Mapping[str, str]]) -> str:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ask))

    if not system:
        return rendered(turns)
    try:
        return rendered([{"role": "system", "content": system}, *turns])
    except TemplateError:
        # Some templates know no system role: it goes in front of the first question, as their makers advise.
        first = {"role": "user", "content": f"{system}\n\n{turns[0]['content']}"}
        return rendered([first, *turns[1:]])


def _pieces(
    tokenizer: Any, text: str, values: Mapping[int, str], last: int
) -> tuple[tuple[tuple[int, ...] | None, ...], tuple[str, ...]]:
    """Token ids between the places of the question's text, the examples' texts filled in, and the leads."""
    found: list[tuple[int, ...] | None] = []
    leads: list[str] = []
    current: list[int] = [*begins(tokenizer)]
    *parts, behind = _SLOT.split(text)
    for literal, slot in zip(parts[::2], parts[1::2], strict=True):
        shared = literal.rstrip(" ")
        lead = literal[len(shared) :]
        current += tokenizer(shared, add_special_tokens=False)["input_ids"]
        if int(slot) == last:
            found += [tuple(current), None]
            leads.append(lead)
            current = []
        else:
            current += plain(tokenizer, lead + values[int(slot)])
    shared = behind.rstrip(" ")
    current += tokenizer(shared, add_special_tokens=False)["input_ids"]
    return (*found, tuple(current)), (*leads, behind[len(shared) :])


def _end(tokenizer: Any) -> int:
    """The token that ends a turn: the special one behind an answer in the chat template, else the end of the text."""
    if tokenizer.chat_template:
        turns = ({"role": "user", "content": "?"}, {"role": "assistant", "content": slot(0)})
        _, _, behind = _chat(tokenizer, "", turns, ask=False).partition(slot(0))
        ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
        if ids and ids[0] in tokenizer.all_special_ids:
            return int(ids[0])
    if tokenizer.eos_token_id is None:
        raise CheckFailed(
            "eos",
            "the base model's tokenizer names no token that ends a text, so the model would never learn to stop. Take "
            "another base model, or set eos_token in its tokenizer_config.json.",
        )
    return int(tokenizer.eos_token_id)
