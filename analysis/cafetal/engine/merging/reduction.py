"""The reduce trees of a run: one a site, growing as partials are committed there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from cafetal.engine import user_messages
from cafetal.scheduling.reduction_tree import Reduce, TreeGrower
from cafetal.scheduling.retries import TRIES
from cafetal.worker.protocol import Failure, Reference

Submit = Callable[["Merge", Sequence[Future[object]]], None]


@dataclass(frozen=True, slots=True)
class Merge:
    """A reduce that was submitted, for the so-many-th time."""

    site: str
    reduce: Reduce
    tree: int
    """Which one, counting all of the run: a site whose partials are lost begins a new one."""
    settled: Future[object]
    """Ends when it has succeeded or was tried often enough; what depends on it waits for this."""
    tries: int = 1


@dataclass(slots=True)
class _SiteTree:
    number: int
    grower: TreeGrower
    nodes: dict[int, Future[object]] = field(default_factory=dict)
    open: int = 0


class Reductions:
    """Submits reduces as their inputs come to be, and tells where the roots are.

    Args:
        fan_in: how many partials one reduce merges.
        submit: sends a reduce with the futures of its inputs; its result must be given to `ended`.
        lost: called with a site and the failure, when a reduce there has failed for good; it must `forget` the site.
        away: called with a reduce whose site is away; it is to be sent by `send` once the site is there again, or the
            site must be forgotten.
        failed: called with whatever fails, mended or not.
        repeated: called with a site whenever a reduce is sent to it once more.
    """

    def __init__(
        self,
        fan_in: int,
        *,
        submit: Submit,
        lost: Callable[[str, Failure], None],
        away: Callable[[Merge], None],
        failed: Callable[[Failure], None],
        repeated: Callable[[str], None],
    ) -> None:
        self.fan_in = fan_in
        self._submit, self._lost, self._away = submit, lost, away
        self._failed, self._repeated = failed, repeated
        self._sites: dict[str, _SiteTree] = {}
        self._begun = 0
        self.leaves = 0
        """Partials that were added so far."""

    @property
    def busy(self) -> bool:
        """Whether reduces are under way."""
        return any(tree.open for tree in self._sites.values())

    def add(self, site: str, partial: Future[object]) -> None:
        """Add a partial that counts, in the form of the future whose result names it."""
        tree = self._sites.get(site)
        if tree is None:
            tree = self._sites[site] = _SiteTree(self._begun, TreeGrower(self.fan_in))
            self._begun += 1
        leaf, reduces = tree.grower.add_leaf()
        self.leaves += 1
        tree.nodes[leaf] = partial
        self._start(site, tree, reduces)

    def _start(self, site: str, tree: _SiteTree, reduces: Sequence[Reduce]) -> None:
        for merge in reduces:
            settled: Future[object] = Future()
            tree.nodes[merge.node] = settled
            tree.open += 1
            self._submit(Merge(site, merge, tree.number, settled), [tree.nodes[node] for node in merge.inputs])

    def send(self, merge: Merge) -> None:
        """Submit a reduce once more, if anybody still waits for it."""
        tree = self._sites.get(merge.site)
        if tree is None or tree.number != merge.tree:
            merge.settled.set_result({"partial": None})
        else:
            self._repeated(merge.site)
            self._submit(merge, [tree.nodes[node] for node in merge.reduce.inputs])

    def ended(self, merge: Merge, result: dict[str, Any]) -> bool:
        """Take what a reduce has brought; return whether anybody has waited for it.

        Raises:
            ProcessorError: if the outputs do not add up with one another, which no repetition can mend.
        """
        tree = self._sites.get(merge.site)
        if tree is None or tree.number != merge.tree:  # nobody waits for it any more but other reduces
            merge.settled.set_result({"partial": None})
            return False
        if "failure" in result:
            self._failed(result["failure"])
            if result["failure"]["kind"] == "processor":
                raise user_messages.merge_error(result["failure"])
            if result["failure"]["kind"] == "away":
                self._away(merge)
                return True
            if merge.tries < TRIES and result["failure"]["kind"] != "site":
                self.send(replace(merge, tries=merge.tries + 1))
                return True
            merge.settled.set_result({"partial": None})
            self._lost(merge.site, result["failure"])
            return True
        for failure in result["lost"]:
            self._failed(failure)
        for node in merge.reduce.inputs:  # nobody will ask for them again
            del tree.nodes[node]
        tree.open -= 1
        merge.settled.set_result({"partial": result["partial"]})
        return True

    def finish(self) -> dict[str, Future[object]]:
        """Submit the last reduces; the root of every site that has partials, good once nothing is `busy`."""
        ends: dict[str, Future[object]] = {}
        for site, tree in self._sites.items():
            root, reduces = tree.grower.finish()
            self._start(site, tree, reduces)
            if root is not None:
                ends[site] = tree.nodes[root]
        return ends

    def references(self, ends: dict[str, Future[Any]]) -> dict[str, Reference]:
        """Return what the roots are; those that are lost, as their sites may be, are left out."""
        references = {
            site: root.result()["partial"]
            for site, root in ends.items()
            if site in self._sites and root in self._sites[site].nodes.values()
        }
        return {site: reference for site, reference in references.items() if reference is not None}

    def forget(self, site: str) -> None:
        """Forget a site whose partials cannot be had any more."""
        self._sites.pop(site, None)
