"""CLIP's tokens: texts into numbers by byte-pair encoding (Sennrich et al., arXiv 1508.07909; CLIP, arXiv 2103.00020).

The vocabulary is the file ``bpe_simple_vocab_16e6.txt.gz`` that comes with every CLIP; it is not in this package.
Different from CLIP's own: texts whose encoding was broken on the way are not repaired (``ftfy``).
"""

import gzip
import html
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch

from moir.base.errors import CheckpointError, InvalidValueError

CONTEXT = 77
"""Tokens of a text, start and end included."""

MERGES = 48_894
"""Merges that CLIP uses; its file has more."""

END_OF_WORD = "</w>"
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")

Pair = tuple[str, str]


class Tokenizer:
    """Texts to tokens.

    Args:
        merges: Pairs of symbols, those merged first at the front. Symbols are characters that stand for bytes.

    Attributes:
        vocabulary: Number of different tokens; 49,408 for CLIP's file.
        start, end: The tokens that begin and end a text; the end token has the highest number.

    Examples:
        >>> tokenizer = Tokenizer([("r", "a"), ("i", "n</w>"), ("ra", "in</w>")])
        >>> tokenizer.words("Rain, rain!")
        ['rain</w>', ',</w>', 'rain</w>', '!</w>']
        >>> tokenizer(["rain"], context=5).tolist() == [[tokenizer.start, 514, tokenizer.end, 0, 0]]
        True
    """

    def __init__(self, merges: Sequence[Pair]) -> None:
        characters = list(_characters().values())
        symbols = [
            *characters,
            *(character + END_OF_WORD for character in characters),
            *("".join(pair) for pair in merges),
        ]
        self.numbers = {symbol: number for number, symbol in enumerate(symbols)}
        self.start, self.end = len(symbols), len(symbols) + 1
        self.vocabulary = len(symbols) + 2
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._merged: dict[str, tuple[str, ...]] = {}

    def __call__(self, texts: Sequence[str], context: int = CONTEXT) -> torch.Tensor:
        """Tokens of texts.

        Args:
            texts: B texts.
            context: Tokens of a text; a longer one is cut, and still ends with the end token.

        Returns:
            (B, context) int64, filled up with 0.

        Raises:
            InvalidValueError: ``context`` below 2.
        """
        if context < 2:
            raise InvalidValueError(f"context={context}: a text has at least its start and its end")
        out = torch.zeros(len(texts), context, dtype=torch.int64)
        for row, text in enumerate(texts):
            found = [self.start, *(self.numbers[symbol] for symbol in self.words(text)), self.end][:context]
            found[-1] = self.end
            out[row, : len(found)] = torch.tensor(found)
        return out

    def words(self, text: str) -> list[str]:
        """The symbols that a text is made of."""
        cleaned = " ".join(html.unescape(html.unescape(text)).split()).lower()
        return [symbol for word in _split(cleaned) for symbol in self._merge(word)]

    def _merge(self, word: str) -> tuple[str, ...]:
        """Merge the pair of the lowest rank until no pair is known."""
        if word in self._merged:
            return self._merged[word]
        characters = [_characters()[byte] for byte in word.encode()]
        symbols = [*characters[:-1], characters[-1] + END_OF_WORD]
        while len(symbols) > 1:
            pairs = set(pairwise(symbols))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            merged: list[str] = []
            for symbol in symbols:
                # The one before may itself be the end of a merge; then it is no longer the first of the pair.
                if merged and (merged[-1], symbol) == best:
                    merged[-1] += symbol
                else:
                    merged.append(symbol)
            symbols = merged
        self._merged[word] = tuple(symbols)
        return self._merged[word]


def read_tokenizer(path: str | Path, merges: int = MERGES) -> Tokenizer:
    """Make the tokenizer of a vocabulary file: a line that names its version, then a pair of symbols per line.

    Args:
        path: ``bpe_simple_vocab_16e6.txt.gz``, or the same unpacked.
        merges: How many lines count at most.

    Raises:
        CheckpointError: The file is missing, or is something else.
    """
    file = Path(path).expanduser()
    try:
        raw = file.read_bytes()
        lines = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode().split("\n")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no vocabulary {file}; it comes with CLIP (open_clip has it in its package folder) as "
            "bpe_simple_vocab_16e6.txt.gz"
        ) from error
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{file} is no vocabulary of byte pairs: {error}") from error
    pairs = [tuple(line.split()) for line in lines[1 : merges + 1] if line.strip()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise CheckpointError(f"{file} is no vocabulary of byte pairs: every line but the first must have two symbols")
    return Tokenizer([(one, other) for one, other in pairs])


def _split(text: str) -> Iterator[str]:
    """Words: contractions, runs of letters, single digits, and runs of anything else that is no space."""
    place = 0
    while place < len(text):
        kind = _kind(text[place])
        contraction = next((c for c in CONTRACTIONS if text.startswith(c, place)), None)
        end = place + 1
        if contraction is not None:
            end = place + len(contraction)
        elif kind in "lo":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != "s":
            yield text[place:end]
        place = end


def _kind(character: str) -> str:
    """Letter, number, space or other, by Unicode's categories."""
    if character.isspace():
        return "s"
    return {"L": "l", "N": "n"}.get(unicodedata.category(character)[0], "o")


@lru_cache(maxsize=1)
def _characters() -> dict[int, str]:
    """A printable character for every byte: itself where it is one, the others from 256 on.

    The order, which numbers the tokens, is CLIP's: first the bytes that stand for themselves.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
