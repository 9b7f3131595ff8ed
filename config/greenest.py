"""An example of a routing policy: the greenest of the sites that finish within twice the shortest time.

cafetal run ... --policy config/greenest.py:Greenest
"""

# Grams of CO2 per kWh: look up the values for the grids of your sites.
GRAMS = {"desy": 380, "cern": 60, "nebraska": 450}


class Greenest:
    """Needs nothing from Cafetal: one method that gets the candidate sites and returns the name of one."""

    def choose(self, task, sites):
        """``site.finish(size)`` estimates the seconds until the site finishes the task, from its queue and speed."""
        soonest = min(site.finish(task.size) for site in sites)
        soon_enough = [site for site in sites if site.finish(task.size) <= 2 * soonest]
        return min(soon_enough, key=lambda site: GRAMS.get(site.name, 400)).name
