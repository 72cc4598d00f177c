"""Typical mistakes in ae_config.toml: each is answered with key, value and cure."""

from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.analysis.series.selection_rules import Rules
from dicomnode.errors import ConfigurationError
from tests.conftest import ROOT

STOW = '[[destination]]\nname = "a"\nkind = "stow"\nurl = "https://h/dicom-web"\n'
PACS = '[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "10.0.0.1"\nport = 104\n'
RIS = '[worklist]\nae_title = "RIS"\nhost = "10.0.0.2"\nport = 104\n'
UPS = '[ups]\nae_title = "UPS"\nhost = "10.0.0.3"\nport = 104\n'
PRIORS = '[priors]\nae_title = "PACS"\nhost = "10.0.0.1"\nport = 104\n'


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "ae_config.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def test_shipped_example_names_every_key_and_is_valid() -> None:
    shipped = config.load(ROOT / "ae_config.toml")
    text = (ROOT / "ae_config.toml").read_text("utf-8")
    tables = (shipped.node, shipped.storage, shipped.settle, shipped.analysis, shipped.worker, shipped.logging)
    for table in (*tables, shipped.analysis.selection):
        for key in type(table).model_fields:
            shown = (f"{key} = ", f"[[node.{key}]]", f"[analysis.{key}]")
            assert any(s in text for s in shown), f"ae_config.toml does not show {key}"
    for off in (config.WorklistTable, config.PriorsTable, config.UpsTable, config.MppsTable):
        for key in off.model_fields:
            assert f"# {key} = " in text, f"ae_config.toml does not show {key}"
    assert [shipped.worklist, shipped.priors, shipped.ups, shipped.mpps] == 4 * [None]
    assert shipped.node.host == "127.0.0.1"
    assert [d.port for d in shipped.destination] == [4242]
    for kind in (config.DicomDestinationTable, config.StowDestinationTable):
        for key in kind.model_fields:
            assert f"{key} = " in text, f"ae_config.toml does not show {key}"


def test_the_rules_of_the_shipped_example_are_the_defaults(tmp_path: Path) -> None:
    assert config.load(ROOT / "ae_config.toml").analysis.selection.rules == Rules()
    assert load(tmp_path, "").analysis.selection.rules == Rules()


def test_rules_are_read(tmp_path: Path) -> None:
    text = '[analysis.selection]\nmax_step_mm = 3\nkernels = ["medium", "lung"]\ndescription_exclude = ["mip"]\n'
    expected = Rules(max_step_mm=3, kernels=("medium", "lung"), description_exclude=("mip",))
    assert load(tmp_path, text).analysis.selection.rules == expected


@pytest.mark.parametrize("table", ["worklist", "priors", "ups", "mpps"])
def test_what_the_shipped_example_shows_in_comments_is_valid_and_the_default(tmp_path: Path, table: str) -> None:
    text = (ROOT / "ae_config.toml").read_text("utf-8")
    shown = text.partition(f"# [{table}]\n")[2].partition("\n\n")[0]
    lines = [line.removeprefix("# ") for line in shown.splitlines()]
    found = getattr(load(tmp_path, f"[{table}]\n" + "\n".join(lines)), table)
    for key, field in type(found).model_fields.items():
        if not field.is_required() and key not in ("calling_ae_title", "body_parts"):
            assert getattr(found, key) == field.default, key


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, '[storage]\nspool = "s"\n').storage.spool == tmp_path / "s"


def test_demo_bundles_are_off_by_default(tmp_path: Path) -> None:
    assert load(tmp_path, "").analysis.allow_demo_bundles is False


