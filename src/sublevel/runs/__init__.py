"""A run: a study carried out, its result on disk, and what a person sees of it."""
