"""What MkDocs does not do by itself for the site: pages of the repository outside docs/, and the list of all messages.

`mkdocs.yml` names this module as a hook. Pages are written to be read in the repository; their links to what lies
outside docs/ lead in the site to a copy below project/.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tests.helpers.messages import page as messages_page
from tests.helpers.prerequisites import ROOT

#: Pages and files outside docs/ that are shown.
ABOUT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "ae_config.toml")
_LINK = re.compile(r"(?<=\]\()(\.\./[^)\s#]+)(#[^)\s]*)?(?=\))")


def anchor(heading: str, _separator: str) -> str:
    """Return the anchor of a heading as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not in docs/."""
    for name in ABOUT:
        text = (ROOT / name).read_text("utf-8")
        files.append(File.generated(config, f"project/{name}", content=text))
    files.append(File.generated(config, "admin/messages.md", content=messages_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to the repository's own files lead to their copies, or say the path where there is none."""
    here = posixpath.dirname(page.file.src_uri)
    if here == "project":
        markdown = re.sub(r"(?<=\]\()docs/", "../", markdown)
    return _LINK.sub(lambda found: _led(found, here), markdown)


def _led(found: re.Match[str], here: str) -> str:
    target = posixpath.normpath(posixpath.join("docs", here, found[1]))
    if target.startswith("docs/") or target not in ABOUT:
        return found[0]
    return posixpath.relpath(f"project/{target}", here or ".") + (found[2] or "")


def outside(site: Path) -> list[str]:
    """Return what pages of a site would load from elsewhere: scripts, styles, pictures, fonts."""
    loads = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']((?:https?:)?//[^"']+)""")
    imports = re.compile(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')]+)""")
    return [
        f"{path.relative_to(site)}: {one}"
        for path in sorted(site.rglob("*"))
        if path.suffix in (".html", ".css")
        for one in [*loads.findall(path.read_text("utf-8")), *imports.findall(path.read_text("utf-8"))]
    ]
