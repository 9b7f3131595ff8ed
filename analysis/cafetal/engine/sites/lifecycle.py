"""The sites of a run: started when the scheduler asks for them, watched, drained, and given up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from cafetal.engine.context import RunContext
from cafetal.engine.events import LoginsReported, SiteAnswered, SiteReported
from cafetal.engine.sites.credentials import Credentials
from cafetal.engine.sites.install import install
from cafetal.engine.sites.login_forwarding import LoginForwarding
from cafetal.engine.sites.site_monitor import SiteMonitor, drained
from cafetal.engine.tasks.losses import lost_task
from cafetal.errors import LoginError
from cafetal.federation.versions import LOOKED_AT, differences, versions_here
from cafetal.futures import done, then
from cafetal.results.lines import journal_lines as lines
from cafetal.results.record import reason
from cafetal.results.task_logs import SITE_LOGS
from cafetal.scheduling import messages
from cafetal.worker.protocol import Failure


class SiteLifecycle:
    """Knows which sites were asked, which have answered, and which the user has drained.

    Args:
        on_ready: called with a site that has answered.
        on_lost: called with a site that is given up, and why.
    """

    def __init__(
        self, context: RunContext, *, on_ready: Callable[[str], None], on_lost: Callable[[str, Failure], None]
    ) -> None:
        self._context, self._on_ready, self._on_lost = context, on_ready, on_lost
        self._asked: dict[str, float] = {}
        """When each site was asked last."""
        self.asking: set[str] = set()
        """Sites that have not answered yet."""
        self.waits: dict[str, float] = {}
        """Seconds until each site answered first."""
        self._drained: frozenset[str] = frozenset()
        self._monitor = SiteMonitor(context.federation, lambda *report: context.events.put(SiteReported(*report)))
        self._forwarding = LoginForwarding(context.client, context.plan.table)
        self._credentials = Credentials(
            context.client,
            context.record,
            context.plan.table,
            tell=lambda site, reply: context.events.put(LoginsReported(site, reply)),
            remark=context.remark,
        )

    def ask(self, sites: Sequence[str]) -> None:
        """Start sites, side by side, and have them answer."""
        for site in [site for site in sites if site not in self.asking]:
            self.asking.add(site)
            self._asked[site] = self._context.now()
            self._forwarding.forget(site)
            installed = self._with_logins(site, install(self._context.federation, site, self._context.shipment))
            installed.add_done_callback(
                partial(lambda site, done: self._context.events.put(SiteAnswered(site, done.result())), site)
            )

    def _with_logins(self, site: str, installed: Future[object]) -> Future[object]:
        """Return a future with the same reply that ends when the site has the logins it is to get."""

        def send(reply: object) -> Future[object]:
            sent: Future[object] = done(None) if isinstance(reply, Exception) else self._forwarding.send(site)
            return then(sent, lambda _: reply)

        return then(installed, send)

    def answered(self, event: SiteAnswered) -> None:
        """Take a site in, or give it up.

        Raises:
            LoginError: if its login is not valid, which is the user's to mend.
        """
        site, reply, context = event.site, event.reply, self._context
        self.asking.discard(site)
        if isinstance(reply, LoginError):
            raise reply
        if isinstance(reply, Exception):
            failure: Failure = {**lost_task(reply, site), "kind": "site"}
            context.fail(failure)
            self.lose(site, failure)
            return
        context.failures.forget_site(site)
        self.waits.setdefault(site, context.now() - self._asked[site])
        self._introduce(site, reply)
        self._monitor.add(site)
        left = reply["machine"]["walltime_left"]
        ends = None if left is None else context.now() + left
        context.tell(messages.SiteReport(context.now(), site, context.federation.table.sites[site].workers, ends))
        self._on_ready(site)

    def _introduce(self, site: str, introduction: Mapping[str, Any]) -> None:
        """Record the software of a site, and how it differs from the software here."""
        names = ("python", *LOOKED_AT, "environment", "hash_seed")
        software = {name: introduction[name] for name in names if introduction.get(name)}
        remarks = [f"{site}: {difference}" for difference in differences(software, versions_here())]
        self._context.note(lines.SoftwareFound(site, software, remarks))

    def reported(self, event: SiteReported) -> None:
        """Take note of a site's workers; of a site that has to answer first, or is given up, they mean nothing."""
        context = self._context
        context.record.workers[event.site] = event.connected
        if context.scheduler.state.sites[event.site].ready:
            ends = None if event.walltime_left is None else context.now() + event.walltime_left
            context.tell(messages.SiteReport(context.now(), event.site, event.workers, ends, event.connected))

    def logins_reported(self, event: LoginsReported) -> None:
        """Judge the logins of a site."""
        self._credentials.take(event.site, event.reply)

    def lose(self, site: str, failure: Failure) -> None:
        """Give a site up."""
        context = self._context
        context.failures.enter_site(site, failure)
        why, folder = reason(failure), context.settings.folder
        if folder is not None and context.federation.keep_words(site, folder / SITE_LOGS / site):
            why += f" (its logs are in {SITE_LOGS}/{site})"
        context.tell(messages.SiteLost(context.now(), site, why))
        self._on_lost(site, failure)

    def tick(self) -> None:
        """Take note of sites that the user has drained or taken back; ask for logins, end what is overdue."""
        context = self._context
        drained_now = drained(context.settings.folder) & context.scheduler.state.sites.keys()
        for site in drained_now ^ self._drained:
            context.tell(messages.SiteDrained(context.now(), site, site in drained_now))
        self._drained = drained_now
        context.client.give_up_overdue(context.now(), self._queueing())
        for name, state in context.scheduler.state.sites.items():
            if state.ready:
                self._forwarding.look(name)
                self._credentials.look(name)

    def _queueing(self) -> list[str]:
        """Return sites whose batch system has not given them any workers; a local one starts them at once."""
        table, states = self._context.federation.table.sites, self._context.scheduler.state.sites.items()
        return [name for name, it in states if it.connected == 0 and not table[name].endpoint.starts_at_once]

    def close(self) -> None:
        """Stop watching the sites."""
        self._monitor.close()

    def clean(self, patience: float) -> None:
        """Remove what this run left at the sites that answer within so many seconds."""
        sites = self._context.scheduler.state.sites.items()
        reachable = [name for name, state in sites if state.ready and state.lost is None]
        client, cache = self._context.client, self._context.cache
        doomed = {} if cache is None else {site: cache.beyond_bounds(site) for site in reachable}
        for site in client.clean(reachable, patience, self._context.settings.replaced, doomed):
            if cache is not None:
                cache.forget(site, doomed[site])
