"""What travels to a site besides tasks, and the digest of it."""
