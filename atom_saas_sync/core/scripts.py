"""How scripts are searched: which characters are words of their own, and how names are compared."""

from __future__ import annotations

import unicodedata

# Thai to Myanmar, Hangul Jamo, Khmer, Tai and Khmer symbols, Tai Tham, Balinese, CJK with kana and Hangul, the rest of
# Myanmar and Javanese, Tai Viet, Hangul syllables, compatibility and half-width forms, Tangut, kana, rare ideographs.
ALONE = (
    "[\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\u3001-\ua4cf\ua960-\ua9ff"
    "\uaa60-\uaadf\uac00-\ud7ff\uf900-\ufaff\uff65-\uffdc\U00016fe0-\U00018dff\U0001aff0-\U0001b2ff"
    "\U00020000-\U0003ffff]"
)
# Vowel signs, tone marks and voicing marks of these scripts: without them, different words would be equal.
MARKS = (
    (0x0E31, 0x0E31), (0x0E34, 0x0E3A), (0x0E47, 0x0E4E), (0x0EB1, 0x0EB1), (0x0EB4, 0x0EBC), (0x0EC8, 0x0ECE),
    (0x0F71, 0x0F84), (0x0F90, 0x0FBC), (0x102B, 0x103E), (0x1056, 0x1059), (0x105E, 0x1060), (0x1062, 0x1064),
    (0x1067, 0x106D), (0x1071, 0x1074), (0x1082, 0x108D), (0x108F, 0x108F), (0x109A, 0x109D), (0x17B4, 0x17D3),
    (0x17DD, 0x17DD), (0x1A55, 0x1A7C), (0x1B00, 0x1B04), (0x1B34, 0x1B44), (0x3099, 0x309A), (0xA980, 0xA983),
    (0xA9B3, 0xA9C0), (0xA9E5, 0xA9E5), (0xAA7B, 0xAA7D), (0xAAB0, 0xAAB0), (0xAAB2, 0xAAB4), (0xAAB7, 0xAAB8),
    (0xAABE, 0xAABF), (0xAAC1, 0xAAC1),
)  # fmt: skip

_VARIANTS = dict.fromkeys(range(0xFE00, 0xFE10))


def folded(text: str) -> str:
    """Return `text` as names, categories and tags are compared: without case, composed, without emoji variants."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold()).translate(_VARIANTS)
