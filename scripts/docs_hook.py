"""What mkdocs.yml cannot say: the pages of reference/, and what a test reads behind a fence."""

import re
from pathlib import Path


def on_config(config):
    """Adds the pages of reference/ to the navigation: in the sections of its index, and the others behind them."""
    folder = Path(config.docs_dir) / "reference"
    pages = {page.relative_to(folder).as_posix() for page in folder.glob("**/*.md")} - {"index.md"}
    nav = ["reference/index.md"]
    for part in re.split(r"^## ", (folder / "index.md").read_text(), flags=re.MULTILINE)[1:]:
        listed = [page for page in re.findall(r"^- .*?\]\(([^)#]*\.md)\)", part, re.MULTILINE) if page in pages]
        pages -= set(listed)
        if listed:
            nav.append({part.splitlines()[0]: [f"reference/{page}" for page in listed]})
    nav += [f"reference/{page}" for page in sorted(pages)]
    for section in config.nav:
        if "Reference" in section:
            section["Reference"] = nav
    return config


def on_page_markdown(markdown, **_):
    """Takes away what tests/docs.rs reads behind ```sql, and marks what psql prints, which is not there to be copied."""
    markdown = re.sub(r"^([ \t]*```sql)[ \t].*$", r"\1", markdown, flags=re.MULTILINE)
    return re.sub(r"^([ \t]*```\n\s*?)([ \t]*)```text$", r"\1\2``` { .text .output .no-copy }", markdown, flags=re.MULTILINE)
