"""A finished run in other people's formats, each checked after it is written."""
