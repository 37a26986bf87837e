"""Trial requests: what is asked, and what replies say of a version."""

import json
from typing import Any

import pytest

from servesync.domain.methods import Method
from servesync.settings import Signature, TensorSpec
from servesync.verify.golden import Request
from servesync.verify.live import Outcome, judge
from servesync.verify.live_replies import Reply
from servesync.verify.live_requests import MAX_REQUESTS, TrialRequest, golden_requests, made_requests
from servesync.verify.methods import Asking

NUMBERS = Signature(
    inputs={"x": TensorSpec(dtype="float32", shape=[None, 2])},
    outputs={"y": TensorSpec(dtype="float32", shape=[None])},
)
WORDS = Signature(
    inputs={"x": TensorSpec(dtype="string", shape=[None])},
    outputs={"y": TensorSpec(dtype="string", shape=[None]), "n": TensorSpec(dtype="int32")},
)


def spec(dtype: Any, shape: list[int | None] | None, encoding: Any = "dense") -> TensorSpec:
    """Return one input."""
    return TensorSpec(dtype=dtype, shape=shape, encoding=encoding)


def made(**inputs: TensorSpec) -> list[TrialRequest]:
    """Return the requests for a signature with these inputs."""
    return list(made_requests({"serving_default": Signature(inputs=inputs, outputs=NUMBERS.outputs)}, {}, {}))


def ok(outputs: Any) -> Reply:
    """Return an answer."""
    return Reply(200, json.dumps({"outputs": outputs}).encode(), 0.1)


def error(status: int, text: str) -> Reply:
    """Return an error of the server's."""
    return Reply(status, json.dumps({"error": text}).encode(), 0.1)


def one(signature: Signature = NUMBERS) -> TrialRequest:
    """Return the request made from a signature."""
    (request,) = made_requests({"serving_default": signature}, {}, {})
    return request


def test_a_request_has_the_smallest_shapes() -> None:
    """Zeros, false and empty strings; a size that is free is one; ones are the second choice."""
    (request,) = made(
        numbers=spec("float32", [None, 2]),
        counts=spec("int64", []),
        flags=spec("bool", [1]),
        words=spec("string", [None]),
        anything=spec("uint8", None),
    )

    assert json.loads(request.body) == {
        "signature_name": "serving_default",
        "inputs": {
            "numbers": [[0.0, 0.0]],
            "counts": 0,
            "flags": [False],
            "words": [{"b64": ""}],
            "anything": [0],
        },
    }
    assert json.loads(request.instead)["inputs"]["numbers"] == [[1.0, 1.0]]


@pytest.mark.parametrize(
    "odd",
    [
        spec("complex64", [1]),
        spec("float32", [1], "sparse"),
        spec("float32", [1024, 1025]),
        spec("variant", []),
    ],
)
def test_what_json_cannot_say_is_not_asked(odd: TensorSpec) -> None:
    """Nor what is very large."""
    assert made(x=odd) == []


def test_the_signatures_that_clients_need_are_asked() -> None:
    """Those of the settings; else the default one; else the first."""
    signatures = {"a": NUMBERS, "serving_default": NUMBERS, "z": WORDS}

    def asked(required: dict[str, Signature], of: dict[str, Signature] = signatures) -> list[str]:
        return [json.loads(item.body)["signature_name"] for item in made_requests(of, required, {})]

    assert asked({"z": WORDS, "a": NUMBERS}) == ["a", "z"]
    assert asked({}) == ["serving_default"]
    assert asked({}, {"b": NUMBERS, "c": NUMBERS}) == ["b"]
    assert asked({}, {}) == []


BROKEN = [
    error(404, "Op type not registered 'NoSuch' in binary running on x"),
    error(400, "Table not initialized."),
    error(400, "Could not find variable w. This could mean that the variable has been deleted."),
    error(404, "/words.txt; No such file or directory"),
]


