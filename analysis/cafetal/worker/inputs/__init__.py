"""Input files at a site: their names, opening and reading them, local or behind a server, and their checksums."""
