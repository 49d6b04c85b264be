"""How text is compared and cut into terms: the index and a reader of messages must do it alike."""

import re

CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff々〆ー"
CJK_RUN = re.compile(f"[{CJK}]+")


def fold(text: str) -> str:
    """The form in which texts are compared: without regard to case."""
    return text.casefold()


def prepared(text: str) -> str:
    """Text for the tokenizer: a run of CJK characters becomes its pairs."""
    return CJK_RUN.sub(lambda match: " " + " ".join(pairs(match.group(0))) + " ", fold(text))


def pairs(run: str) -> list[str]:
    return [run] if len(run) == 1 else [run[i : i + 2] for i in range(len(run) - 1)]
