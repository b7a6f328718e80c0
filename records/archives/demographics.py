"""Age and sex as headers' comments and tables tell them."""

import re
from collections.abc import Iterable

SEXES = {"m": 0, "male": 0, "man": 0, "f": 1, "female": 1, "woman": 1}
"""Words for 0, male, and 1, female."""
_NUMBER = r"([-+]?\d{1,9}(?:\.\d{0,9})?)"
_YEARS = r"(?:y|yo|y/o|yrs?|years?)"
_AGE = re.compile(rf"{_NUMBER}[ \t]{{0,9}}{_YEARS}?", re.ASCII | re.IGNORECASE)
_BLANKS = r"[ \t]{0,9}"
_NEXT = rf"(?={_BLANKS}(?:$|[,;<#(]|[a-z]+>?[:=]|sex\b|gender\b))"
"""What may come after an age: the comment's end, or something else that is told; not a unit or a range."""
_AGE_COMMENT = re.compile(
    rf"\bage>?{_BLANKS}[:=]?{_BLANKS}{_NUMBER}{_BLANKS}(?:{_YEARS}\b)?{_NEXT}", re.ASCII | re.IGNORECASE
)
_SEX_COMMENT = re.compile(rf"\b(?:sex|gender)>?{_BLANKS}[:=]?{_BLANKS}(\w{{1,20}})", re.ASCII | re.IGNORECASE)
_BOTH = re.compile(
    rf"{_NUMBER}{_BLANKS}{_YEARS}{_BLANKS}(?:old)?[ \t,]{{1,9}}(male|female|m|f)\b", re.ASCII | re.IGNORECASE
)
_LONGEST_COMMENT = 1000

NUMBERS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
"""Sex as PTB-XL codes it."""


def age_in_years(text: str | None) -> float | None:
    """`56`, `56.0`, `56 y`; None for all else."""
    match = _AGE.fullmatch(text.strip()) if text else None
    return float(match[1]) if match else None


def sex_code(text: str | None) -> int | None:
    """0 or 1 for `0`, `M`, `Male`, `1`, `F`, `Female`, in any case; None for all else."""
    word = text.strip().lower() if text else ""
    return SEXES.get(word, NUMBERS.get(word))


def from_comments(comments: Iterable[str]) -> tuple[float | None, int | None]:
    """Age and sex from a header's comments, without `#`; of each the first that tells it.

    `Age: 56`, `Sex: Male`, `<age>: 56  <sex>: M`, `age 56`, `56 y male`. In time that grows as the text does.
    """
    age: float | None = None
    sex: int | None = None
    for comment in comments:
        of_comment = _from_comment(comment[:_LONGEST_COMMENT])
        age, sex = of_comment[0] if age is None else age, of_comment[1] if sex is None else sex
        if age is not None and sex is not None:
            break
    return age, sex


def _from_comment(comment: str) -> tuple[float | None, int | None]:
    if both := _BOTH.match(comment):
        return float(both[1]), sex_code(both[2])
    age, sex = _AGE_COMMENT.search(comment), _SEX_COMMENT.search(comment)
    return float(age[1]) if age else None, sex_code(sex[1]) if sex else None
