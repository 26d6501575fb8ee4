"""Methods scored side by side, by a truth, by what people marked, or by neither."""
