"""What enhanced images, picks, motions and expected errors are worth, by a truth or a control."""
