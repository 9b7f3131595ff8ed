"""What coffea's Runner talks to: the executor, its session, forecast and progress; and processors by path."""
