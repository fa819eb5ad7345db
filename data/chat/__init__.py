"""Conversations: read as messages, rendered, masked, cut to length, packed, made into batches."""
