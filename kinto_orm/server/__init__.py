"""A real Kinto, embedded.

``EmbeddedServer`` runs Kinto inside this process, in memory or on an embedded PostgreSQL; ``listening`` and ``serve``
put a socket in front of one. They need ``pip install 'kinto-orm[server]'``, or ``[server-postgres]`` for PostgreSQL::

    with EmbeddedServer.memory() as server, listening(server) as url:
        requests.put(f"{url}/buckets/payments", auth=("alexis", "p4ssw0rd"))
"""

from kinto_orm.server.embedded import EmbeddedServer, ServerThread, listening, serve

__all__ = ["EmbeddedServer", "ServerThread", "listening", "serve"]
