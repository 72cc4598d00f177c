"""The audit trail (PS3.15 A.5): its messages, where they wait, and how they go to a syslog server.

The messages are pure. What a transaction of the catalogue causes is written with it (`store.catalog.audit`); what
happens elsewhere goes to a journal on the disk first (`journal`), and from there to the same outbox.
"""
