"""All that runs at a site.

These modules travel to the sites as one zip, where they are imported as ``cafetal_worker_<hash>``: a site has
coffea and an endpoint, but no cafetal. So they import the standard library, uproot and coffea, one another
by relative import, and nothing else. They are also the one home of what both sides must agree on: names
(LFN and PFN), sets of chunks, references to partials.
"""
