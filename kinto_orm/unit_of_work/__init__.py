"""Many writes in batches, and one honest outcome for each: the engine (``batches``: entries to answers; ``engine``:
changes to outcomes), units and their locks (``unit_of_work``, ``staging``), streams of any length (``bulk``)."""
