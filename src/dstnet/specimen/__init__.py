"""What the beam passes through: placed particles, ice, contamination, the support film."""
