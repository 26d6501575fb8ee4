"""What a camera does to a movie, taken out before the alignment."""
