"""The kinds of endpoints that a site table knows."""
