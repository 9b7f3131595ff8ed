"""What the scheduler expects of sites: rates, how long work takes, and how sure that is."""
