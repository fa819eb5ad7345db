"""Language models: conversations in, replies out."""
