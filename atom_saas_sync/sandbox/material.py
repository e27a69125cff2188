"""Words and code fragments for generated skills.

`@noun@`, `@Noun@`, `@service@` and `@NUM@` are replaced by each skill's own words. The fragments only need to look like
skills: they are never run.
"""

# ruff: noqa: RUF001 - look-alike letters of other scripts are what this text is for
# ruff: noqa: SIM905 - a list of words reads best as words

from __future__ import annotations

CATEGORIES: tuple[tuple[str, str, int], ...] = (
    ("automation", "Chains of steps that run by themselves", 17),
    ("search", "Finding things on the web and in files", 15),
    ("development", "Reading, writing and reviewing code", 10),
    ("messaging", "Chat rooms and direct messages", 7),
    ("devops", "Deployments, clusters and on-call work", 6),
    ("data", "Tables, queries and pipelines", 6),
    ("calendar", "Dates, invitations and reminders", 5),
    ("social", "Posts, followers and feeds", 5),
    ("finance", "Invoices, budgets and bank statements", 5),
    ("media", "Audio and video", 3),
    ("email", "Mailboxes, filters and drafts", 3),
    ("agents", "Skills for agents that start agents", 3),
    ("documents", "PDF, spreadsheets and text files", 3),
    ("home", "Lamps, heating and doors", 2),
    ("images", "Drawing, resizing and describing pictures", 2),
    ("voice", "Speech in and out", 2),
    ("security", "Audits, secrets and certificates", 2),
    ("memory", "Notes that survive a conversation", 2),
    ("shopping", "Prices, baskets and parcels", 1),
    ("education", "Courses, cards and quizzes", 1),
    ("health", "Sleep, training and food", 1),
    ("games", "Boards, dice and scores", 1),
    ("travel", "Timetables, hotels and maps", 1),
    ("weather", "Forecasts and warnings", 1),
)

NOUNS = (
    "invoice parcel ticket branch cluster meeting thread inbox playlist contract forecast itinerary dataset backup "
    "certificate sensor recipe lecture auction portfolio transcript snapshot webhook changelog release incident "
    "subscription receipt waveform thumbnail palette glossary timetable lease ledger notebook bookmark feed digest "
    "roster voucher deployment container schema migration query report survey poll checklist reminder route garden"
).split()

ADJECTIVES = (
    "quiet swift patient tidy bright nightly weekly careful frugal local remote shared verbose humble rapid steady "
    "lazy eager gentle strict modular portable friendly sober curious honest"
).split()

VERBS = (
    "collect compare summarise rename archive publish schedule translate validate merge split watch restore index "
    "convert annotate deduplicate forward price rank trim sign tag resize"
).split()

SERVICES = (
    "Lanternbox Quayside Ferrytable Moltgrid Papertrout Oakline Hearthwire Tallybird Kitebase Cinderloop Drumlin "
    "Saltmarsh Pebbleworks Northgate Ripplecast Umbra Fieldnote Mosswire Copperlane Windrow"
).split()

AUTHORS = (
    "river-otter palekite northbound mossgarden tinylathe copperfin halfmoon-labs dustjacket foxglove-io papercrane "
    "lowtide underbridge gristmill starling-works plainchant"
).split()

DESCRIPTIONS = (
    "@Verb@ every @noun@ in @service@ and report what changed.",
    "Helps the agent to @verb@ a @noun@ through the @service@ API, with retries and a dry run.",
    "@Verb@ your @noun@s without leaving the chat.",
    "A @adjective@ way to @verb@ @noun@s. Needs a @service@ account.",
    "Use when the user asks to @verb@ a @noun@, mentions @service@, or pastes a @noun@ link.",
    "Übersetzt jede @service@-Meldung und legt sie als @noun@ ab – auch für größere Mengen.",
    "Récupère chaque « @noun@ » depuis @service@, vérifie l’état et résume l’évolution.",
    "Busca un @noun@ en @service@, compáralo con el año pasado y avisa mañana.",
    "Organiza cada @noun@ do @service@: ações, exceções e relatórios.",
    "Elenca i @noun@ di @service@, perché nessuno vada perduto.",
    "Zażółć @noun@: porządkuje źródła i wysyła streszczenie do @service@.",
    "Her @noun@ için @service@ üzerinden özet çıkarır; İstanbul saatine göre çalışır.",
    "Собирает @noun@ из @service@, убирает повторы и присылает сводку каждое утро.",
    "Збирає @noun@ із @service@ і пояснює, що змінилося.",
    "Συγκεντρώνει κάθε @noun@ από το @service@ και συνοψίζει τις αλλαγές.",
    "אוסף כל @noun@ מ־@service@ ומסכם את השינויים.",
    "يجمع كل @noun@ من @service@ ويلخّص ما تغيّر اليوم.",
    "@service@ से हर @noun@ लाकर बदलावों का सार बताता है।",
    "ดึง @noun@ จาก @service@ แล้วสรุปสิ่งที่เปลี่ยนไป",
    "从 @service@ 获取每个 @noun@,去重后生成摘要。",
    "@service@ の @noun@ を集めて、変更点だけをまとめます。",
    "@service@에서 @noun@을 모아 바뀐 점만 요약합니다.",
    "Lấy mọi @noun@ từ @service@ rồi tóm tắt những thay đổi.",
)

