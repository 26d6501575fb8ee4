"""Networks by name, the card that describes their weights, and the released weights."""
