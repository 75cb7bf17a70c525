"""What every page that the program writes has in common: one look, one file, no network."""
