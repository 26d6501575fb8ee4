"""Work dealt to processes here or on a cluster: one call, typed outcomes."""
