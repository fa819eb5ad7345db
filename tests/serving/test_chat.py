"""OpenAI's contract, asked by OpenAI's own client."""

import threading
import time
from dataclasses import replace

import openai
import pytest
from chats import ask

from job.serving.chat import Stops
from job.serving.talks import TalkDesk


@pytest.fixture(scope="module")
def client(chat_server):
    with openai.OpenAI(
        base_url=f"{chat_server.url}/v1", api_key="none", max_retries=0, timeout=30
    ) as made:
        yield made


def say(client, text="how are you", **values):
    return client.chat.completions.create(model="tiny", messages=ask(text), **values)


def test_a_reply_is_predict_pys_with_its_counts(client, talker):
    expected = talker.reply(ask("how are you"))
    reply = say(client)
    (choice,) = reply.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == expected.text
    assert choice.finish_reason == "length"
    usage = reply.usage
    assert usage.completion_tokens == expected.tokens == 12
    assert usage.prompt_tokens == len(talker.fit(ask("how are you")).ids)
    assert usage.total_tokens == usage.prompt_tokens + 12


def test_a_streamed_reply_is_the_whole_one_in_pieces(client):
    whole = say(client).choices[0].message.content
    chunks = list(say(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [c.choices[0].delta.content for c in chunks[1:] if c.choices]
    assert "".join(text for text in texts if text) == whole
    assert sum(bool(text) for text in texts) > 3
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1


def test_an_end_token_ends_a_reply(talker, serving):
    ends = [talker.tokenizer(talker.reply(ask("hello")).text[-1])["input_ids"][0]]
    with serving(TalkDesk(replace(talker, ends=ends), "tiny")) as server:
        body = {"model": "tiny", "messages": ask("hello")}
        choice = server.client.post("/v1/chat/completions", json=body).json()["choices"][0]
        assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_the_reply_and_is_not_said(client, stream):
    whole = say(client).choices[0].message.content
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    answer = say(client, stop=["never said", stop], stream=stream)
    if stream:
        choices = [chunk.choices[0] for chunk in answer]
        text, finish = "".join(c.delta.content or "" for c in choices), choices[-1].finish_reason
    else:
        text, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (text, finish) == (whole[: whole.find(stop)].rstrip(), "stop")


def test_a_seed_gives_the_same_reply_again_and_none_another(client):
    warm = {"temperature": 2.0, "top_p": 0.9}
    first, again = (say(client, seed=7, **warm).choices[0].message.content for _ in range(2))
    assert first == again
    drawn = {say(client, **warm).choices[0].message.content for _ in range(4)}
    assert len(drawn) > 1


def test_lengths_are_taken_under_both_names(client):
    assert say(client, max_tokens=3).usage.completion_tokens == 3
    assert say(client, max_completion_tokens=2).usage.completion_tokens == 2


def test_parts_and_a_developer_are_read(client, talker):
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ]
    reply = client.chat.completions.create(model="tiny", messages=messages)
    plain = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    assert reply.choices[0].message.content == talker.reply(plain).text


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"n": 2}, "n is 2; this server takes 1 alone"),
        ({"logprobs": True}, "logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "has no 'tools'"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"temperature": 3}, "0 to 2"),
        ({"temperature": -1}, "0 to 2"),
        ({"top_p": 1.5}, "0 to 1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "differ"),
        ({"stop": ["a"] * 5}, "at most 4"),
        ({"seed": 1.5}, "whole number"),
        ({"stream_options": {"include_usage": True}}, "goes with stream"),
        ({"extra_body": {"best": 3}}, "has no 'best'"),
    ],
)
def test_what_is_not_there_is_refused_with_the_reason(client, values, part):
    with pytest.raises(openai.BadRequestError) as caught:
        say(client, **values)
    assert part in caught.value.message
    assert caught.value.body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("messages", "part"),
    [
        ([], "expected a list"),
        ([{"role": "assistant", "content": "hello"}], "the assistant's own"),
        ([{"role": "tool", "content": "5", "tool_call_id": "1"}], 'role is "tool"'),
        ([{"role": "user", "content": "say <|end|>"}], "the tokenizer would read"),
        ([{"role": "user", "content": "long " * 200}], "shorten it"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}],
         "reads text alone"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "expected text"),
    ],
)  # fmt: skip
def test_a_conversation_that_nobody_could_reply_to_is_a_bad_request(client, messages, part):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="tiny", messages=messages, stream=stream)
        assert part in caught.value.message


