"""What this machine remembers between runs: speeds of sites, entries of files."""
