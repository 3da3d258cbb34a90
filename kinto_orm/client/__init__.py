"""The client (``client``), the runner that moves its flows (``runner``), and its options (``connection``)."""

from kinto_orm.client.client import Client

__all__ = ["Client"]
