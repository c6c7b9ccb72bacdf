"""A small world with tools that really act on it, and what its users want of it.

    world = ToolWorld(seed=1)
    goal = draw_goal(rng)
    world.due(goal, told={"place", "day"})     # the calls that are right now
    world.execute("get_weather", '{"place": "Oslo", "day": "friday"}')
    world.reached(goal, words)                 # whether the user has what they wanted

Everything follows from the seed, so that which calls are right and whether a task is done are
known, whoever answers: a scripted assistant, or a model behind the gateway.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ratchet.records import digest

Value = str | int | float
DAYS = ("today", "tomorrow", "friday", "saturday")
PLACES = ("Oslo", "Lisbon", "Graz", "Cork", "Turin", "Bergen", "Nantes", "Malmo")
FILMS = ("Casablanca", "Alien", "Amelie", "Vertigo", "Heat", "Metropolis", "Brazil", "Stalker")
SONGS = ("Blue Train", "Harvest", "Hounds of Love", "Graceland", "Kind of Blue", "Rumours")
PLAYLISTS = ("road trip", "sunday morning", "running", "dinner", "focus", "party")
BOOKS = ("Middlemarch", "The Trial", "Dune", "Beloved", "Solaris", "Emma", "Ulysses")
CINEMAS = ("Odeon", "Rex", "Lumiere")
SKIES = ("rain", "snow", "sun", "fog", "wind")
RATINGS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
LAST_SEATS = 8
"""Seats that one booking may have."""


def _tool(name: str, does: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "properties": dict(properties), "required": list(properties)}
    function = {"name": name, "description": does, "parameters": form}
    return {"type": "function", "function": function}


_TEXT, _DAY = {"type": "string"}, {"type": "string", "enum": list(DAYS)}
TOOLS: tuple[dict[str, Any], ...] = (
    _tool("get_weather", "The weather of a day", {"place": _TEXT, "day": _DAY}),
    _tool("find_screenings", "When a film is shown", {"film": _TEXT, "day": _DAY}),
    _tool("book_seats", "Book seats", {"screening": _TEXT, "seats": {"type": "integer"}}),
    _tool("add_to_playlist", "Add music", {"item": _TEXT, "playlist": _TEXT}),
    _tool("rate_book", "Rate a book, 0.5 to 5", {"book": _TEXT, "rating": {"type": "number"}}),
)
"""The tools as a request to OpenAI's API has them."""
_FORMS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
_TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float)}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool, right or made."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Return a key that equal calls share: 4 and 4.0 are the same number."""
        whole = {
            name: float(value) if type(value) is int else value
            for name, value in self.arguments.items()
        }
        return digest([self.name, whole])


@dataclass(frozen=True, slots=True)
class Goal:
    """What a user wants.

    Attributes:
        kind: One of `GOALS`.
        facts: What an assistant must know to do it, in the order in which users tell it.
    """

    kind: str
    facts: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class _Wanting:
    """A kind of goal: how its facts are drawn, and how users put it into words."""

    draw: Mapping[str, Callable[[np.random.Generator], Value]]
    ask: tuple[str, ...]
    begin: str
    again: str


def _one_of(options: tuple[Any, ...]) -> Callable[[np.random.Generator], Any]:
    return lambda rng: options[int(rng.integers(len(options)))]


GOALS: Mapping[str, _Wanting] = {
    "weather": _Wanting(
        {"place": _one_of(PLACES), "day": _one_of(DAYS)},
        ("What is the weather in {place} {day}?", "Do I need an umbrella in {place} {day}?"),
        "What will the weather be like in {place}?",
        "Please tell me the weather for {place}, {day}.",
    ),
    "playlist": _Wanting(
        {"item": _one_of(SONGS), "playlist": _one_of(PLAYLISTS)},
        ("Add {item} to my {playlist} playlist.", "Put {item} on the list {playlist}."),
        "Add {item} to a playlist of mine.",
        "{item} should be on my playlist {playlist}.",
    ),
    "rating": _Wanting(
        {"book": _one_of(BOOKS), "rating": _one_of(RATINGS)},
        ("I give {book} {rating} stars.", "Rate {book} {rating} out of 5."),
        "I want to rate {book}.",
        "My rating of {book} is {rating}.",
    ),
    "seats": _Wanting(
        {"film": _one_of(FILMS), "day": _one_of(DAYS), "seats": _one_of((1, 2, 3, 4))},
        ("Book {seats} seats for the first showing of {film} {day}.",),
        "I would like to see {film} {day}, at the first showing.",
        "{seats} seats for {film} {day}, the earliest there is, please.",
    ),
}
"""The kinds of goals. A user who tells them in parts says `begin`, and the last fact when asked."""


