"""What others find: the analyses once more, with ROOT, from their definitions alone; answers are kept beside this."""