@pytest.mark.parametrize("new", BROKEN)
@pytest.mark.parametrize("old", [None, ok([1.0]), error(400, "bad shape")])
@pytest.mark.parametrize("signature", [NUMBERS, WORDS])
def test_a_missing_part_is_the_versions_fault(new: Reply, old: Reply | None, signature: Signature) -> None:
    """Whatever was asked, and whether there is an old version or not."""
    found = judge(one(signature), new, old)

    assert found.outcome is Outcome.BAD
    assert json.loads(new.body)["error"] in found.text


@pytest.mark.parametrize("new", BROKEN)
def test_an_old_version_that_fails_alike_proves_nothing(new: Reply) -> None:
    """Clients have lived with that."""
    assert judge(one(), new, new).outcome is Outcome.GOOD


@pytest.mark.parametrize(
    ("signature", "old", "outcome"),
    [
        (NUMBERS, ok([1.0]), Outcome.BAD),
        (NUMBERS, None, Outcome.GOOD),
        (NUMBERS, error(400, "other words"), Outcome.GOOD),
        (WORDS, ok({"y": [""], "n": 1}), Outcome.GOOD),
    ],
)
def test_an_error_about_what_was_asked(signature: Signature, old: Reply | None, outcome: Outcome) -> None:
    """It counts only if the old version answers, and clients do send such requests."""
    assert judge(one(signature), error(400, "Expected more"), old).outcome is outcome


@pytest.mark.parametrize(("old", "outcome"), [(ok([1.0]), Outcome.BAD), (None, Outcome.GOOD)])
def test_an_internal_error(old: Reply | None, outcome: Outcome) -> None:
    """It counts if the old version does not give it."""
    assert judge(one(WORDS), error(500, "assertion"), old).outcome is outcome


@pytest.mark.parametrize(
    "new",
    [
        error(503, "busy"),
        error(429, "too many"),
        error(404, "Servable not found for request: Specific(m, 2)"),
        Reply(404, b"<h1>Not Found</h1>"),
        Reply(200, b"[]"),
        Reply(200, b'{"model_version_status": []}'),
    ],
)
def test_what_says_nothing_of_the_version(new: Reply) -> None:
    """A busy server, one that has just unloaded it, or something else at its port."""
    assert judge(one(), new, ok([1.0])).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("late", [Reply(0, b"", 30.0), error(504, "Timed out")])
def test_no_answer_in_time(late: Reply) -> None:
    """It counts unless the old version gives none either."""
    assert judge(one(), late, None).outcome is Outcome.BAD
    assert judge(one(), late, ok([1.0])).outcome is Outcome.BAD
    assert judge(one(), late, Reply(0)).outcome is Outcome.UNKNOWN


def test_nan_counts_where_the_old_version_has_numbers() -> None:
    """Wherever in an output it is."""
    nan = Reply(200, b'{"outputs": [[1.0, NaN]]}')

    found = judge(one(), nan, ok([[1.0, 2.0]]))

    assert (found.outcome, "output 'y' is NaN" in found.text) == (Outcome.BAD, True)
    assert judge(one(), nan, nan).outcome is Outcome.GOOD
    assert judge(one(), nan, None).outcome is Outcome.GOOD
    assert judge(one(), nan, error(400, "x")).outcome is Outcome.GOOD


def test_a_long_reply_is_an_answer() -> None:
    """It is not parsed; golden answers cannot be compared with it."""
    long = Reply(200, b'{"outputs": [' + b"1.0, " * (1 << 20))

    assert judge(one(), long, ok([1.0])).outcome is Outcome.GOOD
    assert judge(golden(NUMBERS, {"x": [[0, 0]]}, {"y": [0]}), long, None).outcome is Outcome.UNKNOWN


def golden(signature: Signature, inputs: dict[str, Any], outputs: dict[str, Any]) -> TrialRequest:
    """Return a golden request with answers."""
    item = Request(signature="serving_default", inputs=inputs, outputs=outputs)
    (request,) = golden_requests([item], {"serving_default": signature})
    return request