def draw_goal(rng: np.random.Generator, kinds: Collection[str] = tuple(GOALS)) -> Goal:
    """Draw what a user wants."""
    kind = sorted(kinds)[int(rng.integers(len(kinds)))]
    return Goal(kind, {name: draw(rng) for name, draw in GOALS[kind].draw.items()})


def last_fact(goal: Goal) -> str:
    """Return the fact that a user who tells a goal in parts keeps for last."""
    return list(goal.facts)[-1]


def said(goal: Goal, how: str, rng: np.random.Generator) -> str:
    """Return what a user says of a goal.

    Args:
        goal: What they want.
        how: `ask` for all of it, `begin` without the last fact, `answer` for that fact alone,
            `again` for all of it in other words, `no` for a correction.
        rng: Source of the wording.
    """
    wanting = GOALS[goal.kind]
    if how == "ask":
        return wanting.ask[int(rng.integers(len(wanting.ask)))].format(**goal.facts)
    if how == "begin":
        return wanting.begin.format(**goal.facts)
    if how == "answer":
        return f"{goal.facts[last_fact(goal)]}"
    again = wanting.again.format(**goal.facts)
    return again if how == "again" else f"No, I meant: {again}"


@dataclass(slots=True)
class ToolWorld:
    """What the tools read and change, for one session.

    Attributes:
        seed: Of the weather and the programme of the cinemas.
        playlists: What was added to each.
        ratings: The rating of each book.
        bookings: Screening and seats.
        looked_up: Keys of calls that only look something up.
    """

    seed: int
    playlists: dict[str, list[str]] = field(default_factory=dict)
    ratings: dict[str, float] = field(default_factory=dict)
    bookings: list[tuple[str, int]] = field(default_factory=list)
    looked_up: set[str] = field(default_factory=set)

    def execute(self, name: str, arguments: str) -> dict[str, Any]:
        """Call a tool and return its result; what cannot be done is `{"error": why}`.

        Args:
            name: The tool.
            arguments: As the model wrote them.
        """
        if name not in _FORMS:
            return {"error": f"there is no tool {name}; there are {', '.join(_FORMS)}"}
        given = _checked(arguments, _FORMS[name])
        if isinstance(given, str):
            return {"error": given}
        found: dict[str, Any] = getattr(self, f"_{name}")(**given)
        return found

    def due(self, goal: Goal, told: Collection[str]) -> tuple[Call, ...]:
        """Return the calls that are right now: none where a fact was not told, or all is done.

        Args:
            goal: What the user wants.
            told: Names of the facts that the assistant was told.
        """
        if not set(goal.facts) <= set(told):
            return ()
        return next(((call,) for call in self._steps(goal) if not self._done(call)), ())

    def reached(self, goal: Goal, words: str) -> bool:
        """Tell whether a user has what they wanted.

        Args:
            goal: What they wanted.
            words: What they were told last; of the weather they must have been told the sky.
        """
        done = all(self._done(call) for call in self._steps(goal))
        if goal.kind != "weather":
            return done
        return done and self.weather(*map(str, goal.facts.values()))["sky"] in words.lower()

    def tells(self, goal: Goal) -> str:
        """Return what a good assistant says once a goal is done."""
        if goal.kind == "weather":
            found = self.weather(*map(str, goal.facts.values()))
            return f"There will be {found['sky']} at {found['degrees']} degrees."
        return "Done: " + ", ".join(f"{name} {value}" for name, value in goal.facts.items()) + "."

    def weather(self, place: str, day: str) -> dict[str, Any]:
        """Return the weather of a day, without the look-up being noted."""
        sky = SKIES[self._number("sky", place, day) % len(SKIES)]
        return {"sky": sky, "degrees": self._number("degrees", place, day) % 30}

    def screenings(self, film: str, day: str) -> list[dict[str, str]]:
        """Return when and where a film is shown, the first showing first."""
        hours = (f"{15 + self._number('hour', film, day) % 3}:30", "19:00", "21:45")
        where = self._number("cinema", film, day)
        return [
            {
                "screening": f"{film[:2].lower()}-{day[:3]}-{place}",
                "cinema": CINEMAS[(where + place) % len(CINEMAS)],
                "time": hour,
            }
            for place, hour in enumerate(hours, 1)
        ]

    def _steps(self, goal: Goal) -> tuple[Call, ...]:
        facts = goal.facts
        if goal.kind == "seats":
            looked_for = {"film": facts["film"], "day": facts["day"]}
            first = self.screenings(str(facts["film"]), str(facts["day"]))[0]["screening"]
            booked = {"screening": first, "seats": facts["seats"]}
            return Call("find_screenings", looked_for), Call("book_seats", booked)
        names = {"weather": "get_weather", "playlist": "add_to_playlist", "rating": "rate_book"}
        return (Call(names[goal.kind], facts),)

    def _done(self, call: Call) -> bool:
        given = call.arguments
        if call.name == "add_to_playlist":
            return given["item"] in self.playlists.get(given["playlist"], ())
        if call.name == "rate_book":
            return bool(self.ratings.get(given["book"]) == given["rating"])
        if call.name == "book_seats":
            return (given["screening"], given["seats"]) in self.bookings
        return call.key in self.looked_up

    def _number(self, *about: str) -> int:
        return int(digest([self.seed, *about])[:8], 16)

    def _get_weather(self, place: str, day: str) -> dict[str, Any]:
        self.looked_up.add(Call("get_weather", {"place": place, "day": day}).key)
        return self.weather(place, day)

    def _find_screenings(self, film: str, day: str) -> dict[str, Any]:
        self.looked_up.add(Call("find_screenings", {"film": film, "day": day}).key)
        if film not in FILMS:
            return {"error": f"no cinema shows {film}"}
        return {"screenings": self.screenings(film, day)}

    def _book_seats(self, screening: str, seats: int) -> dict[str, Any]:
        known = {
            found["screening"] for film in FILMS for day in DAYS
            for found in self.screenings(film, day)
        }  # fmt: skip
        if screening not in known:
            return {"error": f"there is no screening {screening}; find_screenings names them"}
        if not 1 <= seats <= LAST_SEATS:
            return {"error": f"seats must be from 1 to {LAST_SEATS}, got {seats}"}
        self.bookings.append((screening, seats))
        return {"booking": len(self.bookings)}

    def _add_to_playlist(self, item: str, playlist: str) -> dict[str, Any]:
        if playlist not in PLAYLISTS:
            return {"error": f"there is no playlist {playlist}; there are {', '.join(PLAYLISTS)}"}
        self.playlists.setdefault(playlist, []).append(item)
        return {"items": len(self.playlists[playlist])}

    def _rate_book(self, book: str, rating: float) -> dict[str, Any]:
        if rating not in RATINGS:
            return {"error": f"a rating must be from {RATINGS[0]} to {RATINGS[-1]}, got {rating}"}
        self.ratings[book] = rating
        return {"rated": rating}


def _checked(arguments: str, form: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return the arguments of a call, or what is wrong with them."""
    try:
        given = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return "the arguments are no JSON"
    known = form["properties"]
    if not isinstance(given, dict) or set(given) != set(known):
        return f"the arguments must be {', '.join(known)}"
    for name, value in given.items():
        kind = known[name]
        if type(value) not in _TYPES[kind["type"]]:
            return f"{name} must be a {kind['type']}"
        if value not in kind.get("enum", (value,)):
            return f"{name} must be one of {', '.join(kind['enum'])}"
    return given
