"""What keeping each side costs: the packages that it brings, and the code of its twin."""
