"""What is stored, written out for other tools: kinds, formats and where they go.

`ratchet.export.grammar` says which kinds there are, in which formats each comes and which options
choose of it. A kind is a module with a function that yields parts; a format is a function that
writes parts. To add a kind or a format is a line of the grammar and such a function.
"""
