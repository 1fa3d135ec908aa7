"""What mkdocs.yml cannot say: the pages of reference/, and what a test reads behind a fence."""

import re
from pathlib import Path


def on_config(config):
    """Adds to the navigation every page of reference/ that it does not name, by its path."""
    docs = Path(config.docs_dir)
    named = re.findall(r"reference/[^'\"]*\.md", str(config.nav))
    pages = sorted(page.relative_to(docs).as_posix() for page in docs.glob("reference/**/*.md"))
    for section in config.nav:
        if "Reference" in section:
            section["Reference"] += [page for page in pages if page not in named]
    return config


def on_page_markdown(markdown, **_):
    """Takes away what tests/docs.rs reads behind ```sql, and marks what psql prints, which is not there to be copied."""
    markdown = re.sub(r"^([ \t]*```sql)[ \t].*$", r"\1", markdown, flags=re.MULTILINE)
    return re.sub(r"^([ \t]*)```text$", r"\1``` { .text .output .no-copy }", markdown, flags=re.MULTILINE)
