"""`No`: a command that cannot be carried out."""


class No(Exception):
    """The text of NO (or BAD), response code included."""

    def __init__(self, text: str, condition: str = "NO") -> None:
        super().__init__(text)
        self.condition = condition
