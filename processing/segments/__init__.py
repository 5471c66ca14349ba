"""How a film becomes clips and sequences. One file is one stage, named after the file."""
