"""Trains any nn.Module on any iterable of batches; knows nothing of LoRA, BERT or IMDb."""
