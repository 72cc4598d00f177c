"""The catalogue's tables as they are now. `migrations/` makes them, and a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

metadata = MetaData()

associations = Table(
    "associations",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("receiver_run", String, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("address", String, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("closed_at", Float),
    Column("closed", String(16)),
)
Index("associations_open", associations.c.closed, sqlite_where=associations.c.closed.is_(None))

studies = Table(
    "studies",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("instances", Integer, nullable=False),
)
Index("studies_state_last_seen", studies.c.state, studies.c.last_seen)
# With the UID: in the order of pages, and where a part of a UID is looked for no row is read but those found.
Index("studies_last_seen", studies.c.last_seen, studies.c.study_uid)

instances = Table(
    "instances",
    metadata,
    Column("sop_instance_uid", String, primary_key=True),
    Column("sop_class_uid", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("series_uid", String, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("association_id", ForeignKey("associations.id")),
    Column("patient_hash", String(64), nullable=False),
    Column("modality", String, nullable=False),
    Column("image_type", Text, nullable=False),
    Column("orientation", String, nullable=False),
    Column("slice_position", Float),
)
Index("instances_study", instances.c.study_uid)
#: By it is counted what an association has brought.
Index("instances_association", instances.c.association_id)

#: Whose a study is and who sent it, for a person who looks for it (`labels`). Not on the way of an image.
study_labels = Table(
    "study_labels",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("sender", String(16), nullable=False),
    Column("called", String(16), nullable=False),
    Column("accession_key", String(64), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    # In the clear, as the time of its first image is: by it a page of a search by date is found.
    Column("study_date", String(8), nullable=False, server_default=""),
    # Grows with each label that says something new: who remembers labels (`dicomweb.names`) reads only those behind.
    Column("noted", BigInteger, nullable=False, server_default="0"),
)
Index("study_labels_noted", study_labels.c.noted)
Index("study_labels_sender", study_labels.c.sender, study_labels.c.seen_at)
Index("study_labels_accession", study_labels.c.accession_key)

#: One row: by which key `patient_hash` is made, here and in the other tables.
patient_keys = Table(
    "patient_keys",
    metadata,
    Column("fingerprint", String(64), primary_key=True),
)

# Outlives the instances: prior findings of a patient are found by it.
patients = Table(
    "patients",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("patient_hash", String(64)),
)
Index("patients_hash", patients.c.patient_hash)

jobs = Table(
    "jobs",
    metadata,
    Column("study_uid", ForeignKey("studies.study_uid"), primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)
Index("jobs_state_updated", jobs.c.state, jobs.c.updated_at)
Index("jobs_updated", jobs.c.updated_at)
_with_reason = jobs.c.reason.is_not(None)
Index("jobs_reason", jobs.c.study_uid, jobs.c.generation, sqlite_where=_with_reason, postgresql_where=_with_reason)

deliveries = Table(
    "deliveries",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("destination", String, primary_key=True),
    Column("object", String, primary_key=True),
    Column("sop_class_uid", String, nullable=False),
    Column("sop_instance_uid", String, nullable=False),
    Column("path", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("status", Integer),
    Column("text", Text),
    Column("attempts", Integer, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("commitment", Boolean, nullable=False, server_default=false()),
)
_open = deliveries.c.state.in_(("pending", "failed", "rejected"))
#: By it those that have not arrived are counted: few beside those that have.
Index("deliveries_open", deliveries.c.destination, deliveries.c.state, sqlite_where=_open, postgresql_where=_open)

Index("deliveries_instance", deliveries.c.sop_instance_uid)

conflicts = Table(
    "conflicts",
    metadata,
    Column("sop_instance_uid", String, primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("study_uid", String, primary_key=True),
    Column("received_at", Float, nullable=False),
)
Index("conflicts_study", conflicts.c.study_uid)

#: Who decided, and when, that an object is replaced or taken out. `sha256`: of what is no longer used;
#: `successor`: of what stands in its place. `patient_hash`: whose the study was before.
corrections = Table(
    "corrections",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("study_uid", String, nullable=False),
    Column("sop_instance_uid", String, nullable=False),
    Column("action", String(16), nullable=False),
    Column("who", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("successor", String(64), nullable=False),
    Column("patient_hash", String(64), nullable=False),
    Column("code", String(16), nullable=False),
    Column("followed", Boolean, nullable=False),
)
Index("corrections_study", corrections.c.study_uid)
Index("corrections_instance", corrections.c.sop_instance_uid)
Index("corrections_followed", corrections.c.followed)

#: Studies of which more of an accepted correction is taken as it comes, for a while.
acceptances = Table(
    "acceptances",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("who", String, nullable=False),
    Column("until", Float, nullable=False),
    Column("patient_hash", String(64), nullable=False),
    Column("attributes", Text, nullable=False),
    Column("at", Float, nullable=False, server_default="0"),
)
#: Each state that a job has come to, and when.
transitions = Table(
    "transitions",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("study_uid", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("at", Float, nullable=False),
    sqlite_autoincrement=True,
)
Index("transitions_study", transitions.c.study_uid, transitions.c.generation)

commitments = Table(
    "commitments",
    metadata,
    Column("transaction_uid", String, primary_key=True),
    Column("study_uid", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("destination", String, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("answered_at", Float),
)
Index("commitments_study", commitments.c.study_uid, commitments.c.generation)

owed_reports = Table(
    "owed_reports",
    metadata,
    Column("transaction_uid", String, primary_key=True),
    Column("requester", String(16), primary_key=True),
    Column("objects", Text, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
)

routings = Table(
    "routings",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("decided_at", Float, nullable=False),
    Column("decision", Text, nullable=False),
    Column("released_at", Float),
)

events = Table(
    "events",
    metadata,
    Column("event_id", String(32), primary_key=True),
    Column("study_uid", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("at", Float, nullable=False),
)
Index("events_at", events.c.at)

#: Audit messages on their way to the syslog server; what was sent stays for a while.
audit_outbox = Table(
    "audit_outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("message_id", String(32), unique=True),
    Column("event", String(8), nullable=False),
    Column("at", Float, nullable=False),
    Column("xml", Text, nullable=False),
    Column("sent_at", Float),
    sqlite_autoincrement=True,
)
Index("audit_outbox_sent", audit_outbox.c.sent_at, audit_outbox.c.id)

#: Instances that were transferred, and are not told of in the outbox yet.
audit_tallies = Table(
    "audit_tallies",
    metadata,
    Column("channel", String, primary_key=True),
    Column("study_uid", String, primary_key=True),
    Column("sop_class_uid", String, primary_key=True),
    Column("instances", Integer, nullable=False),
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("path", Text, nullable=False),
    Column("patient_id", String, nullable=False),
    Column("patient_name", String, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("version", String, nullable=False),
    Column("state", String(16), nullable=False),
    Column("beat_at", Float, nullable=False),
)

orders = Table(
    "orders",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("patient_hash", String(64), nullable=False),
    Column("study_uid", String, nullable=False),
    Column("accession_number", String, nullable=False),
    Column("scheduled", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("seen_at", Float, nullable=False),
)
Index("orders_patient", orders.c.patient_hash)
Index("orders_study", orders.c.study_uid)
Index("orders_scheduled", orders.c.scheduled)

priors = Table(
    "priors",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("patient_hash", String(64), nullable=False),
    Column("method", String(64), nullable=False),
    Column("series_uids", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("text", Text),
    Column("asked_at", Float, nullable=False),
)
Index("priors_patient", priors.c.patient_hash)

awaited = Table(
    "awaited",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("prior_uid", String, primary_key=True),
    Column("state", String(16), nullable=False),
)
Index("awaited_prior", awaited.c.prior_uid)

#: What other systems are told of the work on a study: UPS tasks and performed procedure steps.
procedure_steps = Table(
    "procedure_steps",
    metadata,
    Column("step_uid", String, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("study_uid", String, nullable=False),
    Column("generation", Integer),
    Column("transaction_uid", String, nullable=False),
    Column("state", String(16), nullable=False),
    Column("told", Text),
    Column("reason", Text),
    Column("seen_at", Float, nullable=False),
    Column("begun_at", Float),
)
Index("procedure_steps_state", procedure_steps.c.kind, procedure_steps.c.state)
Index("procedure_steps_study", procedure_steps.c.study_uid, procedure_steps.c.generation)

#: What training may use of each analysed scan, under pseudonyms (`dicomnode.registry`).
registry_scans = Table(
    "registry_scans",
    metadata,
    Column("scan", String(32), primary_key=True),
    Column("patient", String(32), nullable=False),
    Column("date", String(10), nullable=False),
    Column("age_years", Float),
    Column("sex", String(1), nullable=False),
    Column("manufacturer", String, nullable=False),
    Column("model", String, nullable=False),
    Column("kernel", String, nullable=False),
    Column("kernel_family", String(16), nullable=False),
    Column("slice_thickness_mm", Float),
    Column("spacing_z_mm", Float, nullable=False),
    Column("segmenter", String, nullable=False),
    Column("software_version", String, nullable=False),
    Column("algorithm_digest", String(64), nullable=False),
    Column("doubts", String, nullable=False),
    Column("features", Text, nullable=False),
    Column("volume", Text, nullable=False),
    Column("recorded_at", Float, nullable=False),
)
Index("registry_scans_patient", registry_scans.c.patient)

registry_outcomes = Table(
    "registry_outcomes",
    metadata,
    Column("patient", String(32), primary_key=True),
    Column("death_date", String(10), nullable=False),
    Column("last_contact_date", String(10), nullable=False),
    Column("transplant_date", String(10), nullable=False),
    Column("imported_at", Float, nullable=False),
)

#: Patients who must not come back into the registry with their next scan.
registry_forgotten = Table(
    "registry_forgotten",
    metadata,
    Column("patient", String(32), primary_key=True),
    Column("forgotten_at", Float, nullable=False),
)

#: What the served bundle and a candidate beside it said of the same scan.
registry_risks = Table(
    "registry_risks",
    metadata,
    Column("scan", String(32), primary_key=True),
    Column("bundle_sha256", String(64), primary_key=True),
    Column("patient", String(32), nullable=False),
    Column("bundle", String, nullable=False),
    Column("version", String, nullable=False),
    Column("served", Boolean, nullable=False),
    Column("risk", Text, nullable=False),
    Column("recorded_at", Float, nullable=False),
)
Index("registry_risks_patient", registry_risks.c.patient)

#: What is wrong with the node now, and was told; `host` raised it; `seen_at`: it was last looked at.
alerts = Table(
    "alerts",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("host", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("raised_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
)

#: Messages about alerts on their way. `serve` sends them, since a worker may be what is missing.
alert_messages = Table(
    "alert_messages",
    metadata,
    Column("event_id", String(32), primary_key=True),
    Column("receiver", String(32), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
)

#: Refused associations, counted by reason and period of time.
refusals = Table(
    "refusals",
    metadata,
    Column("period", Integer, primary_key=True, autoincrement=False),
    Column("why", String, primary_key=True),
    Column("caller", String, nullable=False),
    Column("count", Integer, nullable=False),
)

#: When it was told that a held or cancelled job's images will be removed.
removal_notices = Table(
    "removal_notices",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("at", Float, nullable=False),
)

#: Orders that came after a study's results had gone out, each taken up once.
late_orders = Table(
    "late_orders",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("order_key", String(64), primary_key=True),
    Column("at", Float, nullable=False),
)

#: Studies to be analysed once more, and the generation in which that is done.
reanalyses = Table(
    "reanalyses",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("asked_at", Float, nullable=False),
    Column("per_hour", Float, nullable=False),
    Column("generation", Integer),
    Column("taken_at", Float),
)
Index("reanalyses_taken", reanalyses.c.taken_at)

#: Studies that a command brings in bulk. `keep`: their results go nowhere; `patient`: whose they have to be, as
#: patient hashes with backslashes between them, "" for anybody's; `ended_at`: all that it had of them has come.
bulk_studies = Table(
    "bulk_studies",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("how", String(16), nullable=False),
    Column("keep", Boolean, nullable=False),
    Column("patient", Text, nullable=False),
    Column("begun_at", Float, nullable=False),
    Column("ended_at", Float),
)
#: Who may use the console; `password` is a hash that names its own parameters (Argon2id, PHC string).
console_users = Table(
    "console_users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
)

#: Who is logged in to it; `token` is the SHA-256 of what the browser holds. `issuer`: whose user it is, in the role
#: that he had when he logged in; "": one of `console_users`, whose role counts.
console_sessions = Table(
    "console_sessions",
    metadata,
    Column("token", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("began_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("issuer", Text, nullable=False, server_default=""),
    Column("role", String(16), nullable=False, server_default=""),
)
Index("console_sessions_name", console_sessions.c.name)

#: By what programs are known to the console's DICOMweb. `token` is the SHA-256 of what the program holds, which is
#: random and long: no slower hash is needed. `calling_ae`: as whom it may store; "": it may not.
console_tokens = Table(
    "console_tokens",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("token", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("used_at", Float),
)
