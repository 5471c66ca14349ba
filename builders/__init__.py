"""One file is one dataset: upstream's files to sample rows."""
