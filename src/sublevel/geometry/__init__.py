"""The geometry of the loss landscape. It sees only fields, points and vectors."""
