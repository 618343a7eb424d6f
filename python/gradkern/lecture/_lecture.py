"""`lecture`: read a page of the gallery, run its blocks, and put what they print after them."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, field
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradkern._result import Result

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

_TITLES = {
    "powers": "Scalar powers",
    "deep_linear": "Deep linear networks",
    "saturation": "Saturation and cancellation",
    "relu": "ReLU and its deaths",
    "initialisation": "Initialisation",
    "effective_depth": "A hundred layers, of which twenty learn",
    "learning_rate": "The learning-rate loop",
    "through_time": "Backpropagation through time",
    "clipping": "Clipping and loss scaling",
    "formats": "float16, bfloat16 and FP8",
}
_BLOCK = re.compile(r"```python\n(.*?)```\n", re.DOTALL)
_OUTPUT = re.compile(r"```text\n(.*?)```\n", re.DOTALL)
_PICTURE = re.compile(r"^!\[(.*)\]\(.*\)\n", re.MULTILINE)
_CLAIM = re.compile(r"^## ([\d, ]+)\. (.+)\n", re.MULTILINE)
_QUOTE = re.compile(r"^>\s?(.*)\n", re.MULTILINE)


def topics() -> dict[str, str]:
    """Title of each topic, in the order of the gallery."""
    return dict(_TITLES)


@dataclass(frozen=True)
class Claim:
    """What was said, what is right, and the call that shows it.

    Attributes
    ----------
    rows : list of int
        Numbers of the claims that this section is about.
    title : str
    said : list of str
        Quotations, the source at the end of each.
    right : str
        What is right, in Markdown.
    code : str
        Python, run after the code above it.
    output : list of str
        The lines that it printed just now.
    """

    rows: list[int]
    title: str
    said: list[str]
    right: str
    code: str
    output: list[str]


@dataclass(frozen=True, repr=False)
class Lecture(Result):
    """A page of the gallery, computed.

    Attributes
    ----------
    topic, title, question, remark : str
        The name, the heading, what the page answers, and what else is to be said of its figure.
    code : str
        The calls of gradkern whose results the figure shows.
    output : list of str
        The lines that they printed just now.
    caption : str
        Of the figure.
    claims : list of Claim
        The sections of the page.
    markdown : str
        The page.
    found : dict
        Variables of the page, by name.
    """

    topic: str
    title: str
    question: str
    remark: str
    code: str
    output: list[str]
    caption: str
    claims: list[Claim]
    markdown: str = field(repr=False)
    found: dict[str, Any] = field(repr=False)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the figure (matplotlib is loaded here).

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; without it a figure is made.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        if ax is None:
            from gradkern.plot import _figure

            figure = _figure()
            figure.set_size_inches(8, 4)
            ax = figure.subplots()
        import_module(f"gradkern.lecture.{self.topic}").draw(ax, self.found)
        ax.set_title(self.caption, fontsize=10, loc="left")
        return ax

    @property
    def without_picture(self) -> str:
        """The page for a terminal: without the line that shows the figure."""
        return _PICTURE.sub("", self.markdown)

    def save(self, path: str | Path) -> None:
        """Write the page as Markdown.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        Path(path).write_text(self.markdown, encoding="utf-8")

    def to_frame(self) -> pandas.DataFrame:
        """Return the claims as a pandas DataFrame, one a row (pandas is loaded here)."""
        import pandas

        return pandas.DataFrame(self.to_dict()["claims"])

    def __repr__(self) -> str:
        return self.markdown


def lecture(topic: str) -> Lecture:
    """Run a page of the gallery.

    Parameters
    ----------
    topic : str
        One of `topics`.

    Returns
    -------
    Lecture
        Every number in it was computed by this call.

    Raises
    ------
    ValueError
        If there is no such topic.

    Examples
    --------
    >>> lecture("powers").claims[0].output
    ['4.065611775352152e+17']
    """
    if topic not in _TITLES:
        raise ValueError(f"lecture: topic must be one of {', '.join(_TITLES)}, got {topic!r}")
    text = files("gradkern.lecture").joinpath(f"{topic}.md").read_text(encoding="utf-8")
    page, found = _run(f"# {_TITLES[topic]}\n\n{text}", topic)
    head, *sections = _CLAIM.split(page)
    picture = _PICTURE.search(head)
    assert picture is not None
    claims = [_claim(*section) for section in zip(sections[::3], sections[1::3], sections[2::3], strict=True)]
    code, output, prose = _parts(_PICTURE.sub("", head))
    _, question, *remarks = re.split(r"\n{2,}", prose)
    return Lecture(topic, _TITLES[topic], question, "\n\n".join(remarks), code, output, picture[1], claims, page, found)


def _run(text: str, topic: str) -> tuple[str, dict[str, Any]]:
    """Put what each block prints after it; return the variables that they leave, too."""
    found: dict[str, Any] = {}

    def printed(block: re.Match[str]) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block[1], f"{topic}.md", "exec"), found)
        return f"{block[0]}\n```text\n{out.getvalue()}```\n"

    return _BLOCK.sub(printed, text), found


def _claim(numbers: str, title: str, section: str) -> Claim:
    code, output, prose = _parts(section)
    said = [quote for quote in _QUOTE.findall(prose) if quote]
    rows = [int(number) for number in numbers.split(",")]
    return Claim(rows, title, said, _QUOTE.sub("", prose).strip(), code, output)


def _parts(section: str) -> tuple[str, list[str], str]:
    """Code, the lines printed, and the rest of a section."""
    code = "\n".join(_BLOCK.findall(section))
    output = "".join(_OUTPUT.findall(section)).splitlines()
    return code, output, _OUTPUT.sub("", _BLOCK.sub("", section)).strip()
