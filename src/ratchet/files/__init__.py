"""Reading files of rows, and printing hostile text."""
