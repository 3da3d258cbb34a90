"""What the code relies on and only a real Kinto can tell: run on its memory backend and on PostgreSQL."""
