"""What code needs besides itself: found, locked, packed, and unpacked at sites."""
