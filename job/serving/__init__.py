"""A finished run that answers over HTTP."""
