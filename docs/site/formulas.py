"""A Python-Markdown extension: `$...$` and `$$...$$` become MathML, which browsers draw without scripts or network."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor

INLINE = r"(?<![\\$`\w])\$(?=\S)([^$\n`]+?)(?<=\S)\$(?![\w$])"
BLOCK = re.compile(r"^\$\$[ \t]*\n(?P<formula>.*?)\n\$\$[ \t]*$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)


class _Inline(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str | Element, int, int]:
        return self.md.htmlStash.store(convert(m.group(1))), m.start(0), m.end(0)


class _Block(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        text = "\n".join(lines)
        kept = [fence.span() for fence in FENCED.finditer(text)]

        def formula(found: re.Match[str]) -> str:
            if any(start <= found.start() < end for start, end in kept):
                return found[0]
            drawn = convert(found["formula"].replace("\n", " "), display="block")
            return "\n" + self.md.htmlStash.store(f'<div class="formula">{drawn}</div>') + "\n"

        return BLOCK.sub(formula, text).split("\n")


class Formulas(Extension):
    """Registers both forms; code blocks and code spans are left alone."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Add the two processors: blocks before fences are stashed, inline ones after code spans."""
        md.preprocessors.register(_Block(md), "formula_block", 29)
        md.inlinePatterns.register(_Inline(INLINE, md), "formula_inline", 185)