MISTAKES = [
    ("unknown key, near match", "[node]\nprot = 1\n", ["node.prot", "perhaps you meant 'port'"]),
    ("unknown table", "[nodes]\n", ["nodes", "perhaps you meant 'node'"]),
    ("wrong type", '[node]\nport = "abc"\n', ["node.port", "'abc'", "give a free TCP port"]),
    ("out of range", "[node]\nport = 99999\n", ["node.port", "99999", "from 1 to 65535"]),
    (
        "AE title too long",
        '[node]\nae_title = "AN_AE_TITLE_TOO_LONG"\n',
        ["node.ae_title", "AN_AE_TITLE_TOO_LONG", "16"],
    ),
    (
        "key missing",
        '[[destination]]\nname = "a"\nae_title = "A"\nport = 1\n',
        ["destination[1].host", "missing", "give"],
    ),
    ("two of one name", PACS + PACS, ["destination", "'pacs'", "its own name"]),
    (
        "all may query",
        "[[node.callers]]\nquery = true\n",
        ["node.callers[1].query", "anyone", "named by its AE title"],
    ),
    ("no address", '[[node.callers]]\nmove_to = "10.0.0.3"\n', ["node.callers[1].move_to", "host:port"]),
    ("no network", '[[node.callers]]\naddress = "10.0.0.300"\n', ["node.callers[1].address", "10.0.0.300", "give"]),
    ("unknown object", PACS + 'objects = ["sge"]\n', ["destination[1].objects[1]", "'sge'", "perhaps you meant 'seg'"]),
    ("negative time", "[settle]\nquiet_s = -1\n", ["settle.quiet_s", "-1", "seconds without images"]),
    ("not TOML", "[node\n", ["not valid TOML", "line 1"]),
    ("unquoted string", "[node]\nae_title = NODE\n", ["not valid TOML", "quotes"]),
    (
        "weights not named",
        '[analysis]\nsegmenter = "lungmask"\n',
        ["analysis.lungmask_weights: is missing", "needs it", "weights fetch R231"],
    ),
    (
        "lobes by thresholds",
        '[analysis]\nlungmask_lobe_weights = "LTRCLobes"\n',
        ["analysis.lungmask_lobe_weights", "LTRCLobes", "need segmenter", "weights fetch LTRCLobes"],
    ),
    (
        "other database",
        '[storage]\ndatabase_url = "mysql://x/y"\n',
        ["storage.database_url", "mysql://x/y", "postgresql://"],
    ),
    ("truth as a string", '[node]\ncheck_called_ae = "yes"\n', ["node.check_called_ae", "'yes'", "true"]),
    (
        "broken pattern",
        '[analysis.selection]\ndescription_exclude = ["mip", "exp("]\n',
        ["analysis.selection.description_exclude[2]", "'exp('", "not a regular expression", "give a list of patterns"],
    ),
    (
        "kernel family, near match",
        '[analysis.selection]\nkernels = ["lungs"]\n',
        ["analysis.selection.kernels[1]", "'lungs'", "perhaps you meant 'lung'", "the best first"],
    ),
    ("no thickness", "[analysis.selection]\nmax_step_mm = 0\n", ["analysis.selection.max_step_mm", "0", "in mm"]),
    ("unknown rule", "[analysis.selection]\nmin_slice = 9\n", ["perhaps you meant 'min_slices'"]),
    ("contrast", '[analysis.selection]\ncontrast = "prefered"\n', ["'prefered'", "'preferred'"]),
    (
        "watermarks the wrong way round",
        "[storage]\nlow_free_gb = 1\nminimum_free_gb = 2\n",
        ["storage.minimum_free_gb", "above low_free_gb", "no longer accepted"],
    ),
    (
        "filters with the IBSI preparation",
        "[analysis]\nradiomics_preparation = 'ibsi'\nradiomics_filters = ['LoG']\n",
        ["radiomics_filters", "must be []"],
    ),
    ("LoG without width", "[analysis]\nradiomics_log_sigma_mm = [0.0]\n", ["radiomics_log_sigma_mm", "0.5 to 20 mm"]),
    (
        "a count by nobody",
        '[settle]\ncount_at = "x"\n' + PACS,
        ["settle.count_at = 'x'", "DICOM destination"],
    ),
    ("worklist without a port", '[worklist]\nae_title = "R"\nhost = "h"\n', ["worklist.port", "missing", "TCP port"]),
    ("time zone", RIS + 'time_zone = "Mars"\n', ["worklist.time_zone", "'Mars'", "not a time zone", "Europe/Zurich"]),
    ("no wait", RIS + "timeout_s = 0\n", ["worklist.timeout_s", "seconds to wait"]),
    ("quiet hours", PRIORS + 'quiet_hours = "7-19"\n', ["priors.quiet_hours", "'7-19'", "19:00-06:00"]),
    ("how to retrieve", PRIORS + 'retrieve = "mvoe"\n', ["priors.retrieve", "perhaps you meant 'move'"]),
    ("prior's pattern", PRIORS + 'body_parts = ["a("]\n', ["priors.body_parts[1]", "not a regular expression"]),
    (
        "half a code",
        UPS + 'workitem = ["1"]\n',
        ["ups.workitem: is not a code of three texts", "value, scheme, meaning"],
    ),
    (
        "unknown kind",
        STOW.replace("stow", "sttow"),
        ["destination[1].kind = 'sttow'", "perhaps you meant 'stow'", "'dicom' (C-STORE", "'stow' (STOW-RS to url)"],
    ),
    ("kind of another type", STOW.replace('"stow"', "3"), ["destination[1].kind = '3'", "unknown kind", "'dicom'"]),
    (
        "DICOM key for STOW",
        STOW + 'ae_title = "A"\n',
        ["destination[1].ae_title", "does not apply to kind = 'stow'", "remove it"],
    ),
    (
        "STOW key for DICOM",
        PACS + 'url = "https://h"\n',
        ["destination[1].url", "does not apply to kind = 'dicom'", "change the kind"],
    ),
    ("key of no kind", STOW + 'urll = "u"\n', ["destination[1].urll: unknown key", "perhaps you meant 'url'"]),
    ("STOW without its url", STOW.partition("url")[0], ["destination[1].url: is missing", "DICOMweb service's root"]),
    (
        "commitment by DICOMweb",
        STOW + "commitment = true\n",
        ["destination[1].commitment", "has no storage commitment"],
    ),
    (
        "secret in the clear",
        STOW.replace("https", "http") + 'token = "env:T"\n',
        ["destination[1].token", "sent unencrypted"],
    ),
    ("half a log-in", STOW + 'user = "u"\n', ["destination[1].password", "is missing where user is given", "env:NAME"]),
    (
        "another half",
        STOW.replace("http:", "https:") + 'password = "env:P"\n',
        ["destination[1].token", "give either user and password, or a token"],
    ),
    ("one of several", '[destination]\nname = "a"\n', ["destination: ", "write [[destination]], in double brackets"]),
    (
        "one of several within one of several",
        '[[route]]\nname = "a"\nanalyse = "default"\n[route.when]\nattribute = "Modality"\n',
        ["route[1].when: ", "write [[route.when]], in double brackets"],
    ),
    ("several of one", "[[node]]\nport = 1\n", ["node: there is one of these", "write [node], in single brackets"]),
    ("key of another table", "[node]\nrelease_s = 3\n", ["node.release_s: unknown key here", "belongs to [settle]"]),
    ("key of two others", "[node]\nwait_s = 3\n", ["node.wait_s", "belongs to [priors] or [ups]"]),
    ("key of no table", "port = 104\n", ["port: unknown key here; it belongs to [node] or "]),
    ("key of an array's table", "[node]\nobjects = 3\n", ["node.objects", "belongs to [[destination]]"]),
    ("tiny PDU", "[node]\nmax_pdu_bytes = 100\n", ["node.max_pdu_bytes", "100", "4096"]),
]


