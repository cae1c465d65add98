"""Requests that cannot be answered, of a server of users from 1000 on, by numbers, and items as text."""

from __future__ import annotations


def rows(*users, **params):
    return {"dataframe_records": [{"user_id": user} for user in users], "params": params}


def with_history(*given):
    return {"dataframe_records": [{"user_id": 1000, "history": list(given)}]}


PARQUET = "application/vnd.apache.parquet"
OFF = [  # what the model itself is asked to tell from a request: also behind MLflow's own server
    (rows(1000, k=0), "k is 0"),
    (rows(1000, k=-3), "k is -3"),
    (rows(1000, k="many"), "k"),
    (rows(1000, k=2.5), "k"),
    (rows(1000, k=True), "k"),
    (rows(1000, k=None), "k is None"),
    (rows(1000, k=[1]), "k"),
    (rows(1000, exclude_seen="yes"), "exclude_seen"),
    (rows(None), "row 0: user_id is null"),
    (rows(1000, None), "row 1: user_id is null"),
    (rows(float("nan")), "row 0: user_id is null"),
    (rows(float("inf")), "user_id is inf; it must be a whole number"),
    (rows(1000.5), "user_id is 1000.5; it must be a whole number"),
    (rows(True), "user_id is True"),
    (rows("Ann"), "user_id is 'Ann'; it must be a whole number"),
    (rows("1000"), "user_id is '1000'; it must be a whole number"),
    (rows([1000]), "user_id is [1000]"),
    (rows({"id": 1000}), "user_id"),
    ({"dataframe_records": [{"user_id": 1000, "history": "i1"}]}, "history is 'i1'; it must be a list"),
    ({"dataframe_records": [{"user_id": 1000, "history": {"a": "i1"}}]}, "history"),
    (with_history("i1", None), "row 0: history is null"),
    (with_history("i1", 2), "row 0: history is 2; it must be text"),
    (with_history(["i1"]), "row 0: history is ['i1']; it must be text"),
    ({"dataframe_records": [{"user": 1000}]}, "user_id"),
    ({"dataframe_records": []}, "user_id"),
    ({"dataframe_records": [1, 2]}, "user_id"),
    ({"dataframe_records": {"user_id": 1000}}, "list of records"),
    ({"dataframe_split": {"columns": ["user_id"], "data": []}}, "no rows"),
    ({"dataframe_split": {"columns": ["user_id"], "data": [[1], [1, 2]]}}, "dataframe_split"),
    ({"dataframe_split": {"columns": ["user_id", "user_id"], "data": [[1000, 1001]]}}, "user_id"),
    ({"inputs": 5}, "user_id"),
    ({"inputs": "/etc/hostname"}, "user_id"),
    ({"instances": [{"user_id": 1000, "history": ["i1"]}, {"user_id": 1000, "history": ["i1", "i2"]}]}, "shape"),
    ({"dataframe_records": [{"user_id": 1000}] * 3500, "params": {"k": 300}}, "at most 3495 in one request"),
    ({"rows": []}, "dataframe_records"),
]

RAW = [  # what only the guard can tell: MLflow's app answers 500, a trace, the whole body again, or the wrong thing
    (b"", "application/json", 400, "not JSON"),
    (b"hello", "application/json", 400, "not JSON"),
    (b"\xff\xfe", "application/json", 400, "not JSON"),
    (b'{"dataframe_records": [{"user_id": 1000}]', "application/json", 400, "not JSON"),
    (b'{"dataframe_records": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "application/json", 400, "not JSON"),
    (b'{"dataframe_records": [{"user_id": ' + b"7" * 5000 + b"}]}", "application/json", 400, "not JSON"),
    (b"[]", "application/json", 400, "not an object"),
    (b'{"messages": []}', "application/json", 400, "'messages', which means nothing here"),
    (b'{"dataframe_records": [{"user_id": 1000}], "params": {"top": 3}}', "application/json", 400, "params has 'top'"),
    (b'{"dataframe_records": [{"user_id": "\\ud800"}]}', "application/json", 400, "surrogate"),
    (b'{"dataframe_records": [{"user_id": 1000}]}', None, 415, "content type is missing"),
    (b'{"dataframe_records": [{"user_id": 1000}]}', "text/plain", 415, "content type is text/plain"),
    (b'{"dataframe_records": [{"user_id": 1000}]}', "application/json; charset=latin-1", 415, "UTF-8"),
    (b"user_id\n1000\n", "text/csv", 415, "content type is text/csv"),
    (b"\x00\x01", PARQUET, 400, "arquet"),
    (b'{"dataframe_records": [{"user_id": 1000}]}' + b" " * (8 << 20), "application/json", 413, "longer than 8 MiB"),
]
