"""Files that are not where they are processed: read over the WAN, or brought there."""
