"""Runs as repositories of the Hugging Face Hub, each with a model card."""
