"""The contract of text-embeddings-inference, answered by a run on labels."""

import json
from dataclasses import replace

import pytest
from conftest import make_reviews

from engine.decision import override
from job.serving.labels import LabelDesk

TEXTS = [text for text, _ in make_reviews(40)]


def ask(server, **body):
    return server.client.post("/predict", json=body)


def test_one_text_gets_one_list_sorted_by_score(server, predictor):
    for inputs in (TEXTS[0], [TEXTS[0]]):
        answer = ask(server, inputs=inputs)
        assert answer.status_code == 200
        scores = [element["score"] for element in answer.json()]
        assert scores == sorted(scores, reverse=True)
        expected = predictor([TEXTS[0]])[0]
        by_label = {element["label"]: element["score"] for element in answer.json()}
        assert by_label == pytest.approx(expected.probabilities, abs=1e-6)


def test_a_batch_gets_predict_pys_answers_in_its_order(server, predictor):
    mixed = [text * (1 + i % 4) for i, text in enumerate(TEXTS)]
    answer = ask(server, inputs=[[text] for text in mixed]).json()
    for row, expected in zip(answer, predictor(mixed), strict=True):
        by_label = {element["label"]: element["score"] for element in row}
        assert by_label == pytest.approx(expected.probabilities, abs=1e-3)
        assert [element["label"] for element in row if element["holds"]] == [expected.label]
        assert {element["unsure"] for element in row} == {expected.unsure}


def test_raw_scores_are_the_logits(server, predictor):
    (row,) = ask(server, inputs=[[TEXTS[3]]], raw_scores=True).json()
    by_label = {element["label"]: element["score"] for element in row}
    expected = predictor.logits([TEXTS[3]])[0].tolist()
    assert [by_label[name] for name in predictor.label_names] == pytest.approx(expected, abs=1e-5)


def test_a_longer_text_is_cut_and_says_so_or_is_refused(server):
    long = "good film " * 60
    assert {e["truncated"] for e in ask(server, inputs=long).json()} == {True}
    assert {e["truncated"] for e in ask(server, inputs="good film").json()} == {False}
    answer = ask(server, inputs=[["good"], [long]], truncate=False)
    assert (answer.status_code, answer.json()["error_type"]) == (413, "validation")
    assert "item 1 is longer than the 32 tokens" in answer.json()["error"]


@pytest.mark.parametrize(
    ("text", "reason", "refused"),
    [
        ("", "empty text", (400, "empty")),
        (" \n", "empty text", (400, "empty")),
        ("\ud800", "lone surrogate", (422, "tokenizer")),
        ("<br />", "nothing is left", (422, "tokenizer")),
    ],
)
def test_what_is_no_text_is_named_and_spoils_nothing_where_the_rest_is_wanted(
    server, text, reason, refused
):
    body = json.dumps({"inputs": [["good film"], [text]]})
    kind = {"Content-Type": "application/json"}
    answer = server.client.post("/predict", content=body, headers=kind)
    assert (answer.status_code, answer.json()["error_type"]) == refused
    assert answer.json()["error"].startswith("inputs: item 1: ")
    assert reason in answer.json()["error"]
    body = json.dumps({"inputs": [["good film"], [text]], "partial": True})
    good, bad = server.client.post("/predict", content=body, headers=kind).json()
    assert good[0]["score"] > 0.4
    assert reason in bad[0]["error"]
    assert bad[0]["error_type"] == refused[1]


@pytest.mark.parametrize("item", [[3], [None], None, 7, {"text": "a"}, [], ["a", "b"], [["a"]]])
def test_an_item_that_is_not_even_a_string_spoils_nothing_either(server, predictor, item):
    inputs = [["good film"], item, ["bad plot"]]
    answer = ask(server, inputs=inputs)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")
    assert answer.json()["error"].startswith("inputs: item 1 ")
    good, wrong, bad = ask(server, inputs=inputs, partial=True).json()
    assert [good[0]["label"], bad[0]["label"]] == [
        max(p.probabilities, key=p.probabilities.get) for p in predictor(["good film", "bad plot"])
    ]
    ((error, kind),) = [(part["error"], part["error_type"]) for part in wrong]
    assert (error.startswith("this item "), kind) == (True, "validation")
    (alone,) = ask(server, inputs=[item if isinstance(item, list) else [item]], partial=True).json()
    assert alone[0]["error_type"] == "validation"


def test_the_shape_of_inputs_is_refused_with_partial_too(server):
    for inputs in (7, [None], [3], {"text": "a"}, None):
        assert ask(server, inputs=inputs, partial=True).status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({"inputs": []}, 400, "at least one text"),
        ({"inputs": ""}, 400, "inputs: empty text"),
        ({"inputs": [[""]]}, 400, "inputs: item 0: empty text"),
        ({"inputs": ["a", "b"]}, 422, "a list of 2 strings, and this run reads single texts"),
        ({"inputs": ["a", "b", "c"]}, 422, "3 strings, and this run reads single texts; a batch"),
        ({"inputs": [1, 2]}, 422, "inputs is [1, 2]; this run reads single texts"),
        ({"inputs": [["a", "b"]]}, 422, "single texts"),
        ({"inputs": [["a"], 7]}, 422, "item 1 is 7;"),
        ({"inputs": 7}, 422, "inputs is 7;"),
        ({}, 422, "the field inputs is missing; expected "),
        ({"inputs": None}, 422, "inputs is null;"),
        ({"inputs": [None]}, 422, "inputs is [null];"),
        ({"inputs": [["a"], [True]]}, 422, "item 1 is [true];"),
        ({"inputs": {"a": "\ud800"}}, 422, 'inputs is {"a": "\\ud800"};'),
        ([], 422, "expected an object"),
        ({"inputs": "a", "raw_score": True}, 422, "no field 'raw_score'"),
        ({"inputs": "a", "raw_scores": 1}, 422, "true or false"),
        ({"inputs": "a", "top_k": 0}, 422, "1 or more"),
        ({"inputs": "a", "truncation_direction": "Right"}, 422, 'was trained with "left"'),
        ({"inputs": [["a"]] * 257}, 413, "at most 256"),
    ],
)
def test_a_body_of_another_shape_is_refused_with_the_reason(server, body, status, part):
    kind = {"Content-Type": "application/json"}
    answer = server.client.post("/predict", content=json.dumps(body), headers=kind)
    assert answer.status_code == status
    assert part in answer.json()["error"]


