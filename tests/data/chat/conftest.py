from talks import chatml, raw_tokenizer, tokenizer_for

__all__ = ["chatml", "raw_tokenizer", "tokenizer_for"]
