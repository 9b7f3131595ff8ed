"""Logical and physical file names: one file, one LFN; at each site that holds it, one PFN."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TypedDict

Rules = str | Mapping[str, str]
"""Either a prefix, or ``{regex over the LFN: template with $1, $2, ...}`` as in the CMS site tables."""


def to_pfn(lfn: str, rules: Rules) -> str | None:
    """Return the PFN of an LFN at a site with these rules; ``None`` if no rule fits.

    A prefix and an LFN are joined as they are, with one slash put in where neither has any: XRootD needs
    the double slash in ``root://host:1094//store/...``.

    >>> to_pfn("/store/a.root", "root://host:1094/")
    'root://host:1094//store/a.root'
    >>> to_pfn("/store/user/a.root", {"^/store/user/(.*)": "https://host/$1"})
    'https://host/a.root'
    """
    if isinstance(rules, str):
        gap = "" if rules.endswith("/") or lfn.startswith("/") else "/"
        return f"{rules}{gap}{lfn}"
    for pattern, template in rules.items():
        if match := re.search(pattern, lfn):
            # Python writes a group as \g<1>, the CMS site tables as $1.
            return match.expand(re.sub(r"\$(\d+)", r"\\g<\1>", template.replace("\\", r"\\")))
    return None


class SiteNames(TypedDict):
    """How a site calls files; what a task needs to turn LFNs into PFNs where it runs."""

    rules: Rules
    explicit: dict[str, str]
    """``{lfn: PFN}`` where the rules say something else, or nothing."""


def site_names(rules: Rules, pfns: Mapping[str, str]) -> SiteNames:
    """Return the names for some files of which the PFNs at a site are known."""
    return {"rules": rules, "explicit": {lfn: pfn for lfn, pfn in pfns.items() if to_pfn(lfn, rules) != pfn}}


def resolve(lfn: str, names: SiteNames) -> str:
    """Return the PFN of a file at the site where this runs; ``$VARIABLES`` and ``~`` mean what they mean there.

    Raises:
        LookupError: if the site has no name for it; the plan would not have sent it here.
    """
    pfn = names["explicit"].get(lfn) or to_pfn(lfn, names["rules"])
    if pfn is None:
        raise LookupError(f"No rule of this site fits {lfn}.")
    return os.path.expanduser(os.path.expandvars(pfn))


def prefixes(rules: Rules) -> list[str]:
    """Return how every PFN at such a site begins; what comes before the first ``$`` of each template.

    A prefix ends at a slash: ``/data/ab`` does not lie under ``/data/a``.
    """
    if isinstance(rules, str):
        return [rules if rules.endswith("/") else rules + "/"]
    return [template.split("$", 1)[0] for template in rules.values()]
