"""Collections that share what they have in common with the one they were made from, for trees of many experiments.

A tree never changes: every event makes a new one. A copy of everything for every event is what a long run would spend
its time on, so a change copies one piece of some hundred entries and the list of the pieces.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, ValuesView
from itertools import islice
from threading import Lock
from typing import Any, Callable, Generic, NamedTuple, TypeVar, overload

T = TypeVar("T")
V = TypeVar("V")
#: Name, parent, recipe and kind of an entry: what it is for good.
Entry = tuple[str, str | None, str, str]
#: (rank, index); the lowest is first.
Key = tuple[float, int]

# Entries of a piece. Where entries come in between, a piece that has grown to twice as many becomes two.
PIECE = 128


class Row(Sequence[T], Generic[T]):
    """A tuple that grows at its end, and whose entries are replaced, for little. Slices are tuples."""

    __slots__ = ("_pieces", "_length")

    def __init__(self, entries: Iterable[T] = ()) -> None:
        found = tuple(entries)
        self._pieces = tuple(found[at : at + PIECE] for at in range(0, len(found), PIECE))
        self._length = len(found)

    @classmethod
    def _made(cls, pieces: tuple[tuple[T, ...], ...], length: int) -> Row[T]:
        row = cls.__new__(cls)
        row._pieces, row._length = pieces, length
        return row

    def put(self, at: int, entry: T) -> Row[T]:
        """The same with another entry at a place; one more where the place is the end."""
        piece, within = divmod(at, PIECE)
        if at == self._length and not within:
            return Row._made((*self._pieces, (entry,)), at + 1)
        old = self._pieces[piece]
        new = (*old[:within], entry, *old[within + 1 :])
        return Row._made((*self._pieces[:piece], new, *self._pieces[piece + 1 :]), max(self._length, at + 1))

    def differing(self, other: Row[T]) -> Iterator[int]:
        """Places where this one has another object than a shorter or equally long one, or has one more."""
        for number, piece in enumerate(self._pieces):
            theirs: tuple[T, ...] = other._pieces[number] if number < len(other._pieces) else ()
            if piece is theirs:
                continue
            for within, entry in enumerate(piece):
                if within >= len(theirs) or entry is not theirs[within]:
                    yield number * PIECE + within

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[T, ...]: ...

    def __getitem__(self, at: int | slice) -> T | tuple[T, ...]:
        if isinstance(at, slice):
            return tuple(self[each] for each in range(*at.indices(self._length)))
        place = at + self._length if at < 0 else at
        if not 0 <= place < self._length:
            raise IndexError(at)
        return self._pieces[place // PIECE][place % PIECE]

    def __iter__(self) -> Iterator[T]:
        for piece in self._pieces:
            yield from piece

    def __reversed__(self) -> Iterator[T]:
        for piece in reversed(self._pieces):
            yield from reversed(piece)

    def __eq__(self, other: object) -> bool:
        return _same(self, other)


class Ranked(Sequence[T], Generic[T]):
    """Entries in the order of their keys, which are different. Slices are tuples."""

    __slots__ = ("_keys", "_pieces", "_length")

    def __init__(self, entries: Iterable[tuple[Key, T]] = ()) -> None:
        found = sorted(entries, key=lambda entry: entry[0])
        cut = [found[at : at + PIECE] for at in range(0, len(found), PIECE)]
        self._keys = tuple(tuple(key for key, _ in piece) for piece in cut)
        self._pieces = tuple(tuple(each for _, each in piece) for piece in cut)
        self._length = len(found)

    def with_entry(self, old: Key | None, new: Key | None, entry: T) -> Ranked[T]:
        """The same with an entry in place of the one at `old`, or without one where `new` is None."""
        if old is None:
            return self if new is None else self._changed(new, entry, 1)
        if old == new:
            return self._changed(old, entry, 0)
        without = self._changed(old, None, -1)
        return without if new is None else without._changed(new, entry, 1)

    def _changed(self, key: Key, entry: T | None, more: int) -> Ranked[T]:
        """One entry more at a key, another in its place, or one less."""
        number = min(self._piece(key), max(0, len(self._pieces) - 1))
        keys, piece = (self._keys[number], self._pieces[number]) if self._pieces else ((), ())
        at = bisect_left(keys, key)
        rest = at + (more <= 0)
        own = () if entry is None else (entry,)
        keys, piece = (*keys[:at], *(key for _ in own), *keys[rest:]), (*piece[:at], *own, *piece[rest:])
        half = len(keys) // 2
        cut = [(0, len(keys))] if len(keys) <= 2 * PIECE else [(0, half), (half, len(keys))]
        made: Ranked[T] = Ranked.__new__(Ranked)
        new = [(keys[low:high], piece[low:high]) for low, high in cut if high > low]
        made._keys = (*self._keys[:number], *(found for found, _ in new), *self._keys[number + 1 :])
        made._pieces = (*self._pieces[:number], *(found for _, found in new), *self._pieces[number + 1 :])
        made._length = self._length + more
        return made

    def _piece(self, key: Key) -> int:
        """The number of the first piece that ends at this key or later."""
        low, high = 0, len(self._keys)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._keys[middle][-1] < key else (low, middle)
        return low

    @property
    def pieces(self) -> tuple[tuple[T, ...], ...]:
        """The entries in order as they are kept: a piece in which nothing changed is the same object as before."""
        return self._pieces

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[T, ...]: ...

    def __getitem__(self, at: int | slice) -> T | tuple[T, ...]:
        if isinstance(at, slice):
            return _cut(self, at)
        place = at + self._length if at < 0 else at
        if 0 <= place < self._length:
            for piece in self._pieces:
                if place < len(piece):
                    return piece[place]
                place -= len(piece)
        raise IndexError(at)

    def __iter__(self) -> Iterator[T]:
        for piece in self._pieces:
            yield from piece

    def __reversed__(self) -> Iterator[T]:
        for piece in reversed(self._pieces):
            yield from reversed(piece)

    def __eq__(self, other: object) -> bool:
        return _same(self, other)


class Among(Sequence[T], Generic[T]):
    """The entries of a row at some places, which grow with it. Nothing is copied. Slices are tuples."""

    __slots__ = ("_row", "_places", "_length")

    def __init__(self, row: Row[T], places: Sequence[int]) -> None:
        self._row, self._places = row, places
        within = not places or places[-1] < len(row)
        self._length = len(places) if within else bisect_left(places, len(row))

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[T, ...]: ...

    def __getitem__(self, at: int | slice) -> T | tuple[T, ...]:
        if isinstance(at, slice):
            return tuple(self._row[self._places[each]] for each in range(*at.indices(self._length)))
        return self._row[self._places[range(self._length)[at]]]

    def __iter__(self) -> Iterator[T]:
        return (self._row[place] for place in islice(self._places, self._length))

    def place(self, at: int) -> int:
        """The place in the row of an entry of these, or of a longer row's."""
        return self._places[at]

    def since(self, at: int) -> Iterator[tuple[int, T]]:
        """The entries from this one on, each with its place in the row."""
        pieces = self._row._pieces
        for place in islice(self._places, at, self._length):
            yield place, pieces[place // PIECE][place % PIECE]

    def __eq__(self, other: object) -> bool:
        return _same(self, other)


def _cut(row: Sequence[T], at: slice) -> tuple[T, ...]:
    """A slice of a sequence that is quick to go through from either end, and slow to be asked for single places."""
    start, stop, step = at.indices(len(row))
    if step == 1 and len(row) - start < start:
        last = list(islice(reversed(row), len(row) - start))
        return tuple(reversed(last))[: stop - start]
    return tuple(islice(row, start, stop, step)) if step > 0 else tuple(row)[at]


def _same(one: Sequence[T], other: object) -> bool:
    return isinstance(other, Row | Ranked | Among | tuple) and len(one) == len(other) and tuple(one) == tuple(other)


class Group(NamedTuple, Generic[T]):
    """Some of the entries of a row.

    Attributes:
        of: the name of the group that an entry is in, by nothing but what it is for good; None for none.
        key: names `of`.
        name: of this group.
    """

    key: Hashable
    of: Callable[[T], Hashable | None]
    name: Hashable


class Grown:
    """What never changes of the entries of a row, and grows with it: their names, parents and recipes. All rows that
    grew from one share it; one that went another way has its own.

    Attributes:
        at: name -> place. children: parent -> places, the first first. same: recipe -> places.
        groups: key -> how many entries were looked at, and name -> places, for whoever looks for entries of a group.
        folds: what was worked out of the first so many of a group, for whoever goes through all of one.
    """

    __slots__ = ("entries", "at", "children", "same", "groups", "folds", "looking")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.at: dict[str, int] = {}
        self.children: dict[str | None, list[int]] = {}
        self.same: dict[str, list[int]] = {}
        self.groups: dict[Hashable, tuple[int, dict[Hashable, list[int]]]] = {}
        self.folds: dict[Hashable, tuple[int, Any]] = {}
        self.looking = Lock()

    def add(self, length: int, entry: Entry) -> Grown:
        """What a row of this length shares once it has one more entry."""
        if length < len(self.entries):
            if self.entries[length] == entry:
                return self
            other = Grown()
            for each in self.entries[:length]:
                other._append(each)
            return other.add(length, entry)
        self._append(entry)
        return self

    def _append(self, entry: Entry) -> None:
        name, parent, recipe, _ = entry
        place = len(self.entries)
        self.entries.append(entry)
        self.at[name] = place
        self.children.setdefault(parent, []).append(place)
        self.same.setdefault(recipe, []).append(place)


class Shelf(Mapping[str, T], Generic[T]):
    """Entries by name, in the order they came."""

    __slots__ = ("row", "grown")

    def __init__(self, row: Row[T], grown: Grown) -> None:
        self.row, self.grown = row, grown

    def __getitem__(self, name: str) -> T:
        place = self.grown.at[name]
        if place >= len(self.row):
            raise KeyError(name)
        return self.row[place]

    def __len__(self) -> int:
        return len(self.row)

    def __iter__(self) -> Iterator[str]:
        for name, *_ in islice(self.grown.entries, len(self.row)):
            yield name

    def __contains__(self, name: object) -> bool:
        return self.grown.at.get(name, len(self.row)) < len(self.row) if isinstance(name, str) else False

    def values(self) -> ValuesView[T]:
        return _Values(self)

    def below(self, parent: str | None) -> Among[T]:
        """The entries with this parent, in order."""
        return Among(self.row, self.grown.children.get(parent, ()))

    def has_below(self, parent: str) -> bool:
        """True where an entry has this parent."""
        places = self.grown.children.get(parent)
        return places is not None and places[0] < len(self.row)

    def alike(self, recipe: str) -> Among[T]:
        """The entries with this recipe, in order."""
        return Among(self.row, self.grown.same.get(recipe, ()))

    def among(self, group: Group[T]) -> Among[T]:
        """The entries of a group, in order. Each entry is asked for its group once, whoever looks under this key."""
        grown = self.grown
        with grown.looking:  # A question to somebody else is worked on in a thread beside the loop.
            done, found = grown.groups.get(group.key, (0, {}))
            for place in range(done, len(self.row)):
                if (name := group.of(self.row[place])) is not None:
                    found.setdefault(name, []).append(place)
            if done < len(self.row):
                grown.groups[group.key] = len(self.row), found
        return Among(self.row, found.get(group.name, ()))

    def folded(self, group: Group[T], key: Hashable, settled: int, last: int, start: V, step: Callable[[V, T], V]) -> V:
        """What the first `last` entries come to, those of a group taken in one after the other in order. Of the first
        `settled`, which are what they are for good, each is gone through once, whoever asks under this key.

        Args:
            key: names start and step.
        """
        among, name = self.among(group), (group.key, group.name, key)
        done, value = 0, start
        known = self.grown.folds.get(name)
        if known is not None and among.place(known[0] - 1) < settled:  # Else they were asked of a longer row.
            done, value = known
        for place, entry in among.since(done):
            if place >= last:
                break
            value = step(value, entry)
            if place < settled:
                done += 1
                self.grown.folds[name] = (done, value)
        return value


class _Values(ValuesView[T]):
    """The entries themselves, without a look at their names."""

    def __init__(self, shelf: Shelf[T]) -> None:
        super().__init__(shelf)
        self._row = shelf.row

    def __iter__(self) -> Iterator[T]:
        return iter(self._row)
