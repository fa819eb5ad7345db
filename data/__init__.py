"""From a source of labelled texts to batches of token ids. Knows nothing of models or training."""
