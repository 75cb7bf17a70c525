"""What Tandem's data path is compared with; each runs in the environment that has it."""
