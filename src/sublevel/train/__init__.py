"""Training with a frozen recipe: from a start point to an end point."""
