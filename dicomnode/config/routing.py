"""Which studies are analysed how, and what else becomes of them: [routing], [[route]] and [[profile]]."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

from dicomnode.config.analysis import SEGMENTER_KEYS, AnalysisTable, SegmenterName, SelectionTable
from dicomnode.config.fields import AeTitle, ConfigTable, Pattern
from dicomnode.errors import ConfigurationError
from dicomnode.routing.rules import DEFAULT_PROFILE, Action, Condition, Mode, Otherwise, Priority, Rule

NAME = r"^[A-Za-z0-9_-]{1,32}$"
#: VRs without a value that could be compared: sequences and blobs.
_NOT_COMPARABLE = frozenset({"SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "OB or OW"})


def _keyword(value: str) -> str:
    if tag_for_keyword(value) is None:
        near = difflib.get_close_matches(value, list(keyword_dict), n=1)
        raise ValueError(f"no attribute has this keyword{f'; perhaps you meant {near[0]!r}' if near else ''}")
    if dictionary_VR(value) in _NOT_COMPARABLE:
        raise ValueError("this attribute is a sequence or binary: it has no value to compare")
    return value


class ConditionTable(ConfigTable):
    """One condition of a rule: a keyword and one kind of test."""

    keyword: Annotated[str, AfterValidator(_keyword)] = Field(
        description="give the keyword of a DICOM attribute, such as 'BodyPartExamined'"
    )
    equals: str = Field("", description="give the value that the attribute must have")
    one_of: tuple[str, ...] = Field((), description="give a list of values of which it must have one")
    matches: Pattern = Field("", description="give a regular expression, searched in the value without regard to case")
    at_least: float | None = Field(None, description="give the minimum (ages in years)")
    at_most: float | None = Field(None, description="give the maximum (ages in years)")
    series: Literal["any", "all"] | None = Field(
        None, description="give 'any' (one series has all of these), 'all' (every series), or omit it: the whole study"
    )

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        given = [bool(self.equals), bool(self.one_of), bool(self.matches), self._limits != (None, None)]
        if sum(given) != 1:
            raise ValueError("give exactly one of equals, one_of, matches, or a range (at_least, at_most)")
        low, high = self._limits
        if low is not None and high is not None and low > high:
            raise ValueError(f"at_least {low:g} is above at_most {high:g}: swap them")
        return self

    @property
    def _limits(self) -> tuple[float | None, float | None]:
        return self.at_least, self.at_most

    @property
    def condition(self) -> Condition:
        """The record that the rules take."""
        one_of = (self.equals,) if self.equals else self.one_of
        return Condition(self.keyword, one_of, self.matches, *self._limits, scope=self.series or "study")


class RouteTable(ConfigTable):
    """One rule: which studies it takes, and what it does with them."""

    name: str = Field(min_length=1, max_length=64, description="give the rule a name of 1 to 64 characters")
    calling_ae: tuple[AeTitle, ...] = Field((), description="give a list of AE titles of senders; none means any")
    called_ae: tuple[AeTitle, ...] = Field(
        (), description="give a list of our AE titles (node.ae_title, routing.ae_titles); none means any"
    )
    when: tuple[ConditionTable, ...] = Field(
        (), description="give conditions such as { keyword = 'Modality', equals = 'CT' }; none matches every study"
    )
    analyse: str | None = Field(None, description=f"give '{DEFAULT_PROFILE}', or the name of a [[profile]]")
    results_to: tuple[str, ...] | None = Field(
        None, min_length=1, description="give names of destinations for the results, or omit the key for all"
    )
    forward_to: tuple[str, ...] = Field((), description="give names of destinations for the received images")
    hold: bool = Field(False, description="give true to hold the study until `dicomnode jobs release`")
    ignore: bool = Field(False, description="give true to ignore the study; its images are kept until space is needed")
    priority: Priority = Field("routine", description="give 'stat', 'routine' or 'research'")

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        does = self.analyse is not None or bool(self.forward_to) or self.hold
        if self.ignore and does:
            raise ValueError(f"rule {self.name!r}: ignore = true cannot be combined with analyse, forward_to or hold")
        if not self.ignore and not does:
            raise ValueError(f"rule {self.name!r} does nothing: give analyse, forward_to, hold or ignore")
        if self.results_to is not None and self.analyse is None:
            raise ValueError(f"rule {self.name!r}: results_to needs analyse = {DEFAULT_PROFILE!r} or a profile")
        return self

    @property
    def rule(self) -> Rule:
        """The record that `routing.rules.decide` takes. A rule that only holds is analysed once it is released."""
        only_holds = self.hold and self.analyse is None and not self.forward_to
        analyse = DEFAULT_PROFILE if only_holds else self.analyse
        action = Action(analyse, self.results_to, self.forward_to, self.hold, self.priority)
        return Rule(self.name, action, self.calling_ae, self.called_ae, tuple(c.condition for c in self.when))


class RoutingTable(ConfigTable):
    """How the rules work together. Without any [[route]], every study is analysed and its results go everywhere."""

    ae_titles: tuple[AeTitle, ...] = Field(
        (), description="give a list of additional AE titles of this node, on the same port"
    )
    mode: Mode = Field(
        "first", description="give 'first' (the first rule that matches decides) or 'all' (all that match together)"
    )
    otherwise: Otherwise = Field(
        "analyse", description="give 'analyse', 'ignore' or 'hold' for studies that match no rule"
    )
    routine_yields_s: float = Field(
        900,
        ge=0,
        le=2_592_000,
        description="give the seconds for which later 'stat' studies may overtake a routine study",
    )
    research_yields_s: float = Field(
        14_400, ge=0, le=2_592_000, description="give the seconds for which later studies may overtake a research study"
    )


class ProfileTable(ConfigTable):
    """A named variation of [analysis]: what is given here replaces what stands there."""

    name: str = Field(pattern=NAME, description="give a name of letters, digits, '-' and '_'")
    selection: SelectionTable | None = Field(None, description="give a table [profile.selection]")
    segmenter: SegmenterName | None = Field(None, description="give 'classical' or 'lungmask'")
    lungmask_weights: Path | None = Field(None, description="give 'R231', or the path of such a weights file")
    lungmask_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="give the SHA-256 of that file: 64 lower-case hex digits"
    )
    bundle: str | None = Field(None, description="give the name of a bundle's folder, or '' for no risk")
    allow_demo_bundles: bool | None = Field(None, description="give true for demonstrations only")
    radiomics: bool | None = Field(None, description="give true to compute the radiomics features, else false")

    @model_validator(mode="after")
    def _own_name(self) -> Self:
        if self.name == DEFAULT_PROFILE:
            raise ValueError(f"{DEFAULT_PROFILE!r} is the table [analysis] itself: give the profile another name")
        return self

    def applied_to(self, analysis: AnalysisTable) -> AnalysisTable:
        """[analysis] with this profile's keys in place of its own. Raises ConfigurationError."""
        given = {k: getattr(self, k) for k in self.model_fields_set - {"name", "selection"}}
        if self.selection is not None:
            chosen = {k: getattr(self.selection, k) for k in self.selection.model_fields_set}
            given["selection"] = analysis.selection.model_copy(update=chosen)
        # What is one segmenter's is not another's, and a digest belongs to its file.
        others = SEGMENTER_KEYS.items() if self.segmenter else ()
        foreign = {key for name, keys in others if name != self.segmenter for key in keys}
        if self.lungmask_weights:
            foreign.add("lungmask_sha256")
        base = {k: getattr(analysis, k) for k in type(analysis).model_fields if k not in foreign}
        try:
            return AnalysisTable.model_validate({**base, **given})
        except ValidationError as e:
            what = "; ".join(x["msg"].removeprefix("Value error, ") for x in e.errors())
            raise ConfigurationError(f"profile {self.name!r}: {what}") from None

    def resolved(self, folder: Path) -> Self:
        """Return the same with its path made absolute against `folder`."""
        weights = self.lungmask_weights
        return self if weights is None else self.model_copy(update={"lungmask_weights": folder / weights})


