"""Records in, something to look at out: words, plots and pages."""
