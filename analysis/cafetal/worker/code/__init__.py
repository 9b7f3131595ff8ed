"""The user's code at a site: unpacked, imported, its state set, its printed output kept."""
