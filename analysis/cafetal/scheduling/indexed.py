"""What a plan has, by number: a million chunks in a tenth of the room that a dictionary needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Indexed(Mapping[int, T], Generic[T]):
    """Things numbered from 0 as they were planned, and what has come since."""

    def __init__(self, planned: Sequence[T] = ()) -> None:
        self._planned = list(planned)
        self._gone: set[int] = set()
        self.added: dict[int, T] = {}
        """Those that have come, and are still there."""

    def extend(self, first: int, more: Sequence[T]) -> None:
        """Others in a row, the first of which gets this number.

        Raises:
            KeyError: if a number was given before.
        """
        numbers = range(first, first + len(more))
        duplicate = next((number for number in (*self.added, *self._gone) if number in numbers), None)
        if duplicate is not None or first < len(self._planned):
            raise KeyError(first if duplicate is None else duplicate)
        if first == len(self._planned):
            self._planned.extend(more)
        else:  # numbers have been given to others meanwhile
            self.added.update(zip(numbers, more, strict=True))

    def add(self, more: Mapping[int, T]) -> None:
        """Others, under numbers that were not given yet.

        Raises:
            KeyError: if one was.
        """
        for number in more:
            if number < len(self._planned) or number in self.added or number in self._gone:
                raise KeyError(number)
        self.added.update(more)

    def remove(self, number: int) -> None:
        """Remove one that is there; its number is not given again.

        Raises:
            KeyError: if it is not.
        """
        if number not in self:
            raise KeyError(number)
        self.added.pop(number, None)
        self._gone.add(number)

    def __getitem__(self, number: int) -> T:
        if 0 <= number < len(self._planned) and number not in self._gone:
            return self._planned[number]
        return self.added[number]

    def __iter__(self) -> Iterator[int]:
        yield from (number for number in range(len(self._planned)) if number not in self._gone)
        yield from self.added

    def __len__(self) -> int:
        planned_and_gone = sum(number < len(self._planned) for number in self._gone)
        return len(self._planned) - planned_and_gone + len(self.added)
