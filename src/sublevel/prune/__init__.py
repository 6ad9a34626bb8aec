"""Which weights to remove: scores say how much each is worth, selection turns scores into a mask of an exact count."""
