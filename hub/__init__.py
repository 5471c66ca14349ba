"""Publishing: everything that talks to the Hugging Face Hub. A built folder has the Hub's layout already."""
