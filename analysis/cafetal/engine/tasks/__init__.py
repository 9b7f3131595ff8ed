"""What the engine has sites do: the task client, checks of replies, futures, and what Runner asked for."""
