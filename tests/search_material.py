"""Skills in many scripts, search texts, and the skills that they find."""

from __future__ import annotations

import unicodedata
from typing import Any

SKILLS: dict[str, dict[str, Any]] = {
    "report": {"name": "用Excel导出报表", "tags": ["天气", "数据\t分析"]},
    "pdf": {"name": "PDF & Excel", "category": "École"},
    "map": {"name": "Places - Mapbox", "tags": ['a "quoted" tag']},
    "hot": {"name": "🔥 Hot deals"},
    "b": {"name": "B ✔", "description": "first\0behind"},
    "thai": {"name": "ระบบนี้ช่วยค้นหาเที่ยวบิน"},
    "crab": {"name": "ปู"},
    "kana": {"name": "データを解析するツール"},
    "hangul": {"name": "PDF로 보고서작성"},
    "khmer": {"name": "ភាសាខ្មែរ"},
    "myanmar": {"name": "မြန်မာဘာသာ"},
    "lao": {"name": "ພາສາລາວ"},
    "composed": {"name": unicodedata.normalize("NFC", "ガイドcafé")},
    "decomposed": {"name": unicodedata.normalize("NFD", "ガイドcafé")},
    "code": {"name": "x", "code": "# 计算总和\nprint('\\u0000')\n" + "pass\n" * 60 + "# 结束"},
}
# Search texts, and the skills that they find.
FOUND = {
    "Excel": ["pdf", "report"],
    "excel 导出": ["report"],
    "导出": ["report"],
    "出报": ["report"],
    "报表导出": [],
    "用Exc": ["report"],
    "天气": ["report"],
    "分析": ["report"],
    "u5929": [],
    "PDF & Excel": ["pdf"],
    "Places - Mapbox": ["map"],
    "quoted": ["map"],
    "🔥 Hot": ["hot"],
    "❤️ hot": ["hot"],
    "B ✔": ["b"],
    "behind": ["b"],
    "✔": ["b"],
    "✔\ufe0f": ["b"],
    "&": ["pdf"],
    "- &": [],
    "ค้นหา": ["thai"],
    "เที่ยวบิน": ["thai"],
    "ปี": [],  # another vowel than in "crab"
    "解析": ["kana"],
    "ール": ["kana"],
    "보고서": ["hangul"],
    "작성": ["hangul"],
    "pdf 보고": ["hangul"],
    "ខ្មែរ": ["khmer"],
    "ဘာသာ": ["myanmar"],
    "ລາວ": ["lao"],
    "ガイド": ["composed", "decomposed"],
    unicodedata.normalize("NFD", "ガイド"): ["composed", "decomposed"],
    "CAFE": ["composed", "decomposed"],
    "计算 结束": ["code"],
    "u0000": ["code"],
}
