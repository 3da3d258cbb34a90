"""What rests on plugins of Kinto: attachments, reviews, changesets, the state of a collection at some time."""
