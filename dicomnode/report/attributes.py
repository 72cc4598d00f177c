"""Which elements of a source image the objects take over, or need to see, by keyword."""

from typing import Final

_ENCODING = "SpecificCharacterSet TimezoneOffsetFromUTC"

# PS3.3 C.7.1.1 Patient and C.7.1.3 Clinical Trial Subject
_PATIENT = """
    PatientName PatientID IssuerOfPatientID TypeOfPatientID IssuerOfPatientIDQualifiersSequence
    SourcePatientGroupIdentificationSequence GroupOfPatientsIdentificationSequence PatientBirthDate PatientBirthTime
    PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar PatientSex
    QualityControlSubject ReferencedPatientSequence OtherPatientIDs OtherPatientNames OtherPatientIDsSequence
    EthnicGroup PatientComments PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence
    ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName ClinicalTrialSiteID
    ClinicalTrialSiteName ClinicalTrialSubjectID ClinicalTrialSubjectReadingID
    ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialProtocolEthicsCommitteeApprovalNumber
"""

# C.7.2.1 General Study, C.7.2.2 Patient Study and C.7.2.3 Clinical Trial Study
_STUDY = """
    StudyInstanceUID StudyDate StudyTime ReferringPhysicianName ReferringPhysicianIdentificationSequence
    ConsultingPhysicianName ConsultingPhysicianIdentificationSequence StudyID AccessionNumber
    IssuerOfAccessionNumberSequence StudyDescription PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence
    NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence RequestingService
    RequestingServiceCodeSequence ReferencedStudySequence ProcedureCodeSequence
    ReasonForPerformedProcedureCodeSequence AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge
    PatientSize PatientWeight PatientBodyMassIndex MeasuredAPDimension MeasuredLateralDimension
    PatientSizeCodeSequence MedicalAlerts Allergies SmokingStatus PregnancyStatus LastMenstrualDate PatientState
    ReasonForVisit ReasonForVisitCodeSequence Occupation AdditionalPatientHistory AdmissionID
    IssuerOfAdmissionIDSequence ServiceEpisodeID ServiceEpisodeDescription IssuerOfServiceEpisodeIDSequence
    ClinicalTrialTimePointID ClinicalTrialTimePointDescription LongitudinalTemporalOffsetFromEvent
    LongitudinalTemporalEventType ConsentForClinicalTrialUseSequence
"""

_TYPE_2 = """
    PatientName PatientID PatientBirthDate PatientSex
    StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyID
"""

_GEOMETRY = """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality FrameOfReferenceUID Rows Columns
    PixelSpacing SliceThickness ImagePositionPatient ImageOrientationPatient NumberOfFrames
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionIndexSequence
    DimensionOrganizationSequence LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
"""

#: Taken over byte for byte.
CARRIED: Final = tuple((_ENCODING + _PATIENT + _STUDY).split())
#: Present in every object, empty where the source has nothing (type 2).
TYPE_2: Final = frozenset(_TYPE_2.split())
#: What it takes to place a segmentation upon an image.
GEOMETRY: Final = tuple(_GEOMETRY.split())
#: Values whose bytes depend on the byte order of the source (those of text do not).
BINARY_VRS: Final = frozenset(
    ("AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "OB", "OD", "OF", "OL", "OV", "OW")
)
