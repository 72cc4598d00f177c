"""The schema of audit messages as PS3.15 A.5.1 states it, in RELAX NG's XML syntax, written for these tests."""

from lxml import etree

_TYPES = "http://www.w3.org/2001/XMLSchema-datatypes"


def _attribute(name: str, content: str = '<data type="token"/>', *, optional: bool = False) -> str:
    one = f'<attribute name="{name}">{content}</attribute>'
    return f"<optional>{one}</optional>" if optional else one


def _one_of(*values: str) -> str:
    return "<choice>" + "".join(f"<value>{value}</value>" for value in values) + "</choice>"


def _numbers(last: int) -> str:
    return _one_of(*map(str, range(1, last + 1)))


def _coded(name: str) -> str:
    return f'<element name="{name}"><ref name="code"/></element>'


_BOOLEAN, _BASE64 = '<data type="boolean"/>', '<data type="base64Binary"/>'
_CODE = (
    _attribute("csd-code")
    + _attribute("codeSystemName")
    + _attribute("displayName", optional=True)
    + _attribute("originalText")
)
_EVENT = (
    _attribute("EventActionCode", _one_of("C", "R", "U", "D", "E"), optional=True)
    + _attribute("EventDateTime", '<data type="dateTime"/>')
    + _attribute("EventOutcomeIndicator", _one_of("0", "4", "8", "12"))
    + _coded("EventID")
    + f"<zeroOrMore>{_coded('EventTypeCode')}</zeroOrMore>"
    + '<optional><element name="EventOutcomeDescription"><text/></element></optional>'
)
_PARTICIPANT = (
    _attribute("UserID", "<text/>")
    + _attribute("AlternativeUserID", "<text/>", optional=True)
    + _attribute("UserName", "<text/>", optional=True)
    + _attribute("UserIsRequestor", _BOOLEAN)
    + _attribute("NetworkAccessPointID", optional=True)
    + _attribute("NetworkAccessPointTypeCode", _numbers(5), optional=True)
    + f"<zeroOrMore>{_coded('RoleIDCode')}</zeroOrMore>"
    + f'<optional><element name="MediaIdentifier">{_coded("MediaType")}</element></optional>'
)
_SOURCE = (
    _attribute("AuditEnterpriseSiteID", optional=True)
    + _attribute("AuditSourceID")
    + '<zeroOrMore><element name="AuditSourceTypeCode">'
    + _attribute("csd-code")
    + "</element></zeroOrMore>"
)
_DESCRIPTION = f"""
<zeroOrMore><element name="MPPS">{_attribute("UID")}</element></zeroOrMore>
<zeroOrMore><element name="Accession">{_attribute("Number")}</element></zeroOrMore>
<zeroOrMore><element name="SOPClass">{_attribute("UID", optional=True)}
  {_attribute("NumberOfInstances", '<data type="integer"/>')}
  <zeroOrMore><element name="Instance">{_attribute("UID")}</element></zeroOrMore></element></zeroOrMore>
<optional><element name="ParticipantObjectContainsStudy">
  <zeroOrMore><element name="StudyIDs">{_attribute("UID")}</element></zeroOrMore></element></optional>
<optional><element name="Encrypted">{_BOOLEAN}</element></optional>
<optional><element name="Anonymized">{_BOOLEAN}</element></optional>
"""
_OBJECT = f"""
{_attribute("ParticipantObjectID")}
{_attribute("ParticipantObjectTypeCode", _numbers(4), optional=True)}
{_attribute("ParticipantObjectTypeCodeRole", _numbers(26), optional=True)}
{_attribute("ParticipantObjectDataLifeCycle", _numbers(15), optional=True)}
{_attribute("ParticipantObjectSensitivity", optional=True)}
{_coded("ParticipantObjectIDTypeCode")}
<choice><element name="ParticipantObjectName"><data type="token"/></element>
<element name="ParticipantObjectQuery">{_BASE64}</element></choice>
<zeroOrMore><element name="ParticipantObjectDetail">
  {_attribute("type")}{_attribute("value", _BASE64)}</element></zeroOrMore>
<zeroOrMore><element name="ParticipantObjectDescription">{_DESCRIPTION}</element></zeroOrMore>
"""
_GRAMMAR = f"""
<grammar xmlns="http://relaxng.org/ns/structure/1.0" datatypeLibrary="{_TYPES}">
<start><element name="AuditMessage">
<element name="EventIdentification">{_EVENT}</element>
<oneOrMore><element name="ActiveParticipant">{_PARTICIPANT}</element></oneOrMore>
<element name="AuditSourceIdentification">{_SOURCE}</element>
<zeroOrMore><element name="ParticipantObjectIdentification">{_OBJECT}</element></zeroOrMore>
</element></start>
<define name="code">{_CODE}</define>
</grammar>
"""
SCHEMA = etree.RelaxNG(etree.fromstring(_GRAMMAR))


def faults(xml: str) -> list[str]:
    """What the schema finds wrong with a message."""
    SCHEMA.validate(etree.fromstring(xml.encode()))
    return [f"{error.path}: {error.message}" for error in SCHEMA.error_log]
