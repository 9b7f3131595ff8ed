"""A routing policy as users write it: the greenest site, unless a browner one would be done in half the time.

cafetal run ... --policy config/greenest.py:Greenest
"""

# Grams of CO2 for a kWh: look up those of your sites' grids.
GRAMS = {"desy": 380, "cern": 60, "nebraska": 450}


class Greenest:
    """Needs nothing of Cafetal: one method that is offered sites, and returns the name of one of them."""

    def choose(self, task, sites):
        """``site.finish(size)``: seconds until the site would be done with it, by its queue and its speed."""
        soonest = min(site.finish(task.size) for site in sites)
        soon_enough = [site for site in sites if site.finish(task.size) <= 2 * soonest]
        return min(soon_enough, key=lambda site: GRAMS.get(site.name, 400)).name
