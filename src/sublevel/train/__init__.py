"""Training by a frozen recipe: from one point to others."""
