"""Partial results of single files that stay at a site, so that later runs need not process the files again."""
