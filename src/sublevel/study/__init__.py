"""Studies: what is trained, pruned and measured, as cells with content-addressed results."""
