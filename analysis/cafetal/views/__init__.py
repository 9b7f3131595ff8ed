"""What a person sees: plots and tables."""
