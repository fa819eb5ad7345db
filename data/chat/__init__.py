"""Conversations: read as messages, rendered and masked, cut to length, packed, made into batches."""