def check_names(routes: Sequence[RouteTable], others: Mapping[str, Any]) -> None:
    """Every destination, profile and AE title of ours that a rule names must be there.

    `others` are the tables validated before: "node", "destination", "profile", "routing"; one that is itself wrong is
    missing, and reported separately. Raises ValueError.
    """
    if not {"node", "destination", "profile", "routing"} <= others.keys():
        return
    destinations = [d.name for d in others["destination"]]
    reports = {d.name for d in others["destination"] if not d.takes_objects}
    profiles = [DEFAULT_PROFILE, *(p.name for p in others["profile"])]
    ours = [others["node"].ae_title, *others["routing"].ae_titles]
    for route in routes:
        for name in (*(route.results_to or ()), *route.forward_to):
            _known(route.name, "destination", name, destinations)
        for name in (n for n in route.forward_to if n in reports):
            raise ValueError(f"rule {route.name!r}: destination {name!r} takes no images: remove it from forward_to")
        if route.analyse is not None:
            _known(route.name, "profile", route.analyse, profiles)
        if others["node"].check_called_ae:
            for name in route.called_ae:
                _known(route.name, "AE title", name, ours)


def _known(rule: str, what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"perhaps you meant {near[0]!r}" if near else f"known: {', '.join(known) or 'none'}"
        raise ValueError(f"rule {rule!r}: there is no {what} {name!r}; {hint}")
