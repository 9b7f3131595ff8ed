"""Chunks that wait, by what they need: neighbours of one dataset that the same sites can take."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from cafetal.scheduling.chunks import MOST_CHUNKS, Bundle, Chunk

Key = tuple[str, tuple[str, ...], tuple[str, ...] | None, str]
"""A dataset, the sites that can take its chunks, those that may read them of other sites over the WAN (``None``: any),
and the storage element that all sites read them from (empty: none).
"""


@dataclass(slots=True)
class Group:
    """Waiting chunks with the same dataset and sites: fresh ones in order, and bundles that came back."""

    dataset: str
    sites: tuple[str, ...]
    readers: tuple[str, ...] | None = None
    storage: str = ""
    fresh: deque[Chunk] = field(default_factory=deque)
    returned: deque[Bundle] = field(default_factory=deque)
    """They are not mixed with others, so that what fails again fails alone."""
    events: int = 0

    def take(self, most: float, fixed: float = 0.0) -> Bundle:
        """Take neighbours, one chunk at least and no more work than ``most``, first of bundles that came back.

        ``fixed`` is the work of a chunk besides its events (see `estimates.rates`).
        """
        if self.returned:
            item = self.returned.popleft()
            count, events = 1, item.chunks[0].events
            while count < min(len(item.chunks), MOST_CHUNKS):
                if events + item.chunks[count].events + (count + 1) * fixed > most:
                    break
                events += item.chunks[count].events
                count += 1
            if count < len(item.chunks):
                self.returned.appendleft(replace(item, chunks=item.chunks[count:]))
            self.events -= events
            return replace(item, chunks=item.chunks[:count])
        chunks = [self.fresh.popleft()]
        events = chunks[0].events
        while self.fresh and len(chunks) < MOST_CHUNKS:
            if events + self.fresh[0].events + (len(chunks) + 1) * fixed > most:
                break
            chunks.append(self.fresh.popleft())
            events += chunks[-1].events
        self.events -= events
        return Bundle(0, tuple(chunks))

    @property
    def chunks(self) -> int:
        """How many wait."""
        return len(self.fresh) + sum(len(item.chunks) for item in self.returned)

    @property
    def key(self) -> Key:
        """What its chunks need."""
        return self.dataset, self.sites, self.readers, self.storage

    @property
    def source(self) -> str | None:
        """The storage element that is read over the WAN; ``None``: each site reads its own replica."""
        return self.storage or None

    @property
    def holders(self) -> tuple[str, ...]:
        """Sites that hold what would be taken next, also if they may not take it."""
        return self.returned[0].sites if self.returned else self.sites

    @property
    def first(self) -> int:
        """Events of the least that can be taken."""
        return self.returned[0].chunks[0].events if self.returned else self.fresh[0].events

    @property
    def empty(self) -> bool:
        """Whether nothing waits; chunks without events wait too."""
        return not self.fresh and not self.returned


class PendingWork:
    """All that waits, in groups."""

    def __init__(self) -> None:
        self._groups: dict[Key, Group] = {}
        self._by_site: dict[str, list[Group]] = {}
        self._failed: dict[Key, Group] = {}
        self.storage: set[str] = set()
        """Storage elements that have ever been in a group."""

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Add chunks that nobody has tried."""
        for chunk in chunks:
            group = self._group(chunk, chunk.sites)
            group.fresh.append(chunk)
            group.events += chunk.events

    def avoid(self, lfn: str, site: str, alive: Collection[str]) -> None:
        """Have the fresh chunks of a file wait for the other sites that hold it, if any of these is alive."""
        for group in list(self.at(site)):
            others = tuple(name for name in group.sites if name != site and name in alive)
            going = [chunk for chunk in group.fresh if chunk.lfn == lfn]
            if not others or not going:
                continue
            group.fresh = deque(chunk for chunk in group.fresh if chunk.lfn != lfn)
            group.events -= sum(chunk.events for chunk in going)
            for chunk in going:
                other = self._group(chunk, others)
                other.fresh.append(chunk)
                other.events += chunk.events

    def arrive(self, lfns: Collection[str], site: str) -> None:
        """Have the fresh chunks of some files wait for another site too, where these are now."""
        for group in list(self):
            if site in group.sites:
                continue
            going = [chunk for chunk in group.fresh if chunk.lfn in lfns]
            if not going:
                continue
            group.fresh = deque(chunk for chunk in group.fresh if chunk.lfn not in lfns)
            group.events -= sum(chunk.events for chunk in going)
            other = self._group(going[0], (*group.sites, site))
            for chunk in going:
                other.fresh.append(replace(chunk, sites=(*chunk.sites, site)))
                other.events += chunk.events

    def put_back(self, item: Bundle, sites: tuple[str, ...]) -> None:
        """Put back a bundle for those sites that may still take it."""
        group = self._group(item.chunks[0], sites)
        group.returned.append(item)
        group.events += item.events
        if item.again:
            self._failed[group.key] = group

    def failed(self, site: str) -> list[Group]:
        """Return the groups that a site can take of which the next bundle has failed before."""
        for key in [key for key, group in self._failed.items() if not group.returned]:
            del self._failed[key]
        return [group for group in self._failed.values() if site in group.sites and group.returned[0].again]

    def _group(self, chunk: Chunk, sites: tuple[str, ...]) -> Group:
        key = (chunk.dataset, sites, chunk.readers, chunk.storage)
        if key not in self._groups:
            self._groups[key] = Group(*key)
            self.storage.update({chunk.storage} - {""})
            for site in sites:
                self._by_site.setdefault(site, []).append(self._groups[key])
        return self._groups[key]

    def at(self, site: str) -> Iterator[Group]:
        """Return groups with waiting work that a site can take."""
        return (group for group in self._by_site.get(site, ()) if not group.empty)

    def tidy(self) -> None:
        """Forget groups in which nothing waits, so that nobody has to pass over them."""
        self._groups = {key: group for key, group in self._groups.items() if not group.empty}
        self._by_site = {site: [group for group in groups if not group.empty] for site, groups in self._by_site.items()}

    def __iter__(self) -> Iterator[Group]:
        return (group for group in self._groups.values() if not group.empty)

    def drain(self, group: Group) -> list[Bundle]:
        """Return all that waits in a group, which is empty then."""
        items = list(group.returned)
        if group.fresh:
            items.append(Bundle(0, tuple(group.fresh)))
        group.returned.clear()
        group.fresh.clear()
        group.events = 0
        return items

    def clear(self) -> None:
        """Drop everything."""
        self._groups.clear()
        self._by_site.clear()
        self._failed.clear()

    def __bool__(self) -> bool:
        return any(True for _ in self)
