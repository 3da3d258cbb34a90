"""Features that need a plugin of Kinto: attachments, reviews, changesets, history."""
