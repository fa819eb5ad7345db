"""Programs that open an export as its users do. Each runs by itself, in a process without
openloop:

    python -I CHECKER FOLDER QUESTIONS.json ANSWERS.json

QUESTIONS of labelled texts: task "classify", texts (each one, or two), batch (rows at once),
threads, kind, labels, likeliest (whether the likeliest label is the answer). ANSWERS: outputs
(N, C); shares (N, C) and labels (a name, or those that hold) where the tool itself tells them;
seconds that `rows` rows took; peak (bytes); versions.

QUESTIONS of a chat: task "chat", messages of each prompt (or texts where `plain`), replies (token
ids that openloop wrote), tokens (most of a reply), ends (ids that end one), threads. ANSWERS:
prompts (token ids), replies (likewise, without what ended them), logprobs of the tokens of
openloop's replies; seconds, tokens, peak, versions.

None of them imports another: each is what stands in the file.
"""