# Text that breaks careless code: joined emoji, combining and direction marks, no-break and zero-width spaces,
# full-width and mathematical letters, line separators, a byte order mark inside the text.
ODD_UNICODE = (
    "👩‍💻🏳️‍🌈 ready",
    "Z̸a̴l̵g̶o̷ proof",
    "\u202bright to left\u202c, then back",
    "no\u00a0break\u2009thin\u200bzero",
    "ＦＵＬＬ ｗｉｄｔｈ",
    "𝒮𝒸𝓇𝒾𝓅𝓉 𝔣𝔯𝔞𝔨𝔱𝔲𝔯",
    "line\u2028separator",
    "e\u0301 is not é",
    "\ufeffmark inside",
    "flags 🇨🇭🇺🇦🇯🇵",
    "ß ſ ŉ ǆ İ ı",
)

SENTENCE_STARTS = (
    "Before you @verb@ the @noun@,",
    "If the user gives no date,",
    "When @service@ answers slowly,",
    "For each open @noun@,",
    "Unless told otherwise,",
    "After the last page,",
    "With more than @NUM@ results,",
    "In a dry run,",
    "Whenever two entries clash,",
    "On the first call of a day,",
)

SENTENCE_MIDDLES = (
    "ask for the missing field",
    "read the newest entry first",
    "keep the old value beside the new one",
    "say how many were left out",
    "prefer the shorter of two titles",
    "wait for the queue to drain",
    "show the total and the three largest",
    "fall back to the cached copy",
    "group the lines by owner",
    "quote the source word for word",
    "write the file once and close it",
    "stop and name the failing step",
)

SENTENCE_ENDS = (
    "and never guess an identifier.",
    "then confirm with one short line.",
    "because a second try costs more than a question.",
    "so that nothing is sent twice.",
    "but leave drafts alone.",
    "and keep times in UTC.",
    "until the person says stop.",
    "without touching archived items.",
    "even if the list looks complete.",
    "and mention the @adjective@ mode.",
)

PYTHON_HEAD = '''"""@Noun@ helper for @service@."""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.request
from datetime import datetime, timezone

BASE = os.environ.get("@SERVICE@_URL", "https://api.@service_low@.example/v@NUM1@")
LIMIT = @NUM@


'''

PYTHON = (
    '''def load_@noun@_@k@(path: str) -> list[dict[str, object]]:
    """Read one @noun@ a line; blank lines do not count."""
    rows = []
    with open(path, encoding="utf-8") as source:
        for number, line in enumerate(source, 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                print(f"{path}:{number}: {error}", file=sys.stderr)
    return rows[:LIMIT]


''',
    '''def fetch_@noun@_@k@(identifier: str, *, timeout: float = @NUM@.0) -> dict[str, object]:
    """Ask @service@ for one @noun@."""
    request = urllib.request.Request(f"{BASE}/@noun@s/{identifier}")
    request.add_header("Accept", "application/json")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read().decode("utf-8"))


''',
    '''class @Noun@Window@k@:
    """A sliding window of the last @NUM@ values."""

    def __init__(self, size: int = @NUM@) -> None:
        self.size = size
        self.values: list[float] = []

    def add(self, value: float) -> float:
        self.values.append(value)
        if len(self.values) > self.size:
            self.values.pop(0)
        return sum(self.values) / len(self.values)


''',
    '''def @verb@_@noun@_@k@(rows: list[dict[str, object]]) -> dict[str, list[str]]:
    """Group rows by owner, oldest first."""
    groups: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda item: str(item.get("created_at", ""))):
        owner = str(row.get("owner") or "nobody")
        groups.setdefault(owner, []).append(str(row.get("title", "")))
    return {owner: titles for owner, titles in groups.items() if len(titles) <= @NUM@}


''',
    '''def stamp_@k@(now: datetime | None = None) -> str:
    """Return the time in the form that @service@ wants."""
    moment = now or datetime.now(timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


''',
    '''def score_@noun@_@k@(words: set[str], text: str) -> float:
    """Share of the words that the text holds, weighted by position."""
    found = 0.0
    for position, word in enumerate(text.lower().split()):
        if word in words:
            found += 1.0 / (1 + position // @NUM@)
    return round(found / max(len(words), 1), 3)


''',
)

PYTHON_TAIL = """def main() -> int:
    parser = argparse.ArgumentParser(description="@Verb@ a @noun@")
    parser.add_argument("identifier")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    print(json.dumps({"@noun@": options.identifier, "dry_run": options.dry_run}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
"""

BASH_HEAD = """#!/usr/bin/env bash
# @Verb@ each @noun@ in @service@.
set -euo pipefail

: "${@SERVICE@_TOKEN:?set @SERVICE@_TOKEN first}"
work=$(mktemp -d)
trap 'rm -r -- "$work"' EXIT

"""

