"""Publishing: the dataset card, push and pull. Nothing here yet.

What belongs here: everything that talks to the Hugging Face Hub. A built folder (`civid_loader.materialize`)
already has the Hub's layout, so this room uploads it, layer by layer, and never needs to rewrite a shard.
"""
