"""What is measured of an enhanced image."""
