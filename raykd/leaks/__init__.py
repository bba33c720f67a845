"""What uploads give away, found out by attacking those that a run has kept."""