BASH = (
    """list_@noun@_@k@() {
  local page=1
  while :; do
    curl --fail --silent --max-time @NUM@ \\
      --header "Authorization: Bearer $@SERVICE@_TOKEN" \\
      "https://api.@service_low@.example/@noun@s?page=$page" >"$work/page.json"
    [ "$(jq '.items | length' "$work/page.json")" -gt 0 ] || break
    jq -r '.items[].id' "$work/page.json"
    page=$((page + 1))
  done
}

""",
    """check_@noun@_@k@() {
  local file=$1
  if ! [ -s "$file" ]; then
    printf 'empty: %s\\n' "$file" >&2
    return @NUM1@
  fi
  sha256sum "$file" | cut -d ' ' -f 1
}

""",
    """# Keeps the newest @NUM@ copies, oldest go first.
prune_@noun@_@k@() {
  local keep=@NUM@ dir=$1
  find "$dir" -maxdepth 1 -name '@noun@-*.json' -print0 |
    sort -z | head -z -n "-$keep" | xargs -0 -r rm --
}

""",
    """say_@k@() {
  printf '%s @noun@: %s\\n' "$(date -u +%FT%TZ)" "$*"
}

""",
)

BASH_TAIL = """case "${1:-}" in
  "") echo "usage: $0 IDENTIFIER" >&2; exit 2 ;;
  *) echo "@verb@ @noun@ $1" ;;
esac
"""

NODE_HEAD = """// @Noun@ tools for @service@.
import { readFile, writeFile } from "node:fs/promises";

const BASE = process.env.@SERVICE@_URL ?? "https://api.@service_low@.example";
const LIMIT = @NUM@;

"""

NODE = (
    """export async function fetch@Noun@@k@(id, { timeout = @NUM@000 } = {}) {
  const answer = await fetch(`${BASE}/@noun@s/${encodeURIComponent(id)}`, {
    signal: AbortSignal.timeout(timeout),
    headers: { accept: "application/json" },
  });
  if (!answer.ok) throw new Error(`@service@ answered ${answer.status}`);
  return answer.json();
}

""",
    """export function @verb@@Noun@@k@(rows) {
  const groups = new Map();
  for (const row of rows.slice(0, LIMIT)) {
    const key = row.owner ?? "nobody";
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row.title.trim());
  }
  return Object.fromEntries([...groups].filter(([, titles]) => titles.length <= @NUM@));
}

""",
    """const wait@k@ = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export async function retry@k@(work, tries = @NUM1@) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (attempt >= tries) throw error;
      await wait@k@(2 ** attempt * 100);
    }
  }
}

""",
    """export async function save@Noun@@k@(path, rows) {
  const text = rows.map((row) => JSON.stringify(row)).join("\\n");
  await writeFile(path, `${text}\\n`, "utf8");
  return (await readFile(path, "utf8")).length;
}

""",
)

NODE_TAIL = """const [, , identifier] = process.argv;
if (!identifier) {
  console.error("usage: node @noun@.mjs IDENTIFIER");
  process.exit(2);
}
console.log(JSON.stringify({ @noun@: identifier }));
"""

PROMPT_HEAD = """---
name: @noun@-@verb@
description: @Verb@ a @noun@ with @service@.
---

# @Noun@ and @service@

"""

PROMPT = (
    """## When to use @k@

- The user wants to @verb@ a @noun@.
- A message holds a @service@ link.
- At least @NUM@ entries are waiting.

@sentence@ @sentence@ @sentence@

""",
    """## Steps @k@

1. @sentence@
2. @sentence@
3. @sentence@
4. @sentence@

""",
    """## Fields @k@

| field | type | meaning |
|---|---|---|
| `@noun@_id` | text | what @service@ calls it |
| `owner` | text | may be empty |
| `limit` | number | at most @NUM@ |

@sentence@

""",
    """## Example @k@

```bash
@service_low@ @verb@ --@noun@ "$ID" --limit @NUM@ --format json | jq '.items[] | {id, title}'
```

@sentence@ @sentence@

""",
    """@sentence@ @sentence@ @sentence@ @sentence@ @sentence@

""",
    """> **Note @k@.** @sentence@ @sentence@

""",
)

PROMPT_TAIL = """## Limits

Works with at most @NUM@ entries a call. Times are UTC.
"""

PYTHON_PACKAGES = (
    "requests>=2.31 httpx>=0.27 pydantic>=2 rich numpy>=1.26 pandas>=2.1 pillow python-dateutil lxml beautifulsoup4 "
    "jinja2 pyyaml openpyxl tenacity feedparser"
).split()

NPM_PACKAGES = "axios@1 zod@3 dayjs@1 cheerio lodash@4 yargs@17 undici@6 marked p-limit fast-glob".split()

TAGS = (
    "api cli productivity reports team personal beta offline bulk scheduled europe français 日本語 данные größe "
    "markdown json csv notifications experimental popular"
).split()

COMMENTS = (
    "Does what it says.",
    "Saved me an hour a week 🙂",
    "Works, but slow with many entries.",
    "Très pratique, merci !",
    "便利です。",
    None,
)