def test_a_golden_request_is_sent_as_the_server_reads_it() -> None:
    """JSON has no NaN; the server reads the bare word."""
    request = golden(NUMBERS, {"x": [["NaN", 1]]}, {"y": [0]})

    words = golden(WORDS, {"x": ["NaN"]}, {"y": ["a"]})

    assert b"[[NaN, 1.0]]" in request.body
    assert b'["NaN"]' in words.body


def test_golden_answers_are_compared_within_their_tolerances() -> None:
    """Integers in place of floats are what JSON makes of them; the worst value is named."""
    request = golden(NUMBERS, {"x": [[1, 2], [3, 4]]}, {"y": [3, "Infinity"]})

    assert judge(request, Reply(200, b'{"outputs": [3.00001, Infinity]}'), None).outcome is Outcome.GOOD
    assert judge(request, Reply(200, b'{"outputs": [3, Infinity]}'), None).outcome is Outcome.GOOD
    found = judge(request, Reply(200, b'{"outputs": [3.1, Infinity]}'), None)
    assert found.outcome is Outcome.BAD
    assert "golden request 1: output y[0] is 3.1, not 3 (1 values are wrong)" in found.text
    for reply in (ok([3.0]), ok("x"), ok(None), error(400, "bad")):
        assert judge(request, reply, None).outcome is Outcome.BAD


def test_several_outputs_come_by_name() -> None:
    """Strings are compared as bytes; what is not named is not compared."""
    request = golden(WORDS, {"x": ["a"]}, {"y": [{"b64": "/w=="}]})

    assert judge(request, ok({"y": [{"b64": "/w=="}], "n": 5}), None).outcome is Outcome.GOOD
    assert judge(request, ok({"y": ["a"], "n": 5}), None).outcome is Outcome.BAD
    assert judge(request, ok({"n": 5}), None).outcome is Outcome.BAD


def test_a_handful_of_golden_requests_is_sent() -> None:
    """A trial is no load test."""
    item = Request(signature="serving_default", inputs={"x": [[0, 0]]}, outputs={"y": [0]})

    assert len(golden_requests([item] * 100, {"serving_default": NUMBERS})) == MAX_REQUESTS


CLASSIFY = Signature(
    inputs={"inputs": TensorSpec(dtype="string", shape=[None])},
    outputs={"classes": TensorSpec(dtype="string"), "scores": TensorSpec(dtype="float32")},
)
REGRESS = Signature(inputs=CLASSIFY.inputs, outputs={"outputs": TensorSpec(dtype="float32", shape=[None, 1])})
FEATURES = {
    "x": TensorSpec(dtype="float32", shape=[2, 2]),
    "n": TensorSpec(dtype="int64", shape=[]),
    "word": TensorSpec(dtype="string", shape=[1]),
}


def asked_by(method: Method, signature: Signature, **features: TensorSpec) -> TrialRequest:
    """Return the request for a signature that is asked by a method."""
    askings = {"serving_default": Asking(method, features)}
    (request,) = made_requests({"serving_default": signature}, {}, askings)
    return request


def results(given: str) -> Reply:
    """Return an answer to a classify or regress request."""
    return Reply(200, f'{{"results": {given}}}'.encode(), 0.1)


def test_an_example_has_the_features_that_the_graph_tells() -> None:
    """As flat lists; without them it is empty, and there is no second choice."""
    request = asked_by(Method.CLASSIFY, CLASSIFY, **FEATURES)

    example = {"x": [0.0] * 4, "n": [0], "word": [{"b64": ""}]}
    assert json.loads(request.body) == {"signature_name": "serving_default", "examples": [example]}
    assert json.loads(request.instead)["examples"][0]["x"] == [1.0] * 4
    assert (request.method, request.is_typical) == (Method.CLASSIFY, False)
    bare = asked_by(Method.REGRESS, REGRESS)
    assert json.loads(bare.body) == {"signature_name": "serving_default", "examples": [{}]}
    assert (bare.method, bare.instead) == (Method.REGRESS, b"")
    huge = asked_by(Method.REGRESS, REGRESS, x=TensorSpec(dtype="float32", shape=[1 << 21]))
    assert json.loads(huge.body)["examples"] == [{}]


