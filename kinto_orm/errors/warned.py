"""What is no error: warnings, which the standard library shows once or turns into errors, as it is told."""


class AlertWarning(DeprecationWarning):
    """The server says by its header ``Alert`` that it, or what was used of it, will end.

    https://docs.kinto-storage.org/en/stable/api/1.x/deprecation.html
    """


class PrincipalWarning(UserWarning):
    """The principal is of a form that matches nobody: Kinto takes it, and gives nobody the permission."""
