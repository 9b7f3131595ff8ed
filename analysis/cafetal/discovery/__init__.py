"""Finds the files of datasets and their replicas, in Rucio, in directories and in public lists, and makes filesets."""