def test_what_clients_send_beside_it_is_taken(server):
    body = {"inputs": "good", "truncation_direction": "Left", "truncate": True, "parameters": {}}
    assert server.client.post("/", json=body).status_code == 200
    assert len(ask(server, inputs="good", top_k=1).json()) == 1


def test_pairs_are_asked_as_pairs(pair_predictor, serving):
    with serving(LabelDesk(pair_predictor, 512)) as server:
        single = ask(server, inputs=["film 1", "story 1"]).json()
        batch = ask(server, inputs=[["film 1", "story 1"], ["film 2", "story 2"]]).json()
        assert single[0]["score"] == pytest.approx(batch[0][0]["score"], abs=1e-5)
        assert len(batch) == 2
        assert ask(server, inputs="film 1").status_code == 422
        assert server.client.get("/info").json()["pairs"] is True


def test_thresholds_and_unsure_answers_are_predict_pys(predictor, serving):
    decided = predictor.decide(unsure=0.99, threshold={"pos": 0.999})
    with serving(LabelDesk(decided, 512)) as server:
        for text, expected in zip(TEXTS[:6], decided(TEXTS[:6]), strict=True):
            row = ask(server, inputs=text).json()
            assert [e["label"] for e in row if e["holds"]] == [expected.label] == ["neg"]
            assert row[0]["unsure"] is expected.unsure
        info = server.client.get("/info").json()
        assert info["thresholds"] == {"pos": 0.999}
        assert info["unsure_below"] == 0.99


def test_several_labels_say_which_hold(predictor, serving):
    decision = replace(predictor.decision, kind="multi", temperature=1.0)
    several = replace(predictor, decision=override(decision, predictor.label_names, None, 0.2))
    with serving(LabelDesk(several, 512)) as server:
        row = ask(server, inputs=TEXTS[0]).json()
        expected = several([TEXTS[0]])[0]
        assert {e["label"] for e in row if e["holds"]} == set(expected.labels)
        assert {e["label"]: e["score"] for e in row} == pytest.approx(expected.probabilities)


def test_words_that_decided_are_those_of_predict_py(server, predictor):
    text = "the film was awful. a story of music in town."
    answer = server.client.post("/explain", json={"inputs": text}).json()
    expected = predictor.explain(text)
    assert [p["text"] for p in answer["pieces"]] == [piece.text for piece in expected]
    weights = [p["weight"] for p in answer["pieces"]]
    assert weights == pytest.approx([piece.weight for piece in expected], abs=1e-4)
    for piece in answer["pieces"]:
        assert text[piece["start"] : piece["end"]] == piece["text"]
    assert answer["label"] == predictor([text])[0].label
    other = server.client.post("/explain", json={"inputs": text, "label": "neg"}).json()
    assert other["label"] == "neg"
    wrong = server.client.post("/explain", json={"inputs": text, "label": "grand"})
    assert (wrong.status_code, "neg, pos" in wrong.json()["error"]) == (422, True)


def test_a_row_that_the_model_fails_on_spoils_no_other(predictor, monkeypatch):
    from job.serving.asks import Ask
    from job.serving.queue import Ticket

    class Heard(Ticket):
        def send(self, event):
            self.heard = event

    real = type(predictor).run_rows

    def stumble(self, rows, chunk, on_batch):
        if "boring" in "".join(chunk):
            raise RuntimeError("out of something\nlong")
        real(self, rows, chunk, on_batch)

    monkeypatch.setattr(type(predictor), "run_rows", stumble)
    desk = LabelDesk(predictor, 512)
    tickets = [Heard(Ask([text]), 1, None) for text in ("good", "boring", "bad")]
    desk.admit(tickets)
    while desk.busy():
        desk.step()
    assert [getattr(t.heard, "status", 200) for t in tickets] == [200, 424, 200]
    assert tickets[1].heard.message == "the model failed: out of something"


def test_batches_are_filled_by_tokens_oldest_first(predictor):
    from job.serving.asks import Ask
    from job.serving.queue import Ticket

    desk = LabelDesk(predictor, 20)
    desk.admit([Ticket(Ask(["good film " * n]), 1, None) for n in (4, 4, 1, 12)])
    sizes = [part.tokens for part in desk.rows]
    assert sizes[0] == sizes[1] < sizes[3]
    assert [[p.tokens for p in desk.take()] for _ in range(3)] == [sizes[:2], sizes[2:3], sizes[3:]]
