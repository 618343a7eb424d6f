"""Write the pages and figures of docs/gallery, every number computed just now. `python docs/gallery.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from gradkern.lecture import Lecture, lecture, topics

FOLDER = Path(__file__).with_name("gallery")
_INDEX = """# Gallery

What lectures, slides and a blog post say of vanishing and exploding gradients, what is right, and the numbers. Every
page is a question, a few lines of code, a figure, and then claim by claim: what was said, what is right, and the call
that shows it. `gradkern lecture TOPIC` prints a page in a terminal, computed there and then.

{pages}

## Sources

- **S0** *Gradient exploding and vanishing*, a recorded lecture, as transcribed by a machine; slips of the transcript
  are named where they matter.
- **S1** *Vanishing / exploding gradients*, a recorded lecture of deeplearning.ai, transcribed.
- **S2** S0 in Chinese. It makes the same slips.
- **S3** *Understanding the exploding and vanishing gradients problem*, a post of the blog Programmathically, 2021.
- **S4** *Exploding and vanishing gradients*, slides of a lecture on recurrent networks.
"""


def text(page: Lecture) -> str:
    """Text of a page."""
    return f"<!-- Written by docs/gallery.py from python/gradkern/lecture/{page.topic}.md -->\n{page.markdown}"


def index(lectures: list[Lecture]) -> str:
    """Write the page that links the others."""
    return _INDEX.format(
        pages="\n\n".join(f"### [{page.title}]({page.topic}.md)\n\n{page.question}" for page in lectures)
    )


def main() -> int:
    """Write everything."""
    FOLDER.mkdir(exist_ok=True)
    lectures = [lecture(topic) for topic in topics()]
    (FOLDER / "index.md").write_text(index(lectures), encoding="utf-8")
    for page in lectures:
        (FOLDER / f"{page.topic}.md").write_text(text(page), encoding="utf-8")
        page.plot().get_figure(root=True).savefig(FOLDER / f"{page.topic}.png", dpi=110, metadata={"Software": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
