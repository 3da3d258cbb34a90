"""The senders of requests: authentication, retries, and HTTP by ``requests``. They know messages only."""
