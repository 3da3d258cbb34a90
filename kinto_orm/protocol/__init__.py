"""Kinto's HTTP API as pure functions and values: no I/O, no state.

It follows https://docs.kinto-storage.org/en/stable/api/ and, where a real server differs, the server
(``tests/contract`` pins those facts).
"""
