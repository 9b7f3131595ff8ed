"""A process of the user's that stays between commands: it keeps sites started, and modules imported."""
