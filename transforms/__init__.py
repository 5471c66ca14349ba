"""Sample in, sample out; randomness is handed in. One file is one transform, named after the file."""
