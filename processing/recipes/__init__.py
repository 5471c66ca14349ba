"""What the papers do to their videos, as data. One file is one recipe, see `civid_loader.processing.recipe`."""
