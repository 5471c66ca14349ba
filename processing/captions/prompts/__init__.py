"""Instructions to models, one Markdown file each; see `civid_loader.processing.prompts`."""