@pytest.mark.parametrize(("text", "says"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistake_is_answered_with_key_value_and_cure(tmp_path: Path, text: str, says: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert str(tmp_path / "ae_config.toml") in message
    for part in says:
        assert part in message


def test_a_mark_before_the_text_is_no_mistake(tmp_path: Path) -> None:
    """Editors of Windows write one (U+FEFF)."""
    assert load(tmp_path, "\ufeff[node]\nport = 104\n").node.port == 104


def test_another_encoding_is_told_with_its_cure(tmp_path: Path) -> None:
    path = tmp_path / "ae_config.toml"
    path.write_bytes("[node]\n".encode("utf-16"))
    with pytest.raises(ConfigurationError, match="save it in the encoding UTF-8"):
        config.load(path)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, "[node]\nport = 0\nprot = 1\n[settle]\nquiet_s = 0\n")
    assert len(str(caught.value).splitlines()) == 3


def test_missing_file_names_the_example(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        config.load(tmp_path / "nothing.toml")


def test_a_dicomweb_destination_has_its_files_beside_the_configuration(tmp_path: Path) -> None:
    def stow(more: str) -> config.StowDestinationTable:
        (destination,) = load(tmp_path, STOW + more).destination
        assert isinstance(destination, config.StowDestinationTable)
        return destination

    destination = stow('token = "file:secrets/t"\nca_file = "ca.pem"\n')
    assert destination.token == f"file:{tmp_path}/secrets/t"
    assert destination.ca_file == str(tmp_path / "ca.pem")
    assert stow('user = "u"\npassword = "env:P"\n').password == "env:P"
    assert stow("").ca_file == ""


def test_a_destination_without_a_kind_speaks_dicom(tmp_path: Path) -> None:
    found = load(tmp_path, PACS + STOW).destination
    assert [(type(d), d.kind) for d in found] == [
        (config.DicomDestinationTable, "dicom"),
        (config.StowDestinationTable, "stow"),
    ]
    assert load(tmp_path, PACS + 'kind = "dicom"\n').destination[0] == found[0]
