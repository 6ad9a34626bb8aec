"""The engine: computes a graph of cells once each, whoever else is at it and whatever ends on the way.

It knows no science. A cell is a kind, JSON inputs and a key; a job names the function that computes it. Import-linter
holds that nothing here imports what trains, prunes or measures.
"""