@pytest.mark.parametrize(
    ("method", "signature", "new", "old", "output"),
    [
        (Method.CLASSIFY, CLASSIFY, '[[["a", NaN], ["b", 1.0]]]', '[[["a", 0.5], ["b", 0.5]]]', "scores"),
        (Method.REGRESS, REGRESS, "[NaN]", "[0.5]", "outputs"),
    ],
)
def test_nan_counts_by_any_method(
    method: Method, signature: Signature, new: str, old: str, output: str
) -> None:
    """The documentation's name of the key is read, too."""
    request = asked_by(method, signature)

    found = judge(request, results(new), results(old))

    assert (found.outcome, f"output '{output}' is NaN" in found.text) == (Outcome.BAD, True)
    assert judge(request, results(new), results(new)).outcome is Outcome.GOOD
    assert judge(request, results(old), results(old)).outcome is Outcome.GOOD
    documented = Reply(200, results(new).body.replace(b"results", b"result"))
    assert judge(request, documented, results(old)).outcome is Outcome.BAD


@pytest.mark.parametrize("given", ['"a"', '[["a", 1.0]]', "[[[1.0]]]", "[1.0]", "null"])
def test_what_is_no_list_of_classes_says_nothing(given: str) -> None:
    """Something else answers at the server's port."""
    assert judge(asked_by(Method.CLASSIFY, CLASSIFY), results(given), None).outcome is Outcome.UNKNOWN
    assert judge(asked_by(Method.CLASSIFY, CLASSIFY), ok([1.0]), None).outcome is Outcome.UNKNOWN
    assert judge(one(), results(given), None).outcome is Outcome.UNKNOWN


def test_outputs_of_a_type_that_the_method_does_not_give() -> None:
    """They count if the old version answers this very request: then its clients will miss that."""
    unfit = error(400, "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE")
    request = asked_by(Method.CLASSIFY, CLASSIFY)

    assert judge(request, unfit, results('[[["a", 0.5]]]')).outcome is Outcome.BAD
    assert judge(request, unfit, error(400, "x is required but could not be found")).outcome is Outcome.GOOD
    assert judge(request, unfit, None).outcome is Outcome.GOOD
    missing = error(400, "Feature: x is required but could not be found")
    assert judge(request, missing, results('[[["a", 0.5]]]')).outcome is Outcome.GOOD


def test_golden_requests_are_sent_by_predict() -> None:
    """Their inputs are tensors, and the server takes such requests for every signature."""
    item = Request(signature="serving_default", inputs={"inputs": ["ab"]}, outputs={"outputs": [[1.0]]})
    (request,) = golden_requests([item], {"serving_default": REGRESS})

    assert request.method is Method.PREDICT
    assert judge(request, ok([[1.0]]), None).outcome is Outcome.GOOD
    assert judge(request, ok([1.0]), None).outcome is Outcome.BAD


def test_strings_that_are_no_text_are_compared_as_bytes() -> None:
    """The server writes them as they are, in JSON that is not UTF-8 then."""
    request = golden(WORDS, {"x": ["a"]}, {"y": [{"b64": "/w=="}]})

    assert judge(request, Reply(200, b'{"outputs": {"y": ["\xff"], "n": 5}}'), None).outcome is Outcome.GOOD
    assert judge(request, Reply(200, b'{"outputs": {"y": ["\xfe"], "n": 5}}'), None).outcome is Outcome.BAD
