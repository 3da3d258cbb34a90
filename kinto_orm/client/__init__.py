"""The client: where everything is put together (``client``), and what moves the flows (``running``)."""

from kinto_orm.client.client import Client

__all__ = ["Client"]
