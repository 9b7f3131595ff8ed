"""A site table of one site on this machine, for tests of commands."""

import json

from cafetal.config import load_sites


def write_table(folder, **more):
    """Write ``sites.json`` into a folder, whose subfolder ``data`` the site holds; return the table."""
    site = {"pfn": f"{folder}/data", "scratch": f"{folder}/scratch", "workers": 2}
    (folder / "sites.json").write_text(json.dumps({"sites": {"here": site}, **more}))
    return load_sites(folder / "sites.json")
