"""What Kinto's HTTP API says, as pure functions and values: no I/O, no state.

Rests on https://docs.kinto-storage.org/en/stable/api/ and, where a real server does otherwise, on the server
(``tests/contract`` pins those facts).
"""
