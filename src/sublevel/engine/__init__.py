"""The engine computes every cell of a graph once, also with concurrent runs and dying processes.

It knows no science. A cell is a kind, JSON inputs and a key; a job names the function that computes it. Import-linter
checks that nothing here imports code that trains, prunes or measures.
"""
