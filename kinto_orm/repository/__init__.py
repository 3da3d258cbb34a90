"""Verbs on one object: the write (``verbs``), the meaning of its answer (``reconciling``), the ways out of a conflict
(``conflicts``), reads (``reads``), earlier versions (``history``), their values (``state``), and the disk (``disk``).
"""
