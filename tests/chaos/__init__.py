"""Runs that are disturbed at random, from a seed, and judged: the right histograms, or a loud and right account.

`schedule` draws what will break, purely. `places` break it, for local sites and for Globus Compute, and mend it again.
`driver` is the physicist's Python process, which may be killed too. `judge` says what is wrong with what came of it.
`campaign` plays many runs and keeps a report; ``./scripts/chaos`` is its command.
"""
