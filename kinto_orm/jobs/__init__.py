"""Flows over several objects or whole collections."""