def test_models_are_listed_and_another_one_is_not_found(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "openloop"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'; here is 'tiny'"):
        client.chat.completions.create(model="gpt", messages=ask("hello"))
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")


def slowed(talker, seconds):
    """The same talker, a token each so many seconds; how many it has written."""
    written = []

    def decode(tokens, **named):
        written.append(len(tokens))
        time.sleep(seconds)
        return talker.tokenizer.decode(tokens, **named)

    class Slow:
        def __getattr__(self, name):
            return getattr(talker.tokenizer, name)

    slow = Slow()
    slow.decode = decode
    return replace(talker, tokenizer=slow, args=replace(talker.args, max_tokens=60)), written


def test_a_client_that_goes_away_stops_its_reply(talker, serving):
    slow, written = slowed(talker, 0.05)
    body = {"model": "tiny", "messages": ask("hello"), "stream": True}
    with serving(TalkDesk(slow, "tiny")) as server:
        with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
        deadline = time.monotonic() + 5
        while server.worker.opened.desk.busy() or server.service.waiting:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        seen = len(written)
        time.sleep(0.2)
        assert len(written) <= seen + 3 < 60
        assert server.client.get("/health").status_code == 200


def test_a_client_that_goes_away_stops_a_reply_that_says_nothing_yet(talker, serving):
    """Tokens without a text: half a character each."""
    slow, written = slowed(talker, 0.05)
    decode = slow.tokenizer.decode
    slow.tokenizer.decode = lambda tokens, **named: decode(tokens, **named) and "\ufffd"
    body = {"model": "tiny", "messages": ask("hello"), "stream": True}
    with serving(TalkDesk(slow, "tiny")) as server:
        with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
        deadline = time.monotonic() + 5
        while server.service.waiting:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        seen = len(written)
        time.sleep(0.3)
        assert len(written) <= seen + 2 < 60


def test_replies_are_written_one_after_the_other_and_a_late_one_gets_504(talker, serving):
    slow, _ = slowed(talker, 0.04)
    body = {"model": "tiny", "messages": ask("hello"), "max_tokens": 10}
    with serving(TalkDesk(slow, "tiny"), timeout=0.6) as server:
        statuses = []

        def post():
            answer = server.client.post("/v1/chat/completions", json=body)
            statuses.append((answer.status_code, answer.json().get("error", {}).get("type")))

        threads = [threading.Thread(target=post) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (504, "server_error") in statuses


def test_what_the_model_stumbles_over_ends_the_stream_with_an_error(talker, serving):
    class Broken:
        def __getattr__(self, name):
            return getattr(talker.tokenizer, name)

        def decode(self, tokens, **named):
            if len(tokens) > 2 or named is None:
                raise RuntimeError("out of memory")
            return talker.tokenizer.decode(tokens, **named) if len(tokens) < 2 else "\ufffd"

    with serving(TalkDesk(replace(talker, tokenizer=Broken()), "tiny")) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            say(client)
        with pytest.raises(openai.APIError, match="out of memory"):
            list(say(client, stream=True))
        assert server.client.get("/health").status_code == 200


def test_a_conversation_that_the_model_stumbles_over_ends_no_thread(talker, serving):
    def stumble(messages):
        raise RuntimeError("out of memory")

    with serving(TalkDesk(replace(talker, encode=stumble), "tiny")) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError, match="out of memory"):
                say(client, stream=stream)
        assert server.client.get("/health").status_code == 200


def test_labels_are_not_asked_of_a_chat_run_nor_replies_of_labels(chat_server, server):
    answer = chat_server.client.post("/predict", json={"inputs": "good"})
    assert answer.status_code == 404
    assert "POST /v1/chat/completions" in answer.json()["error"]
    for answer in (
        server.client.post("/v1/chat/completions", json={"messages": ask("hello")}),
        server.client.get("/v1/models"),
    ):
        assert answer.status_code == 404
        assert "ask POST /predict" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("stops", "pieces", "said"),
    [
        (["END"], ["one E", "N", "D two"], "one"),
        (["END"], ["one E", "N", "X two"], "one ENX two"),
        (["END"], ["one EN"], "one EN"),
        (["\n\n"], ["a\n", "\nb"], "a"),
        (["\n\n"], ["a\n", "b"], "a\nb"),
        (["ab", "b"], ["xa", "b"], "x"),
        ([], ["a ", " ", "b  "], "a  b"),
        (["aab"], ["a", "a", "a", "b", "c"], "a"),
    ],
)
def test_a_stop_text_is_met_whatever_the_pieces(stops, pieces, said):
    out = Stops(stops)
    heard = ""
    for piece in pieces:
        heard += out.add(piece)
        if out.hit:
            break
    assert heard + out.end() == said
